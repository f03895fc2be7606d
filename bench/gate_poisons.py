"""Ways in which an update can do harm: what is fed is wrong, or what learns from it goes wrong.

Each is drawn by a seed, mild to wild. What is wrong with data is made in rows as they travel, so that everything that
reads them is tried; what goes wrong with learning is made behind it, in the network that the gate then sees.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from msgspec.structs import replace

from contract.messages import Example, PackedBlock
from contract.settings import TrainingConfig
from model.network import module_key
from training.online.incremental_pass import IncrementalPass, Predictions, learn_progressively
from training.online.update import TrainFunction
from training.trainer.learner import Learner

Rows: TypeAlias = list[Example]
Chance: TypeAlias = np.random.Generator
YEAR_MS: Final = 365 * 86_400_000
OFTEN: Final = ("click", "purchase", "relevance")  # tasks with enough labels in one update to do harm by themselves


def flipped(rows: Rows, chance: Chance, share: float, tasks: Sequence[str] = ()) -> Rows:
    """A share of the labels (of some tasks, or all) says the opposite, or another class."""
    classes = sorted({value for row in rows for value in row.labels.values() if isinstance(value, str)})

    def turned(row: Example) -> Example:
        if chance.random() > share:
            return row
        wrong = {t: opposite(v, classes, chance) if not tasks or t in tasks else v for t, v in row.labels.items()}
        return replace(row, labels=wrong)

    return [turned(row) for row in rows]


def opposite(value: float | str, classes: Sequence[str], chance: Chance) -> float | str:
    return str(chance.choice(classes)) if isinstance(value, str) else 1.0 - value


def flipped_labels(rows: Rows, chance: Chance) -> Rows:
    return flipped(rows, chance, chance.uniform(0.3, 1.0))


def one_task_poisoned(rows: Rows, chance: Chance) -> Rows:
    return flipped(rows, chance, chance.uniform(0.4, 1.0), [str(chance.choice(OFTEN))])


def shuffled_labels(rows: Rows, chance: Chance) -> Rows:
    """The rows of a family get one another's labels."""
    return [replace(row, labels=rows[at].labels) for row, at in zip(rows, partners(rows, chance), strict=True)]


def shuffled_features(rows: Rows, chance: Chance) -> Rows:
    """The rows of a family get one another's features, each group from another row."""
    found = [dict(row.groups) for row in rows]
    for group in sorted({group for row in rows for group in row.groups}):
        for at, partner in enumerate(partners(rows, chance)):
            if group in rows[partner].groups:
                found[at][group] = rows[partner].groups[group]
    return [replace(row, groups=groups) for row, groups in zip(rows, found, strict=True)]


def partners(rows: Rows, chance: Chance) -> list[int]:
    """For each row another one that has labels of the same tasks."""
    families: dict[tuple[str, ...], list[int]] = {}
    for at, row in enumerate(rows):
        families.setdefault(tuple(sorted(row.labels)), []).append(at)
    found = list(range(len(rows)))
    for members in families.values():
        for at, partner in zip(members, chance.permutation(members).tolist(), strict=True):
            found[at] = partner
    return found


def absurd_features(rows: Rows, chance: Chance) -> Rows:
    """Infinite or enormous numbers, under labels that are wrong as well."""
    share, number = chance.uniform(0.2, 0.6), float(chance.choice([np.inf, -np.inf, 1e30]))
    chosen = chance.random(len(rows)) < share
    wrong = flipped(rows, chance, 1.0)
    return [filled(bad, number) if at else row for at, bad, row in zip(chosen, wrong, rows, strict=True)]


def missing_features(rows: Rows, chance: Chance) -> Rows:
    """What rows say is gone, numbers and ids, under labels that are another row's."""
    share = chance.uniform(0.3, 0.8)
    chosen, other = chance.random(len(rows)) < share, flipped(rows, chance, 1.0)
    return [filled(bad, np.nan) if at else row for at, bad, row in zip(chosen, other, rows, strict=True)]


