"""Whether two samples of a column are drawn from one source: chances that hold far out, where alarms are set.

Numbers by Kolmogorov and Smirnov; shares, such as that of a bin or of what is missing, by chi-squared where it is as
good as exact, else by Fisher's exact test. Ties and small counts make a chance too large, never too small.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp

from training.streams import Column

ROWS_MIN: Final = 50
EXPECTED: Final = 40  # from so many on chi-squared is as good as exact


def chances(name: str, one: Column, other: Column) -> Iterator[tuple[str, float]]:
    """What is asked of a column, and how likely so large a difference is; nothing where there can be none."""
    if one.is_binned:
        if (p := of_bins(one.values, other.values)) is not None:
            yield name, p
        return
    known, others = np.isfinite(one.values), np.isfinite(other.values)
    if (p := of_shares(known, others)) is not None:
        yield f"{name} missing", p
    a, b = one.values[known], other.values[others]
    if min(len(a), len(b)) >= ROWS_MIN and np.ptp(np.concatenate([a, b])) > 0:
        yield name, float(ks_2samp(a, b, method="asymp").pvalue)


def of_bins(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float | None:
    """The least chance of any bin's share, times the number of bins: also a few rows of a new bin are seen."""
    found = [of_shares(one == number, other == number) for number in np.union1d(one, other).tolist()]
    asked = [p for p in found if p is not None]
    return min(1.0, min(asked) * len(asked)) if asked else None


def of_shares(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float | None:
    table = np.array([[one.sum(), (~one).sum()], [other.sum(), (~other).sum()]])
    if not table.sum(0).all() or not table.sum(1).all():
        return None
    return chi_squared_or_exact(table)


def chi_squared_or_exact(table: npt.NDArray[Any]) -> float:
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    if expected.min() >= EXPECTED:
        return float(chi2_contingency(table, correction=False).pvalue)
    return float(fisher_exact(table).pvalue)
