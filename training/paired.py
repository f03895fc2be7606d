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
from training.evaluation import choices
from training.examples import Examples, Integers
from training.metrics import BINS, TINY, numbered

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
class Judged:
    """Examples that judge, and what the serving model and its successor say of them; `which` is their name."""

    which: str
    examples: Examples
    before: Predictions
    after: Predictions

    @cached_property
    def whose(self) -> Integers:
        return whose(self.examples)

    def pairs(self, task: Task) -> "Pairs":
        """The rows that have a label of the task, of which there should be some."""
        rows = self.examples.known(task)
        y, old, new = self.examples.labels[task.name][rows], self.before[task.name][rows], self.after[task.name][rows]
        spread = max(float(losses(task, y, constant(task, y, old)).mean()), SPREAD_MIN)
        (then, p), (now, q) = (choices(y, said) if task.kind == "multiclass" else (y, said) for said in (old, new))
        return Pairs(
            user=self.whose[rows],
            rise=(losses(task, y, new) - losses(task, y, old)) / spread,
            old=np.stack([p, np.subtract(p, then, dtype=np.float64)], 1),
            new=np.stack([q, np.subtract(q, now, dtype=np.float64)], 1),
            happened=float(np.sum(then, dtype=np.float64)),
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """One task's labelled rows (N,): whose they are, the rise of each row's loss as a share of a constant's mean loss.

    `old`, `new` (N, 2): a probability and how far it is above the truth, of classes those of the one chosen;
    `happened`: the sum of truths.
    """

    user: Integers
    rise: Floats
    old: Floats
    new: Floats
    happened: float

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def joined(cls, parts: Sequence["Pairs"]) -> "Pairs":
        """The rows of several sets, whose users count as different ones, as one set."""
        starts = np.cumsum([0, *(1 + int(part.user.max()) for part in parts)])
        return cls(
            user=np.concatenate([part.user + start for part, start in zip(parts, starts, strict=False)]),
            rise=np.concatenate([part.rise for part in parts]),
            old=np.concatenate([part.old for part in parts]),
            new=np.concatenate([part.new for part in parts]),
            happened=sum(part.happened for part in parts),
        )

    def loss_of_gain(self) -> Interval:
        """By how much the mean loss rises: what the task loses of its gain."""
        return interval(self.rise[:, None] / len(self), self.user, first)

    def level(self) -> Interval:
        """By how much further the sum of predictions is from that of truths, as a share of the latter."""
        bias = np.stack([self.old[:, 1], self.new[:, 1]], 1) / max(self.happened, 1.0)
        return interval(bias, self.user, growth_of_gaps)

    def calibration(self) -> Interval:
        """By how much the calibration error over ten bins rises."""
        bias = np.concatenate([binned(self.old), binned(self.new)], 1) / len(self)
        return interval(bias, self.user, growth_of_gaps)


def whose(examples: Examples) -> Integers:
    """The number of each row's user (N,); a row of nobody, as products are, is its own."""
    named = zip(examples.user_id, examples.example_id, strict=True)
    return numbered(np.array([f"u{user}" if user else f"e{own}" for user, own in named], np.object_))


def first(sums: Floats) -> Floats:
    return sums[:, 0]


def growth_of_gaps(sums: Floats) -> Floats:
    """Of columns (draws, 2 k), the former model's first: how much larger the latter's are, whatever their signs."""
    gaps, half = np.abs(sums), sums.shape[1] // 2
    return np.asarray(gaps[:, half:].sum(1) - gaps[:, :half].sum(1))


def binned(said: Floats) -> Floats:
    """The bias of each row in the column of its bin, (N, BINS): bins of equally many rows in the order of p."""
    place = np.empty(len(said), np.int64)
    place[np.argsort(said[:, 0], kind="stable")] = np.arange(len(said))
    found = np.zeros((len(said), BINS))
    found[np.arange(len(said)), place * BINS // len(said)] = said[:, 1]
    return found


def constant(task: Task, y: Array, like: Array) -> Array:
    """What the best constant says of labels (N,), in the shape of predictions."""
    if task.kind == "multiclass":
        return np.tile(np.bincount(y, minlength=like.shape[1]) / len(y), (len(y), 1))
    return np.full(len(y), y.mean(dtype=np.float64))


def losses(task: Task, y: Array, p: Array) -> Floats:
    """The loss of each row (N,): log loss, or the square of what a value is off."""
    if task.kind == "regression":
        return np.asarray(np.square(y - p, dtype=np.float64))
    chance = p.astype(np.float64).clip(TINY, 1 - TINY)
    if task.kind == "multiclass":
        return np.asarray(-np.log(chance[np.arange(len(y)), y]))
    return np.asarray(-(y * np.log(chance) + (1 - y) * np.log(1 - chance)))


def interval(rows: Floats, user: Integers, figure: Callable[[Floats], Floats]) -> Interval:
    """A figure of the sums of columns (N, k), and its bounds over draws of users; equal users meet equal draws."""
    _, number = np.unique(user, return_inverse=True)
    users = int(number.max()) + 1
    sums = np.stack([np.bincount(number, weights=column, minlength=users) for column in rows.T], 1)
    drawn = np.random.default_rng(0).poisson(1.0, (DRAWS, users)).astype(np.float64) @ sums
    low, high = np.quantile(figure(drawn), SIDES)
    return Interval(float(figure(sums.sum(0, keepdims=True))[0]), float(low), float(high))
