"""Off-policy estimates: what another policy would have earned, from rewards that were logged under a known one.

The policy that served chose each action with a logged probability, its propensity; the target policy would have chosen
the same action with another one. Their ratio is the action's weight, and weighted rewards estimate the target's mean
reward without bias where every action that the target may choose had a propensity above 0:

- IPS: the mean of weight times reward (Horvitz and Thompson 1952)
- SNIPS: the same divided by the mean weight, which is 1 on average, so chance in the weights cancels out (Swaminathan
  and Joachims 2015)
- DR: a model's prediction of the target's reward, and the weighted errors of the model on the logged actions (Dudik,
  Langford and Li 2011); right if either the propensities or the model are, and narrower than IPS for a fair model

Rows of one unit, a user or a list, depend on each other: intervals are by Student's t over the sums of each estimate's
influence by unit, the delta method.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from contract.arrays import Floats, Integers
from training.stats.bootstrap import TAIL, Interval


@dataclass(frozen=True, slots=True)
class WeightedRewards:
    """N logged actions: rewards, weights, units from 0, and exposures, all (N,).

    `exposure`: how likely the action was noticed at its place, 1 where only the choice of the action matters.
    """

    reward: Floats
    weight: Floats
    unit: Integers
    exposure: Floats

    def __len__(self) -> int:
        return len(self.reward)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean reward, and how much each row (N,) moves it; influences sum to 0."""

    value: float
    influence: Floats

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference of two estimates from the same rows."""
        return Estimate(self.value - other.value, self.influence - other.influence)

    def interval(self, unit: Integers) -> Interval:
        """The estimate with its confidence interval over units; without a second unit it is infinite."""
        units = int(unit.max()) + 1
        if units < 2:
            return Interval(self.value, -np.inf, np.inf)
        sums = np.bincount(unit, weights=self.influence, minlength=units)
        deviation = float(np.sqrt(units / (units - 1) * np.square(sums).sum()))
        reach = float(student.ppf(1 - TAIL, units - 1)) * deviation
        return Interval(self.value, self.value - reach, self.value + reach)


def estimate_mean(values: Floats) -> Estimate:
    """The plain mean of values (N,): of rewards, what the policy that served has earned."""
    value = float(values.mean())
    return Estimate(value, (values - value) / len(values))


def estimate_ips(rows: WeightedRewards) -> Estimate:
    return estimate_mean(rows.weight * rows.reward)


def estimate_mean_weight(rows: WeightedRewards) -> Estimate:
    """The mean weight by exposure: 1 on average where the target chooses nothing that the logs lack."""
    total = rows.exposure.sum()
    value = float((rows.exposure * rows.weight).sum() / total)
    return Estimate(value, rows.exposure * (rows.weight - value) / total)


def estimate_snips(rows: WeightedRewards) -> Estimate:
    ips, scale = estimate_ips(rows), estimate_mean_weight(rows)
    value = ips.value / scale.value
    return Estimate(value, (ips.influence - value * scale.influence) / scale.value)


def estimate_dr(rows: WeightedRewards, predicted: Floats, expected: Floats) -> Estimate:
    """`predicted` (N,): the model's reward of the logged action; `expected` (N,): that of the target's choice there.

    The model should be cross-fitted: fitted without the row's unit (Chernozhukov et al. 2018).
    """
    return estimate_mean(expected + rows.weight * (rows.reward - predicted))
