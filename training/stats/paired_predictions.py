"""Predictions of two models for the same examples: how much worse the second is, with bootstrap intervals.

The difficulty of a row cancels out in the difference, so intervals are narrow where the models nearly agree. This is
what the promotion gate asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from contract.arrays import Floats, Integers, Predictions
from contract.tasks import Task
from training.data.examples import Examples
from training.data.users import index_users
from training.metrics.calibration import BINS, assign_bins, to_top_class
from training.metrics.losses import constant_loss, row_losses
from training.stats.bootstrap import Interval, bootstrap_interval, first_column

LOSS_SCALE_MIN: Final = 0.05  # labels that are nearly all equal would make any change a large share


@dataclass(frozen=True)
class PairedPredictions:
    """Held-out examples with the predictions of the serving model and of its update; `name` of the set."""

    name: str
    examples: Examples
    before: Predictions
    after: Predictions

    @cached_property
    def user_index(self) -> Integers:
        return index_users(self.examples)

    def pair_losses(self, task: Task) -> "PairedLosses":
        """The rows that have a label of the task; there should be some."""
        rows = self.examples.has_label(task)
        y = self.examples.labels[task.name][rows]
        old = self.before[task.name][rows]
        new = self.after[task.name][rows]
        scale = max(constant_loss(task, y), LOSS_SCALE_MIN)
        is_multiclass = task.kind == "multiclass"
        old_truth, old_p = to_top_class(y, old) if is_multiclass else (y, old)
        new_truth, new_p = to_top_class(y, new) if is_multiclass else (y, new)
        return PairedLosses(
            user=self.user_index[rows],
            loss_increase=(row_losses(task, y, new) - row_losses(task, y, old)) / scale,
            old=np.stack([old_p, np.subtract(old_p, old_truth, dtype=np.float64)], 1),
            new=np.stack([new_p, np.subtract(new_p, new_truth, dtype=np.float64)], 1),
            label_sum=float(np.sum(old_truth, dtype=np.float64)),
        )


@dataclass(frozen=True, slots=True)
class PairedLosses:
    """One task's labelled rows (N,): their users, and the increase of each row's loss as a share of a constant's loss.

    `old`, `new` (N, 2): a probability and its residual, prediction minus truth; for classes those of the top class.
    `label_sum`: the sum of the truths.
    """

    user: Integers
    loss_increase: Floats
    old: Floats
    new: Floats
    label_sum: float

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def concatenate(cls, parts: Sequence["PairedLosses"]) -> "PairedLosses":
        """The rows of several sets as one set; users of different sets count as different users."""
        starts = np.cumsum([0, *(1 + int(part.user.max()) for part in parts)])
        return cls(
            user=np.concatenate([part.user + start for part, start in zip(parts, starts, strict=False)]),
            loss_increase=np.concatenate([part.loss_increase for part in parts]),
            old=np.concatenate([part.old for part in parts]),
            new=np.concatenate([part.new for part in parts]),
            label_sum=sum(part.label_sum for part in parts),
        )

    def gain_lost(self) -> Interval:
        """The increase of the mean loss: the gain that the task loses."""
        return bootstrap_interval(self.loss_increase[:, None] / len(self), self.user, first_column)

    def level_error_increase(self) -> Interval:
        """How much further the sum of the predictions is from the sum of the labels, as a share of the latter."""
        bias = np.stack([self.old[:, 1], self.new[:, 1]], 1) / max(self.label_sum, 1.0)
        return bootstrap_interval(bias, self.user, abs_error_increase)

    def calibration_error_increase(self) -> Interval:
        """The increase of the calibration error over ten bins."""
        bias = np.concatenate([bin_residuals(self.old), bin_residuals(self.new)], 1) / len(self)
        return bootstrap_interval(bias, self.user, abs_error_increase)


def abs_error_increase(sums: Floats) -> Floats:
    """By how much the absolute sums of the second half of the columns (draws, 2 k) exceed those of the first half."""
    errors, half = np.abs(sums), sums.shape[1] // 2
    return np.asarray(errors[:, half:].sum(1) - errors[:, :half].sum(1))


def bin_residuals(predictions: Floats) -> Floats:
    """The residual of each row in the column of its bin, (N, BINS).

    Ties are split: the gate's error rates were measured with bins of equal size.
    """
    residuals = np.zeros((len(predictions), BINS))
    residuals[np.arange(len(predictions)), assign_bins(predictions[:, 0], split_ties=True)] = predictions[:, 1]
    return residuals
