"""The bootstrap over users: how far a metric would move if other users of the same kind had come.

Rows of one user depend on each other, so whole users are resampled with replacement, each with all of its rows (Efron
and Tibshirani 1993). An interval is made of the percentiles of the draws. For tail probabilities below one over the
number of draws use `t_tail_probability` on their standard deviation.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from scipy.stats import t as student

from contract.arrays import Floats, Integers
from contract.hashing import hash_text

Scheme = Literal["multinomial", "poisson"]
TAIL: Final = 0.025  # the share of draws beyond each bound
CONFIDENCE: Final = 1 - 2 * TAIL
GATE_DRAWS: Final = 400


class Interval(NamedTuple):
    """An estimate and its bounds: a share `CONFIDENCE` of the draws lies between them."""

    value: float
    low: float
    high: float


def resample(units: int, draws: int, scheme: Scheme, rng: np.random.Generator) -> Integers:
    """How often each unit counts in each draw, (draws, units).

    A unit is a user or a cell of users. "multinomial" draws as many units as there are; "poisson" counts each unit
    independently, one on average, so a unit's counts do not depend on the others.
    """
    if scheme == "poisson":
        return rng.poisson(1.0, (draws, units))
    return rng.multinomial(units, np.full(units, 1 / units), draws)


def assign_cells(users: Sequence[str], cells: int) -> Integers:
    """The cell (N,) of each user: resampling a bounded number of cells of users instead of users bounds the cost."""
    return np.array([hash_text(user) % cells for user in users], np.int64)


def sum_by_unit(rows: Floats, unit: Integers, units: int) -> Floats:
    """The sums of columns (N, k) over the rows of each unit, (units, k)."""
    return np.stack([np.bincount(unit, weights=column, minlength=units) for column in rows.T], 1).astype(np.float64)


def bootstrap_interval(
    rows: Floats,
    user: Integers,
    statistic: Callable[[Floats], Floats],
    *,
    draws: int = GATE_DRAWS,
    scheme: Scheme = "poisson",
    seed: int = 0,
) -> Interval:
    """A statistic of the sums of columns (N, k), with its bounds over draws of users.

    `statistic` maps sums (draws, k) to values (draws,). Equal users and seeds get equal draws, so intervals of several
    statistics of the same rows are comparable.
    """
    _, number = np.unique(user, return_inverse=True)
    units = int(number.max()) + 1
    sums = sum_by_unit(rows, number, units)
    counts = resample(units, draws, scheme, np.random.default_rng(seed))
    samples = statistic(counts.astype(np.float64) @ sums)
    return percentile_interval(float(statistic(sums.sum(0, keepdims=True))[0]), samples)


def percentile_interval(value: float, samples: Floats) -> Interval:
    """The interval of an estimate by the percentiles of its draws."""
    low, high = np.quantile(samples, (TAIL, 1 - TAIL))
    return Interval(value, float(low), float(high))


def first_column(sums: Floats) -> Floats:
    """The statistic that is a plain sum."""
    return sums[:, 0]


def t_tail_probability(difference: float, deviation: float, degrees: int) -> float:
    """The probability of a larger difference where the mean is 0, by Student's t.

    Draws without any deviation give 0 for a positive difference, otherwise 1.
    """
    if deviation > 0:
        return float(student.sf(difference / deviation, degrees))
    return 0.0 if difference > 0 else 1.0
