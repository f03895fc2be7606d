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

from training.monitor.drift_columns import DriftColumn

ROWS_MIN: Final = 50
TIE_RATIO: Final = 1 + 1e-9  # chances of two tables that differ by less are equal, but for rounding


def compare_column(
    name: str, reference: DriftColumn, current: DriftColumn, rng: np.random.Generator
) -> Iterator[tuple[str, float]]:
    """What is asked of a column, and how likely so large a difference is; nothing where there can be none."""
    if reference.is_binned:
        for p in bin_p_values(reference.values, current.values, rng):
            yield name, p
        return
    reference_known, current_known = np.isfinite(reference.values), np.isfinite(current.values)
    if (missing := fisher_p_value(reference_known, current_known, rng)) is not None:
        yield f"{name} missing", missing
    a, b = reference.values[reference_known], current.values[current_known]
    if min(len(a), len(b)) >= ROWS_MIN and np.ptp(np.concatenate([a, b])) > 0:
        yield name, ks_p_value(a, b, rng)


def ks_p_value(reference: npt.NDArray[np.float64], current: npt.NDArray[np.float64], rng: np.random.Generator) -> float:
    """By places in the order of both, ties as drawn."""
    both = np.concatenate([reference, current])
    rank = np.empty(len(both), np.int64)
    rank[np.lexsort((rng.random(len(both)), both))] = np.arange(len(both))
    return float(ks_2samp(rank[: len(reference)], rank[len(reference) :], method="auto").pvalue)


def bin_p_values(
    reference: npt.NDArray[np.int64], current: npt.NDArray[np.int64], rng: np.random.Generator
) -> Iterator[float]:
    """One for the share of each bin but the fullest, which the others decide: a few rows of a new bin are seen, too."""
    numbers, counts = np.unique(np.concatenate([reference, current]), return_counts=True)
    for number in np.delete(numbers, counts.argmax()).tolist():
        if (p := fisher_p_value(reference == number, current == number, rng)) is not None:
            yield p


def fisher_p_value(
    reference: npt.NDArray[np.bool_], current: npt.NDArray[np.bool_], rng: np.random.Generator
) -> float | None:
    """The chance of a table as unlikely, given its margins; None where the margins leave one table alone."""
    n, m, yes, observed = len(reference), len(current), int(reference.sum() + current.sum()), int(reference.sum())
    possible = np.arange(max(0, yes - m), min(yes, n) + 1)
    if len(possible) < 2:
        return None
    probabilities = hypergeom.pmf(possible, n + m, yes, n)
    observed_probability = probabilities[observed - possible[0]]
    less, equal = (
        probabilities < observed_probability / TIE_RATIO,
        (probabilities >= observed_probability / TIE_RATIO) & (probabilities <= observed_probability * TIE_RATIO),
    )
    return float(probabilities[less].sum() + rng.random() * probabilities[equal].sum())
