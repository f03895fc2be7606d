"""Confidence sequences: intervals that hold at every look at once, so that a comparison may be read daily and stopped.

An interval for one fixed time misses with 5 % at each look, and with more at any of them. Let S be a difference of two
arms summed over users, and V its variance: |S| stays below sqrt((V + η) log((V + η) / (η α²))) at all times with
probability 1 - α, for S that behaves like a Brownian motion with clock V (the normal mixture of Robbins 1970; Howard,
Ramdas, McAuliffe and Sekhon 2021, equation 14). With an estimated V this holds asymptotically (Waudby-Smith, Arbour,
Sinha, Kennedy and Ramdas 2024). η, fixed in advance, sets where the sequence is tight, about V = 8 η for α = .05.

Later rewards of the same users make S move less than a Brownian motion as long as they are not negatively correlated
with their earlier ones, so the bound stays valid while users come and go on.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import t as student

from contract.arrays import Floats
from training.stats.bootstrap import TAIL, Interval

ALPHA: Final = 2 * TAIL
DAYS_UNTIL_TIGHT: Final = 20.0  # by how much V grows over its first day before η is reached: one to three weeks


@dataclass(frozen=True, slots=True)
class ArmDifference:
    """The difference of the means of two arms, and its variance; `users`: the harmonic number n m / (n + m) of both."""

    value: float
    variance: float
    users: float

    @classmethod
    def measure(cls, control: Floats, variant: Floats) -> "ArmDifference":
        """The variant's mean minus the control's; totals (n,) and (m,) of users, two or more each."""
        n, m = len(control), len(variant)
        variance = control.var(ddof=1) / n + variant.var(ddof=1) / m
        return cls(float(variant.mean() - control.mean()), float(variance), n * m / (n + m))

    @property
    def clock(self) -> float:
        """The variance V of the summed difference S."""
        return self.variance * self.users**2

    def interval(self) -> Interval:
        """For one look at a time that was fixed in advance."""
        reach = float(student.ppf(1 - TAIL, max(2 * self.users, 2)) * np.sqrt(self.variance))
        return Interval(self.value, self.value - reach, self.value + reach)

    def sequence(self, first_clock: float) -> Interval:
        """For this look and all others; `first_clock`: the clock after the first day, the same at every look."""
        eta = DAYS_UNTIL_TIGHT * first_clock
        reach = bound_mixture(self.clock, eta) / self.users
        return Interval(self.value, self.value - reach, self.value + reach)


def bound_mixture(clock: float, eta: float, alpha: float = ALPHA) -> float:
    """The bound of |S| at the clock V."""
    return float(np.sqrt((clock + eta) * np.log((clock + eta) / (eta * alpha**2))))
