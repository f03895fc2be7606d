"""Coverage of the catalogue: the share of items that lists show, compared between arms of different sizes.

More users see more items, so both arms are rarefied to the same number of users, half of the smaller arm: the expected
number of distinct items that randomly chosen users of that number see (Hurlbert 1971). Its variance is that of a
jackknife over cells of users (Efron and Tibshirani 1993), for which half of an arm leaves room.
"""

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from scipy.special import gammaln
from scipy.stats import norm

from contract.arrays import Floats, Integers
from training.stats.bootstrap import TAIL, Interval, assign_cells

CELLS: Final = 40
Z: Final = float(norm.ppf(1 - TAIL))


class ArmCoverage:
    """The items that the users of one arm saw."""

    def __init__(self, users: Sequence[str], items: Sequence[Collection[str]]) -> None:
        cells = min(CELLS, len(users))
        self._users = len(users)
        self._cell = np.argsort(np.argsort(assign_cells(users, 2**31), kind="stable")) % cells  # of equal sizes
        names = {item: number for number, item in enumerate(sorted(set().union(*items)))}
        self._counts = np.zeros((cells, len(names)), np.int64)  # users of each cell who saw each item
        for cell, seen in zip(self._cell.tolist(), items, strict=True):
            self._counts[cell, [names[item] for item in seen]] += 1

    def rarefy(self, users: int) -> tuple[float, Floats]:
        """The items that this number of users see, and the same without each cell of users (cells,)."""
        total = self._counts.sum(0)
        sizes = np.bincount(self._cell)
        without = [
            expect_distinct(total - counts, self._users - int(size), users)
            for counts, size in zip(self._counts, sizes, strict=True)
        ]
        return expect_distinct(total, self._users, users), np.array(without)


def expect_distinct(counts: Integers, users: int, sample: int) -> float:
    """The expected number of items that `sample` of `users` see; `counts` (items,): the users who saw each."""
    seen, items = np.unique(counts[counts > 0], return_counts=True)
    others = np.maximum(users - seen, sample)  # fewer others than the sample always leave one who saw the item
    unseen = np.exp(log_binomial(others, sample) - log_binomial(np.array([users]), sample))
    return float((items * np.where(users - seen >= sample, 1 - unseen, 1.0)).sum())


def log_binomial(n: Integers, k: int) -> Floats:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def compare_coverage(
    control: ArmCoverage, variant: ArmCoverage, users: int, items: int
) -> tuple[float, float, Interval]:
    """The shares of `items` that this number of users see in each arm, and the difference with its interval."""
    (seen, without), (variant_seen, variant_without) = control.rarefy(users), variant.rarefy(users)
    difference = (variant_seen - seen) / items
    reach = Z * float(np.sqrt(jackknife_variance(without) + jackknife_variance(variant_without))) / items
    return seen / items, variant_seen / items, Interval(difference, difference - reach, difference + reach)


def jackknife_variance(without: Floats) -> float:
    """The variance of an estimate from its values without each of g cells."""
    return float((len(without) - 1) / len(without) * np.square(without - without.mean()).sum())
