"""Overlap of a target policy with logs: whether they can tell what the policy would have earned.

Weights that vary much leave few rows to count: the effective number is (Σ w)² / Σ w² (Kish 1965), which also bounds the
error of self-normalised estimates (Kuzborskij, Vernade, Gyorgy and Szepesvari 2021). An estimate that lacks overlap is
wrong without a sign of it, so limits refuse it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from contract.arrays import Floats
from training.stats.off_policy import WeightedRewards, estimate_mean_weight


@dataclass(frozen=True, slots=True)
class OverlapLimits:
    """What an estimate needs: effective units and rewards, and at most these shares.

    `uncovered_max`: of the target's choices, those that the logs lack. `unit_share_max`: of the whole weight, that of
    one unit.
    """

    units_min: float = 200.0
    rewards_min: float = 20.0
    uncovered_max: float = 0.02
    unit_share_max: float = 0.02


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """What the logs have in common with the target policy.

    `uncovered`: the share of the target's choices whose propensity is 0 or unknown; None where only the propensity of
    the logged actions is known, then a mean weight below 1 tells. `effective_rewards`: of the weighted rewards.
    """

    rows: int
    units: int
    unknown: int  # rows without a usable propensity
    uncovered: float | None
    mean_weight: float
    mean_weight_low: float
    mean_weight_high: float
    weight_max: float
    unit_share_max: float
    effective_units: float
    effective_rewards: float


def measure_overlap(rows: WeightedRewards, *, unknown: int = 0, uncovered: float | None = None) -> Overlap:
    """The overlap of rows whose propensity is known; `unknown`: the number of further rows."""
    mean_weight = estimate_mean_weight(rows).interval(rows.unit)
    by_unit = np.bincount(rows.unit, weights=rows.weight).astype(np.float64)
    total = by_unit.sum()
    return Overlap(
        rows=len(rows) + unknown,
        units=len(by_unit),
        unknown=unknown,
        uncovered=uncovered,
        mean_weight=mean_weight.value,
        mean_weight_low=mean_weight.low,
        mean_weight_high=mean_weight.high,
        weight_max=float(rows.weight.max()),
        unit_share_max=float(by_unit.max() / total) if total else 1.0,
        effective_units=count_effective(by_unit),
        effective_rewards=count_effective(rows.weight * rows.reward),
    )


def count_effective(weights: Floats) -> float:
    """The number of equal weights that average as precisely as these; 0 without any above 0."""
    squares = float(np.square(weights).sum())
    return float(np.square(weights.sum()) / squares) if squares else 0.0


def find_missing_overlap(overlap: Overlap, limits: OverlapLimits) -> Iterator[str]:
    """Why the logs cannot tell what the target policy would have earned, a sentence each."""
    unknown_share = overlap.unknown / overlap.rows
    if unknown_share > limits.uncovered_max:
        yield (
            f"At most {limits.uncovered_max:.1%} of the rows should lack a propensity above 0. "
            f"Found {unknown_share:.1%}."
        )
    if overlap.uncovered is not None and overlap.uncovered > limits.uncovered_max:
        yield (
            f"The logs should have what the new policy chooses, but for {limits.uncovered_max:.1%} of its choices. "
            f"Found {overlap.uncovered:.1%} with a propensity of 0 or an unknown one."
        )
    yield from find_wrong_mean_weight(overlap, limits)
    if overlap.effective_units < limits.units_min:
        yield (
            f"The weights should be worth {limits.units_min:g} equal units. Found {overlap.effective_units:.1f} of "
            f"{overlap.units}."
        )
    if overlap.unit_share_max > limits.unit_share_max:
        yield (
            f"One unit should have at most {limits.unit_share_max:.1%} of the weight. "
            f"Found {overlap.unit_share_max:.1%}; the largest weight is {overlap.weight_max:.4g}."
        )
    if overlap.effective_rewards < limits.rewards_min:
        yield (
            f"The weighted rewards should be worth {limits.rewards_min:g} equal ones. "
            f"Found {overlap.effective_rewards:.1f}."
        )


def find_wrong_mean_weight(overlap: Overlap, limits: OverlapLimits) -> Iterator[str]:
    """A mean weight that is not 1 beyond chance: choices that the logs lack, or wrong propensities."""
    interval = f"{overlap.mean_weight:.3f} ({overlap.mean_weight_low:.3f} to {overlap.mean_weight_high:.3f})"
    if overlap.mean_weight_high < 1 - limits.uncovered_max:
        yield f"The mean weight should be 1: the logs lack choices of the new policy. Found {interval}."
    if overlap.mean_weight_low > 1 + limits.uncovered_max:
        yield f"The mean weight should be 1: propensities or the new policy's are wrong. Found {interval}."
