"""Whether two samples of a column are drawn from one source, by tests that are exact as far out as alarms are set.

Numbers go by Kolmogorov and Smirnov, shares (of what is missing, of a bin) by Fisher. Usual tests are careful with ties
and small counts, which here would make alarms several times rarer than was asked for; so equal numbers are put into an
order that is drawn, and of equally unlikely tables a part that is drawn counts (Tocher 1950). The draws are seeded.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom, ks_2samp

from training.streams import Column

ROWS_MIN: Final = 50
ALIKE: Final = 1 + 1e-9  # chances of two tables that differ by less are equal, but for rounding


def chances(name: str, one: Column, other: Column, chance: np.random.Generator) -> Iterator[tuple[str, float]]:
    """What is asked of a column, and how likely so large a difference is; nothing where there can be none."""
    if one.is_binned:
        for p in of_bins(one.values, other.values, chance):
            yield name, p
        return
    known, others = np.isfinite(one.values), np.isfinite(other.values)
    if (missing := of_shares(known, others, chance)) is not None:
        yield f"{name} missing", missing
    a, b = one.values[known], other.values[others]
    if min(len(a), len(b)) >= ROWS_MIN and np.ptp(np.concatenate([a, b])) > 0:
        yield name, of_numbers(a, b, chance)


def of_numbers(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64], chance: np.random.Generator) -> float:
    """By places in the order of both, ties as drawn."""
    both = np.concatenate([one, other])
    place = np.empty(len(both), np.int64)
    place[np.lexsort((chance.random(len(both)), both))] = np.arange(len(both))
    return float(ks_2samp(place[: len(one)], place[len(one) :], method="auto").pvalue)


def of_bins(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64], chance: np.random.Generator) -> Iterator[float]:
    """One for the share of each bin but the fullest, which the others decide: a few rows of a new bin are seen, too."""
    numbers, counts = np.unique(np.concatenate([one, other]), return_counts=True)
    for number in np.delete(numbers, counts.argmax()).tolist():
        if (found := of_shares(one == number, other == number, chance)) is not None:
            yield found


def of_shares(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], chance: np.random.Generator) -> float | None:
    """The chance of a table as unlikely, given its margins; None where the margins leave one table alone."""
    n, m, yes, found = len(one), len(other), int(one.sum() + other.sum()), int(one.sum())
    possible = np.arange(max(0, yes - m), min(yes, n) + 1)
    if len(possible) < 2:
        return None
    each = hypergeom.pmf(possible, n + m, yes, n)
    own = each[found - possible[0]]
    less, equal = each < own / ALIKE, (each >= own / ALIKE) & (each <= own * ALIKE)
    return float(each[less].sum() + chance.random() * each[equal].sum())
