"""Tests whether a served model loses more than another one on the same rows, beyond chance.

The statistic is the lost gain: the difference of the mean losses as a share of the loss of the best constant, the unit
of the gate's margin. Its spread comes from a paired bootstrap over at most a thousand cells of users. Sequential tests
need probabilities down to a millionth, which a thousand draws cannot resolve, so the tail is Student's t with the
degrees of freedom of the cells.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from contract.arrays import Floats, Integers
from contract.tasks import Task
from training.metrics.losses import PROBABILITY_MIN, constant_loss, row_losses
from training.stats.bootstrap import assign_cells, resample, sum_by_unit, t_tail_probability

CELLS: Final = 1_000
CELLS_MIN: Final = 30  # with fewer users the t approximation is unreliable
DRAWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class ExcessLoss:
    """The lost gain, the probability `p` of so large a value if the true loss is within the margin, and the rows."""

    gain_lost: float
    p: float
    rows: int


@dataclass(frozen=True, slots=True)
class LossDifferences:
    """N rows of two models: the candidate's loss minus the baseline's, weights, the cells of the users; all (N,)."""

    difference: Floats
    weight: Floats
    cell: Integers
    constant_loss: float  # over all rows

    def __len__(self) -> int:
        return len(self.difference)


def compare_losses(
    task: Task, y: Floats, w: Floats, users: Sequence[str], candidate: Floats, baseline: Floats
) -> LossDifferences | None:
    """The losses of two models' predictions (N,) for labels y (N,); None where all labels are equal."""
    constant = constant_loss(task, y, w)
    if math.isnan(constant) or constant <= PROBABILITY_MIN:
        return None
    difference = row_losses(task, y, candidate) - row_losses(task, y, baseline)
    return LossDifferences(difference, w, assign_cells(users, CELLS), constant)


def measure_excess_loss(
    parts: Mapping[str, LossDifferences], weights: Mapping[str, float], margin: float
) -> ExcessLoss | None:
    """The mean lost gain over some tasks, by their weights; None for too few users.

    `p` is the probability of so large a value if the true loss is `margin` or less.
    """
    cells = np.unique(np.concatenate([pairs.cell for pairs in parts.values()]))
    total_weight = sum(weights[name] for name in parts)
    if len(cells) < CELLS_MIN or not total_weight > 0:
        return None
    counts = resample(len(cells), DRAWS, "multinomial", np.random.default_rng(len(cells)))
    lost, samples = 0.0, np.zeros(DRAWS)
    for name, pairs in parts.items():
        columns = np.stack([pairs.weight * pairs.difference, pairs.weight], 1)
        top, bottom = sum_by_unit(columns, np.searchsorted(cells, pairs.cell), len(cells)).T
        scale = weights[name] / total_weight / pairs.constant_loss
        lost += scale * float(top.sum() / bottom.sum())
        samples += scale * safe_ratio(counts @ top, counts @ bottom)
    p = t_tail_probability(lost - margin, float(samples.std(ddof=1)), len(cells) - 1)
    return ExcessLoss(lost, p, sum(map(len, parts.values())))


def safe_ratio(top: Any, bottom: Any) -> Floats:
    """The mean loss of each draw; 0 for a draw without rows of the task."""
    quotient: Floats = np.divide(top, bottom, out=np.zeros(len(top)), where=bottom > 0)
    return quotient
