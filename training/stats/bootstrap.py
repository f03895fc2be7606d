"""Two models on the same rows: how much worse the second one is, and how far chance may have moved that figure.

Rows of one user go together, since they are alike: users are drawn again and again with replacement (bootstrap), each
with all of their rows, the same draw for both models. What both find hard falls out of the difference, so an interval
is narrow where they say nearly the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.tasks import Task
from training.data.examples import Examples, Integers
from training.metrics.metrics import BINS, PROBABILITY_MIN, factorize
from training.trainer.evaluation import to_top_class

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Predictions: TypeAlias = Mapping[str, npt.NDArray[Any]]
DRAWS: Final = 400
SIDES: Final = (0.025, 0.975)
SPREAD_MIN: Final = 0.05  # of labels that are nearly all equal: a share of next to nothing would say nothing


class Interval(NamedTuple):
    """A figure, and between which bounds it lies in 95 of 100 draws of the users."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedPredictions:
    """Examples that judge, and what the serving model and its successor say of them; `which` is their name."""

    name: str
    examples: Examples
    before: Predictions
    after: Predictions

    @cached_property
    def user_index(self) -> Integers:
        return index_users(self.examples)

    def pair_losses(self, task: Task) -> "PairedLosses":
        """The rows that have a label of the task, of which there should be some."""
        rows = self.examples.has_label(task)
        y, old, new = self.examples.labels[task.name][rows], self.before[task.name][rows], self.after[task.name][rows]
        spread = max(float(row_losses(task, y, predict_constant(task, y, old)).mean()), SPREAD_MIN)
        (old_truth, p), (new_truth, q) = (
            to_top_class(y, predictions) if task.kind == "multiclass" else (y, predictions)
            for predictions in (old, new)
        )
        return PairedLosses(
            user=self.user_index[rows],
            loss_increase=(row_losses(task, y, new) - row_losses(task, y, old)) / spread,
            old=np.stack([p, np.subtract(p, old_truth, dtype=np.float64)], 1),
            new=np.stack([q, np.subtract(q, new_truth, dtype=np.float64)], 1),
            label_sum=float(np.sum(old_truth, dtype=np.float64)),
        )


@dataclass(frozen=True, slots=True)
class PairedLosses:
    """One task's labelled rows (N,): whose they are, the rise of each row's loss as a share of a constant's mean loss.

    `old`, `new` (N, 2): a probability and how far it is above the truth, of classes those of the one chosen;
    `happened`: the sum of truths.
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
        """The rows of several sets, whose users count as different ones, as one set."""
        starts = np.cumsum([0, *(1 + int(part.user.max()) for part in parts)])
        return cls(
            user=np.concatenate([part.user + start for part, start in zip(parts, starts, strict=False)]),
            loss_increase=np.concatenate([part.loss_increase for part in parts]),
            old=np.concatenate([part.old for part in parts]),
            new=np.concatenate([part.new for part in parts]),
            label_sum=sum(part.label_sum for part in parts),
        )

    def gain_lost(self) -> Interval:
        """By how much the mean loss rises: what the task loses of its gain."""
        return bootstrap_interval(self.loss_increase[:, None] / len(self), self.user, first_column)

    def level_error_increase(self) -> Interval:
        """By how much further the sum of predictions is from that of truths, as a share of the latter."""
        bias = np.stack([self.old[:, 1], self.new[:, 1]], 1) / max(self.label_sum, 1.0)
        return bootstrap_interval(bias, self.user, abs_error_increase)

    def calibration_error_increase(self) -> Interval:
        """By how much the calibration error over ten bins rises."""
        bias = np.concatenate([bin_residuals(self.old), bin_residuals(self.new)], 1) / len(self)
        return bootstrap_interval(bias, self.user, abs_error_increase)


def index_users(examples: Examples) -> Integers:
    """The number of each row's user (N,); a row of nobody, as products are, is its own."""
    keys = zip(examples.user_id, examples.example_id, strict=True)
    return factorize(np.array([f"u{user}" if user else f"e{own}" for user, own in keys], np.object_))


def first_column(sums: Floats) -> Floats:
    return sums[:, 0]


def abs_error_increase(sums: Floats) -> Floats:
    """Of columns (draws, 2 k), the former model's first: how much larger the latter's are, whatever their signs."""
    gaps, half = np.abs(sums), sums.shape[1] // 2
    return np.asarray(gaps[:, half:].sum(1) - gaps[:, :half].sum(1))


def bin_residuals(predictions: Floats) -> Floats:
    """The bias of each row in the column of its bin, (N, BINS): bins of equally many rows in the order of p."""
    rank = np.empty(len(predictions), np.int64)
    rank[np.argsort(predictions[:, 0], kind="stable")] = np.arange(len(predictions))
    residuals = np.zeros((len(predictions), BINS))
    residuals[np.arange(len(predictions)), rank * BINS // len(predictions)] = predictions[:, 1]
    return residuals


def predict_constant(task: Task, y: Array, predictions: Array) -> Array:
    """What the best constant says of labels (N,), in the shape of predictions."""
    if task.kind == "multiclass":
        return np.tile(np.bincount(y, minlength=predictions.shape[1]) / len(y), (len(y), 1))
    return np.full(len(y), y.mean(dtype=np.float64))


def row_losses(task: Task, y: Array, p: Array) -> Floats:
    """The loss of each row (N,): log loss, or the square of what a value is off."""
    if task.kind == "regression":
        return np.asarray(np.square(y - p, dtype=np.float64))
    probability = p.astype(np.float64).clip(PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    if task.kind == "multiclass":
        return np.asarray(-np.log(probability[np.arange(len(y)), y]))
    return np.asarray(-(y * np.log(probability) + (1 - y) * np.log(1 - probability)))


def bootstrap_interval(rows: Floats, user: Integers, statistic: Callable[[Floats], Floats]) -> Interval:
    """A figure of the sums of columns (N, k), and its bounds over draws of users; equal users meet equal draws."""
    _, user_number = np.unique(user, return_inverse=True)
    users = int(user_number.max()) + 1
    sums = np.stack([np.bincount(user_number, weights=column, minlength=users) for column in rows.T], 1)
    samples = np.random.default_rng(0).poisson(1.0, (DRAWS, users)).astype(np.float64) @ sums
    low, high = np.quantile(statistic(samples), SIDES)
    return Interval(float(statistic(sums.sum(0, keepdims=True))[0]), float(low), float(high))
