"""Whether a model loses more than another one on the very same rows, and by more than chance.

What is compared is the gain lost: how much more it loses, as a share of what the best constant loses on those rows, the
unit of the gate's margin. A paired bootstrap over users gives its spread (a user's rows are not independent): users
fall into at most a thousand cells, which are drawn anew with replacement. A thousand draws cannot tell chances of a
millionth, which many looks ask for, so the tail is Student's with the cells' degrees of freedom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from contract.hashing import hash_text
from contract.tasks import Task
from training.metrics.metrics import PROBABILITY_MIN, row_log_loss

Floats = npt.NDArray[np.float64]
CELLS: Final = 1_000
CELLS_MIN: Final = 30  # fewer people than that would decide by chance
DRAWS: Final = 1_000
LOSS_MAX: Final = float(-np.log(PROBABILITY_MIN))  # what an answer that is no number loses


@dataclass(frozen=True, slots=True)
class ExcessLoss:
    """The gain that is lost, how likely more than the margin was found by chance, and on how many rows."""

    gain_lost: float
    p: float
    rows: int


@dataclass(frozen=True, slots=True)
class LossDifferences:
    """N rows judged twice: how much more the one loses than the other (N,), weights (N,), and the cell of each user."""

    difference: Floats
    weight: Floats
    cell: npt.NDArray[np.int64]
    constant_loss: float  # the loss of the best constant, over all rows

    def __len__(self) -> int:
        return len(self.difference)


def compare_losses(
    task: Task, y: Floats, w: Floats, users: Sequence[str], candidate: Floats, baseline: Floats
) -> LossDifferences | None:
    """What two models said (N,) of rows with labels y (N,); None where the labels could not tell them apart."""
    constant = constant_loss(task, y, w)
    if not constant > PROBABILITY_MIN:
        return None
    difference = row_losses(task, y, candidate) - row_losses(task, y, baseline)
    return LossDifferences(difference, w, np.array([hash_text(user) % CELLS for user in users], np.int64), constant)


def row_losses(task: Task, y: Floats, p: Floats) -> Floats:
    """The loss of each row; one that is no number loses as much as an answer can."""
    loss: Floats = np.square(y - p) if task.kind == "regression" else row_log_loss(y, p)
    loss[~np.isfinite(p)] = LOSS_MAX
    return loss


def constant_loss(task: Task, y: Floats, w: Floats) -> float:
    """The loss of the best constant: the entropy of the labels, or their variance."""
    mean = float(np.average(y, weights=w))
    if task.kind == "regression":
        return float(np.average(np.square(y - mean), weights=w))
    return float(-(mean * np.log(mean) + (1 - mean) * np.log1p(-mean))) if 0 < mean < 1 else 0.0


def measure_excess_loss(
    parts: Mapping[str, LossDifferences], weights: Mapping[str, float], margin: float
) -> ExcessLoss | None:
    """The mean gain lost over some tasks, by their weights; None where too few people say anything.

    `p` is the chance of finding so much where the truth is a loss of `margin`, or less.
    """
    cells = np.unique(np.concatenate([pairs.cell for pairs in parts.values()]))
    total_weight = sum(weights[name] for name in parts)
    if len(cells) < CELLS_MIN or not total_weight > 0:
        return None
    draws = np.random.default_rng(len(cells)).multinomial(len(cells), np.full(len(cells), 1 / len(cells)), DRAWS)
    lost, spread = 0.0, np.zeros(DRAWS)
    for name, pairs in parts.items():
        top, bottom = (
            sum_by_cell(pairs, cells, pairs.weight * pairs.difference),
            sum_by_cell(pairs, cells, pairs.weight),
        )
        scale = weights[name] / total_weight / pairs.constant_loss
        lost += scale * float(top.sum() / bottom.sum())
        spread += scale * safe_ratio(draws @ top, draws @ bottom)
    return ExcessLoss(
        lost, tail_probability(lost - margin, float(spread.std(ddof=1)), len(cells) - 1), sum(map(len, parts.values()))
    )


def sum_by_cell(pairs: LossDifferences, cells: npt.NDArray[np.int64], values: Floats) -> Floats:
    """The sums of values (N,) in each of the cells."""
    return np.bincount(np.searchsorted(cells, pairs.cell), weights=values, minlength=len(cells)).astype(np.float64)


def safe_ratio(top: Any, bottom: Any) -> Floats:
    """Of a draw without a row of the task: nothing was lost in it."""
    quotient: Floats = np.divide(top, bottom, out=np.zeros(len(top)), where=bottom > 0)
    return quotient


def tail_probability(difference: float, spread: float, degrees: int) -> float:
    """The chance of so much or more where the mean is 0; without any spread, of what is not above it, 1."""
    if spread > 0:
        return float(student.sf(difference / spread, degrees))
    return 0.0 if difference > 0 else 1.0