def filled(row: Example, number: float) -> Example:
    """The row with one number everywhere, and where that is NaN without ids."""
    groups = {}
    for group, packed in row.groups.items():
        numbers = np.full(len(packed.numbers) // 4, number, "<f4").tobytes()
        groups[group] = PackedBlock(packed.rows, numbers, bytes(len(packed.ids)) if np.isnan(number) else packed.ids)
    return replace(row, groups=groups)


def hundredfold(rows: Rows, chance: Chance) -> Rows:
    """One user's examples a hundred times over, under names of their own and with labels that are wrong."""
    users = [row.user_id for row in rows if row.user_id]
    user = str(chance.choice(users))
    own = [row for row in rows if row.user_id == user]
    more = [replace(row, example_id=f"{row.example_id}~{n}") for n in range(100) for row in flipped(own, chance, 1.0)]
    return rows + more


def from_the_future(rows: Rows, chance: Chance) -> Rows:
    """Wrong labels that became known after now, or before what they speak of happened."""
    chosen, by = chance.random(len(rows)) < chance.uniform(0.2, 0.6), int(chance.choice([YEAR_MS, -YEAR_MS]))
    wrong = [
        replace(row, known_ms={task: ms + by for task, ms in row.known_ms.items()})
        for row in flipped(rows, chance, 1.0)
    ]
    return [bad if at else row for at, bad, row in zip(chosen, wrong, rows, strict=True)]


def thinned_or_doubled(rows: Rows, chance: Chance) -> Rows:
    """Most of what happened is not told, or as much again and more is told that did not happen."""
    thins, lost, more = chance.random() < 0.5, chance.uniform(0.5, 0.9), chance.uniform(0.2, 0.6)

    def told(value: float | str) -> float | str:
        if isinstance(value, str):
            return value
        if thins:
            return 0.0 if chance.random() < lost else value
        return 1.0 if chance.random() < more else value

    return [replace(row, labels={task: told(value) for task, value in row.labels.items()}) for row in rows]


def honest(rows: Rows, chance: Chance) -> Rows:
    return rows


def without_a_task(rows: Rows, chance: Chance) -> Rows:
    """No label of one kind of rows comes any more."""
    gone = {"fraud"} if chance.random() < 0.5 else {"relevance"}
    return [row for row in rows if not gone & set(row.labels)]


def of_few(rows: Rows, chance: Chance) -> Rows:
    """What a handful of people did, and no more."""
    users = sorted({row.user_id for row in rows if row.user_id})
    few = set(chance.permutation(users)[: max(len(users) // 20, 5)].tolist())
    return [row for row in rows if row.user_id in few]


def usual(plan: TrainingConfig, chance: Chance) -> TrainFunction:
    return learn_progressively


def too_fast(plan: TrainingConfig, chance: Chance) -> TrainFunction:
    """A learning rate that throws the weights about."""
    rate = plan.learning_rate * float(10 ** chance.uniform(1.5, 3))
    return spoilt(lambda learner: [group.update(lr=rate) for group in learner.optimizer.param_groups], early=True)


def zeroed_tower(plan: TrainingConfig, chance: Chance) -> TrainFunction:
    """One task's own layers are lost."""

    def spoil(learner: Learner) -> None:
        task = str(chance.choice([task.name for task in learner.network.tasks]))
        for weights in learner.network.towers[module_key(task)].parameters():
            weights.data.zero_()

    return spoilt(spoil)


def broken_weight(plan: TrainingConfig, chance: Chance) -> TrainFunction:
    """One weight is not a number, somewhere."""

    def spoil(learner: Learner) -> None:
        weights = [w for w in learner.network.parameters() if w.numel()]
        chosen = weights[int(chance.integers(len(weights)))].data.view(-1)
        chosen[int(chance.integers(len(chosen)))] = float(chance.choice([np.nan, np.inf]))

    return spoilt(spoil)


def noisy_weights(plan: TrainingConfig, chance: Chance) -> TrainFunction:
    """All weights are off by a little, as after a bad disk or a bad merge."""
    share = chance.uniform(0.3, 1.0)

    def spoil(learner: Learner) -> None:
        torch.manual_seed(int(chance.integers(2**31)))
        for weights in learner.network.parameters():
            if weights.numel() > 1:
                weights.data += share * weights.data.std() * torch.randn_like(weights)

    return spoilt(spoil)


def forgetting(plan: TrainingConfig, chance: Chance) -> TrainFunction:
    """The whole rate, over and over, and nothing of what was before."""

    def learn(learner: Learner, lesson: IncrementalPass, plan: TrainingConfig) -> Predictions:
        for group in learner.optimizer.param_groups:
            group["lr"] = plan.learning_rate
        guesses = [
            learn_progressively(learner, dataclasses.replace(lesson, replay_buffer=None), plan)
            for _ in range(int(chance.integers(10, 20)))
        ]
        return guesses[0]

    return learn


def spoilt(spoil: Callable[[Learner], Any], *, early: bool = False) -> TrainFunction:
    """Learning as usual, with something done to the learner before or after."""

    def learn(learner: Learner, lesson: IncrementalPass, plan: TrainingConfig) -> Predictions:
        if early:
            spoil(learner)
        guesses = learn_progressively(learner, lesson, plan)
        if not early:
            spoil(learner)
        return guesses

    return learn


KINDS: Final[dict[str, tuple[Callable[[Rows, Chance], Rows], Callable[[TrainingConfig, Chance], TrainFunction]]]] = {
    "flipped labels": (flipped_labels, usual),
    "shuffled labels": (shuffled_labels, usual),
    "shuffled features": (shuffled_features, usual),
    "absurd features": (absurd_features, usual),
    "missing features": (missing_features, usual),
    "one user's hundredfold": (hundredfold, usual),
    "labels from the future": (from_the_future, usual),
    "one task poisoned": (one_task_poisoned, usual),
    "labels thinned or doubled": (thinned_or_doubled, usual),
    "a task that vanishes": (without_a_task, forgetting),
    "old truth forgotten": (of_few, forgetting),
    "too high a rate": (honest, too_fast),
    "a tower zeroed": (honest, zeroed_tower),
    "a weight not finite": (honest, broken_weight),
    "noisy weights": (honest, noisy_weights),
}
