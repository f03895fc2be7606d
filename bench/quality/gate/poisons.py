"""Harmful updates: poisoned rows, or training that goes wrong.

Each is drawn by a seed, mild to severe. Data is poisoned in the rows as published, so that every check that reads them
is tested; training faults act on the network that the gate then evaluates.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from msgspec.structs import replace

from contract.arrays import Predictions
from contract.features.packing import PackedBlock
from contract.messages import Example
from contract.settings.training import TrainingConfig
from contract.units import DAY_MS
from model.network import module_key
from training.online.incremental_pass import IncrementalPass, learn_progressively
from training.online.update import TrainFunction
from training.trainer.learner import Learner

Rows: TypeAlias = list[Example]
Rng: TypeAlias = np.random.Generator
YEAR_MS: Final = 365 * DAY_MS
FREQUENT_TASKS: Final = ("click", "purchase", "relevance")  # with enough labels in one update to do harm alone


def flip_share(rows: Rows, rng: Rng, share: float, tasks: Sequence[str] = ()) -> Rows:
    """Invert a share of the labels (of some tasks, or all), or replace them by a random class."""
    classes = sorted({value for row in rows for value in row.labels.values() if isinstance(value, str)})

    def flip(row: Example) -> Example:
        if rng.random() > share:
            return row
        labels = {t: flip_value(v, classes, rng) if not tasks or t in tasks else v for t, v in row.labels.items()}
        return replace(row, labels=labels)

    return [flip(row) for row in rows]


def flip_value(value: float | str, classes: Sequence[str], rng: Rng) -> float | str:
    return str(rng.choice(classes)) if isinstance(value, str) else 1.0 - value


def flip_labels(rows: Rows, rng: Rng) -> Rows:
    return flip_share(rows, rng, rng.uniform(0.3, 1.0))


def flip_one_task(rows: Rows, rng: Rng) -> Rows:
    return flip_share(rows, rng, rng.uniform(0.4, 1.0), [str(rng.choice(FREQUENT_TASKS))])


def shuffle_labels(rows: Rows, rng: Rng) -> Rows:
    """Exchange the labels of rows of the same family."""
    return [
        replace(row, labels=rows[partner].labels) for row, partner in zip(rows, match_partners(rows, rng), strict=True)
    ]


def shuffle_features(rows: Rows, rng: Rng) -> Rows:
    """Exchange the features of rows of the same family, each group with another row."""
    groups_by_row = [dict(row.groups) for row in rows]
    for group in sorted({group for row in rows for group in row.groups}):
        for index, partner in enumerate(match_partners(rows, rng)):
            if group in rows[partner].groups:
                groups_by_row[index][group] = rows[partner].groups[group]
    return [replace(row, groups=groups) for row, groups in zip(rows, groups_by_row, strict=True)]


def match_partners(rows: Rows, rng: Rng) -> list[int]:
    """For each row a random one that has labels of the same tasks."""
    families: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        families.setdefault(tuple(sorted(row.labels)), []).append(index)
    partner_by_row = list(range(len(rows)))
    for members in families.values():
        for index, partner in zip(members, rng.permutation(members).tolist(), strict=True):
            partner_by_row[index] = partner
    return partner_by_row


def set_extreme_features(rows: Rows, rng: Rng) -> Rows:
    """Infinite or huge numbers, with inverted labels."""
    share, number = rng.uniform(0.2, 0.6), float(rng.choice([np.inf, -np.inf, 1e30]))
    chosen = rng.random(len(rows)) < share
    flipped_rows = flip_share(rows, rng, 1.0)
    return [
        fill_features(bad, number) if is_chosen else row
        for is_chosen, bad, row in zip(chosen, flipped_rows, rows, strict=True)
    ]


def drop_features(rows: Rows, rng: Rng) -> Rows:
    """Missing numbers and ids, with inverted labels."""
    share = rng.uniform(0.3, 0.8)
    chosen, flipped_rows = rng.random(len(rows)) < share, flip_share(rows, rng, 1.0)
    return [
        fill_features(bad, np.nan) if is_chosen else row
        for is_chosen, bad, row in zip(chosen, flipped_rows, rows, strict=True)
    ]


def fill_features(row: Example, number: float) -> Example:
    """The row with one number everywhere; with NaN, also without ids."""
    groups = {}
    for group, packed in row.groups.items():
        numbers = np.full(len(packed.numbers) // 4, number, "<f4").tobytes()
        groups[group] = PackedBlock(packed.rows, numbers, bytes(len(packed.ids)) if np.isnan(number) else packed.ids)
    return replace(row, groups=groups)


def repeat_user(rows: Rows, rng: Rng) -> Rows:
    """A hundred copies of one user's examples, under new ids and with inverted labels."""
    users = [row.user_id for row in rows if row.user_id]
    user = str(rng.choice(users))
    user_rows = [row for row in rows if row.user_id == user]
    more = [
        replace(row, example_id=f"{row.example_id}~{n}") for n in range(100) for row in flip_share(user_rows, rng, 1.0)
    ]
    return rows + more


def shift_known_times(rows: Rows, rng: Rng) -> Rows:
    """Inverted labels with times in the future, or before their event."""
    chosen, offset_ms = rng.random(len(rows)) < rng.uniform(0.2, 0.6), int(rng.choice([YEAR_MS, -YEAR_MS]))
    shifted_rows = [
        replace(row, known_ms={task: ms + offset_ms for task, ms in row.known_ms.items()})
        for row in flip_share(rows, rng, 1.0)
    ]
    return [bad if is_chosen else row for is_chosen, bad, row in zip(chosen, shifted_rows, rows, strict=True)]


