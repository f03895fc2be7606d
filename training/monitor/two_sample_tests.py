"""Two-sample tests of one column, exact at the small p-values that drift alarms need.

Numbers are compared by the Kolmogorov-Smirnov test, shares (of missing values, of a bin) by Fisher's exact test. Both
are conservative with ties and small counts, which would make alarms several times rarer than configured. So ties are
broken at random, and equally likely tables count by a random part (randomised test, Tocher 1950). Draws are seeded.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom, ks_2samp

from training.monitor.drift_columns import DriftColumn

ROWS_MIN: Final = 50
TIE_RATIO: Final = 1 + 1e-9  # probabilities of tables that differ by less are equal up to rounding


def compare_column(
    name: str, reference: DriftColumn, current: DriftColumn, rng: np.random.Generator
) -> Iterator[tuple[str, float]]:
    """The tests of a column, by name, with their p-values; none where no difference is possible."""
    if reference.is_binned:
        for p in bin_p_values(reference.values, current.values, rng):
            yield name, p
        return
    reference_known, current_known = np.isfinite(reference.values), np.isfinite(current.values)
    if (missing_p := fisher_p_value(reference_known, current_known, rng)) is not None:
        yield f"{name} missing", missing_p
    a, b = reference.values[reference_known], current.values[current_known]
    if min(len(a), len(b)) >= ROWS_MIN and np.ptp(np.concatenate([a, b])) > 0:
        yield name, ks_p_value(a, b, rng)


def ks_p_value(reference: npt.NDArray[np.float64], current: npt.NDArray[np.float64], rng: np.random.Generator) -> float:
    """The Kolmogorov-Smirnov test on ranks of both samples, ties broken at random."""
    both = np.concatenate([reference, current])
    rank = np.empty(len(both), np.int64)
    rank[np.lexsort((rng.random(len(both)), both))] = np.arange(len(both))
    return float(ks_2samp(rank[: len(reference)], rank[len(reference) :], method="auto").pvalue)


def bin_p_values(
    reference: npt.NDArray[np.int64], current: npt.NDArray[np.int64], rng: np.random.Generator
) -> Iterator[float]:
    """A test of the share of each bin; the fullest is left out, as the others determine it."""
    numbers, counts = np.unique(np.concatenate([reference, current]), return_counts=True)
    for number in np.delete(numbers, counts.argmax()).tolist():
        if (p := fisher_p_value(reference == number, current == number, rng)) is not None:
            yield p


def fisher_p_value(
    reference: npt.NDArray[np.bool_], current: npt.NDArray[np.bool_], rng: np.random.Generator
) -> float | None:
    """The probability of a table at most as likely, given its margins; None if only one table is possible."""
    n, m, observed = len(reference), len(current), int(reference.sum())
    positives = observed + int(current.sum())
    possible = np.arange(max(0, positives - m), min(positives, n) + 1)
    if len(possible) < 2:
        return None
    probabilities = hypergeom.pmf(possible, n + m, positives, n)
    observed_probability = probabilities[observed - possible[0]]
    less = probabilities < observed_probability / TIE_RATIO
    equal = ~less & (probabilities <= observed_probability * TIE_RATIO)
    return float(probabilities[less].sum() + rng.random() * probabilities[equal].sum())
