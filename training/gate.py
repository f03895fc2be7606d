"""The gate: an update serves if it is finite and, on what it has not learned from, not worse than the present model.

Two sets of examples judge: the newest ones, and a part of those that are kept from before, which sees what an update
has forgotten and every task that no new label speaks of. "Not worse" is what the bounds of an interval say
(`training.paired`): a task passes when even the upper bound of what it loses is within the margin, so an update that
moves much has to prove more than a gentle one; calibration and the score are refused where even the lower bound of what
is lost is too much, so chance alone refuses nobody.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from contract.tasks import Task
from model.network import Network
from training.paired import Interval, Judged, Pairs, first, interval

ROWS_SURE: Final = 200  # rows of a task that an upper bound and calibration may be asked of
ROWS_MIN: Final = 50  # labels of a task in one set; where none has so many, all judge it together
LEVEL_MAX: Final = 0.1  # so much further off may the sum of predictions be, as a share of what happened
CALIBRATION_MAX: Final = 0.01  # so much may the calibration error rise beyond chance
SCORE_SHARE: Final = 0.2  # of the margin: what the weighted score may lose beyond chance


@dataclass(slots=True)
class Verdict:
    """Why an update must not serve, as sentences, and the figures of each set and task that say so."""

    refused: list[str] = field(default_factory=list)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    def note(self, name: str, figure: str, found: Interval) -> Interval:
        """Keep a figure with its bounds."""
        named = {figure: found.value, f"{figure}_low": found.low, f"{figure}_high": found.high}
        finite = {key: round(value, 5) for key, value in named.items() if np.isfinite(value)}
        self.figures.setdefault(name, {}).update(finite)
        return found


def judged(tasks: Sequence[Task], sets: Sequence[Judged], margin: float) -> Verdict:
    """Judge an update by sets of examples; without a label anywhere a task is not judged, and has no figures."""
    verdict = Verdict(unanswered(tasks, sets))
    if not verdict.refused:
        for task in tasks:
            for which, pairs in evidence(task, sets):
                judge_task(verdict, task, which, pairs, margin)
        for one in sets:
            judge_score(verdict, tasks, one, margin)
    return verdict


def unanswered(tasks: Sequence[Task], sets: Sequence[Judged]) -> list[str]:
    """The tasks that answer something else than finite numbers, as sentences."""
    broken = set[str]()
    for one in sets:
        known = {task.name: one.examples.known(task) for task in tasks}
        broken |= {name for name, rows in known.items() if rows.any() and not np.isfinite(one.after[name][rows]).all()}
    return [f"`{task.name}` should answer with finite numbers. Found others." for task in tasks if task.name in broken]


def evidence(task: Task, sets: Sequence[Judged]) -> Iterator[tuple[str, Pairs]]:
    """A task's rows in each set that has enough of them; where none has, all there are."""
    found = [(one.which, one.pairs(task)) for one in sets if one.examples.known(task).any()]
    enough = [(which, pairs) for which, pairs in found if len(pairs) >= ROWS_MIN]
    if enough or not found:
        yield from enough
    else:
        yield "all", Pairs.joined([pairs for _, pairs in found])


def judge_task(verdict: Verdict, task: Task, which: str, pairs: Pairs, margin: float) -> None:
    name, of = f"{which} {task.name}", f"on {len(pairs)} {which} examples"
    lost = verdict.note(name, "lost", pairs.loss_of_gain())
    if not bound_of(lost, len(pairs)) <= margin:
        verdict.refused.append(
            f"`{task.name}` should lose at most {margin:g} of its gain {of}, chance included. "
            f"Found {lost.value:.4f}, by chance from {lost.low:.4f} to {lost.high:.4f}."
        )
    if task.kind == "regression" or len(pairs) < ROWS_SURE:
        return
    level, error = verdict.note(name, "level", pairs.level()), verdict.note(name, "ece", pairs.calibration())
    if level.low > LEVEL_MAX:
        verdict.refused.append(
            f"The level of `{task.name}` should be at most {LEVEL_MAX:g} further off {of}. "
            f"Found {level.value:.4f}, by chance no less than {level.low:.4f}."
        )
    if error.low > CALIBRATION_MAX:
        verdict.refused.append(
            f"The calibration error of `{task.name}` should rise by at most {CALIBRATION_MAX:g} {of}. "
            f"Found {error.value:.4f}, by chance no less than {error.low:.4f}."
        )


def bound_of(lost: Interval, rows: int) -> float:
    """What has to be within the margin: of a few rows the upper bound would refuse what is honest, time and again."""
    if rows < ROWS_MIN:
        return lost.low
    return lost.high if rows >= ROWS_SURE else lost.value


def judge_score(verdict: Verdict, tasks: Sequence[Task], one: Judged, margin: float) -> None:
    """The mean loss of gain, weighted by the tasks' priorities, over the tasks that have enough rows in the set."""
    held = [(task.weight, one.pairs(task)) for task in tasks if one.examples.known(task).sum() >= ROWS_MIN]
    total = sum(weight for weight, _ in held)
    if not total:
        return
    rise = np.concatenate([weight / total * pairs.rise / len(pairs) for weight, pairs in held])
    users = np.concatenate([pairs.user for _, pairs in held])
    lost = verdict.note(f"{one.which} score", "lost", interval(rise[:, None], users, first))
    if lost.low > margin * SCORE_SHARE:
        verdict.refused.append(
            f"The weighted score should lose at most {margin * SCORE_SHARE:g} on {one.which} examples. "
            f"Found {lost.value:.4f}, by chance no less than {lost.low:.4f}."
        )


def unfinished(network: Network) -> list[str]:
    """The weights that are not finite, as sentences."""
    weights = network.state_dict().items()
    return [f"Weights should be finite. Found others in {name}." for name, w in weights if not w.isfinite().all()]