def thin_or_inflate(rows: Rows, rng: Rng) -> Rows:
    """Most positive labels removed, or many false positive labels added."""
    is_thinned = rng.random() < 0.5
    drop_share = rng.uniform(0.5, 0.9)
    inflate_share = rng.uniform(0.2, 0.6)

    def change(value: float | str) -> float | str:
        if isinstance(value, str):
            return value
        if is_thinned:
            return 0.0 if rng.random() < drop_share else value
        return 1.0 if rng.random() < inflate_share else value

    return [replace(row, labels={task: change(value) for task, value in row.labels.items()}) for row in rows]


def leave_unchanged(rows: Rows, rng: Rng) -> Rows:
    return rows


def drop_task(rows: Rows, rng: Rng) -> Rows:
    """Drop all rows of one task."""
    dropped_tasks = {"fraud"} if rng.random() < 0.5 else {"relevance"}
    return [row for row in rows if not dropped_tasks & set(row.labels)]


def keep_few_users(rows: Rows, rng: Rng) -> Rows:
    """Keep only the rows of a few users."""
    users = sorted({row.user_id for row in rows if row.user_id})
    chosen_users = set(rng.permutation(users)[: max(len(users) // 20, 5)].tolist())
    return [row for row in rows if row.user_id in chosen_users]


def learn_as_usual(plan: TrainingConfig, rng: Rng) -> TrainFunction:
    return learn_progressively


def raise_learning_rate(plan: TrainingConfig, rng: Rng) -> TrainFunction:
    """A learning rate that is far too high."""
    rate = plan.learning_rate * float(10 ** rng.uniform(1.5, 3))
    return learn_with_damage(
        lambda learner: [group.update(lr=rate) for group in learner.optimizer.param_groups], early=True
    )


def zero_tower(plan: TrainingConfig, rng: Rng) -> TrainFunction:
    """Set one task's own layers to zero."""

    def damage(learner: Learner) -> None:
        task = str(rng.choice([task.name for task in learner.network.tasks]))
        for weights in learner.network.towers[module_key(task)].parameters():
            weights.data.zero_()

    return learn_with_damage(damage)


def break_weight(plan: TrainingConfig, rng: Rng) -> TrainFunction:
    """Set one random weight to NaN or infinity."""

    def damage(learner: Learner) -> None:
        weights = [w for w in learner.network.parameters() if w.numel()]
        chosen = weights[int(rng.integers(len(weights)))].data.view(-1)
        chosen[int(rng.integers(len(chosen)))] = float(rng.choice([np.nan, np.inf]))

    return learn_with_damage(damage)


def add_weight_noise(plan: TrainingConfig, rng: Rng) -> TrainFunction:
    """Add noise to all weights, as after a corrupted disk or a bad merge."""
    share = rng.uniform(0.3, 1.0)

    def damage(learner: Learner) -> None:
        torch.manual_seed(int(rng.integers(2**31)))
        for weights in learner.network.parameters():
            if weights.numel() > 1:
                weights.data += share * weights.data.std() * torch.randn_like(weights)

    return learn_with_damage(damage)


def forget_history(plan: TrainingConfig, rng: Rng) -> TrainFunction:
    """Many passes at the full learning rate without the replay buffer."""

    def learn(learner: Learner, incremental_pass: IncrementalPass, plan: TrainingConfig) -> Predictions:
        for group in learner.optimizer.param_groups:
            group["lr"] = plan.learning_rate
        predictions = [
            learn_progressively(learner, dataclasses.replace(incremental_pass, replay_buffer=None), plan)
            for _ in range(int(rng.integers(10, 20)))
        ]
        return predictions[0]

    return learn


def learn_with_damage(damage: Callable[[Learner], Any], *, early: bool = False) -> TrainFunction:
    """Train as usual, with damage to the learner before or after."""

    def learn(learner: Learner, incremental_pass: IncrementalPass, plan: TrainingConfig) -> Predictions:
        if early:
            damage(learner)
        predictions = learn_progressively(learner, incremental_pass, plan)
        if not early:
            damage(learner)
        return predictions

    return learn


POISONS: Final[dict[str, tuple[Callable[[Rows, Rng], Rows], Callable[[TrainingConfig, Rng], TrainFunction]]]] = {
    "flipped labels": (flip_labels, learn_as_usual),
    "shuffled labels": (shuffle_labels, learn_as_usual),
    "shuffled features": (shuffle_features, learn_as_usual),
    "absurd features": (set_extreme_features, learn_as_usual),
    "missing features": (drop_features, learn_as_usual),
    "one user's hundredfold": (repeat_user, learn_as_usual),
    "labels from the future": (shift_known_times, learn_as_usual),
    "one task poisoned": (flip_one_task, learn_as_usual),
    "labels thinned or doubled": (thin_or_inflate, learn_as_usual),
    "a task that vanishes": (drop_task, forget_history),
    "old truth forgotten": (keep_few_users, forget_history),
    "too high a rate": (leave_unchanged, raise_learning_rate),
    "a tower zeroed": (leave_unchanged, zero_tower),
    "a weight not finite": (leave_unchanged, break_weight),
    "noisy weights": (leave_unchanged, add_weight_noise),
}
