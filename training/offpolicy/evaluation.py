"""Evaluates a target policy on logged actions: the overlap first, and estimates only where it suffices."""

import msgspec

from contract.errors import BadData
from training.offpolicy.logged_actions import LoggedActions
from training.offpolicy.reward_model import predict_rewards
from training.stats.bootstrap import Interval
from training.stats.off_policy import estimate_dr, estimate_ips, estimate_mean, estimate_snips
from training.stats.overlap import Overlap, OverlapLimits, find_missing_overlap, measure_overlap


class OffPolicyEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean reward with its 95 % interval, and how much it is above what was earned."""

    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


class OffPolicyEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What was earned, and what the target policy would have earned by each estimator (`ips`, `snips`, `dr`).

    Without overlap there are no estimates, and `refused` says why.
    """

    logged: tuple[float, float, float]  # mean reward, and its 95 % interval
    overlap: Overlap
    refused: tuple[str, ...]
    estimates: dict[str, OffPolicyEstimate]


def evaluate_target(logs: LoggedActions, limits: OverlapLimits, *, seed: int = 0) -> OffPolicyEvaluation:
    """Raises `BadData` where no row has a propensity."""
    known = logs.is_known
    if not known.any():
        raise BadData(f"Logged actions should have propensities above 0 and at most 1. Found none in {len(logs)} rows.")
    rows = logs.weigh()
    if not rows.unit.any():
        raise BadData("Logged actions should be of several units, so that their spread is known. Found one.")
    uncovered = logs.choices.measure_uncovered() if logs.choices else None
    overlap = measure_overlap(rows, unknown=int((~known).sum()), uncovered=uncovered)
    logged = estimate_mean(rows.reward)
    refused = tuple(find_missing_overlap(overlap, limits))
    estimates = dict[str, OffPolicyEstimate]()
    if not refused:
        predicted, expected = predict_rewards(logs, seed)
        for name, estimate in (
            ("ips", estimate_ips(rows)),
            ("snips", estimate_snips(rows)),
            ("dr", estimate_dr(rows, predicted[known], expected[known])),
        ):
            interval, gain = estimate.interval(rows.unit), estimate.minus(logged).interval(rows.unit)
            estimates[name] = OffPolicyEstimate(
                **interval._asdict(), gain=gain.value, gain_low=gain.low, gain_high=gain.high
            )
    return OffPolicyEvaluation(
        logged=as_tuple(logged.interval(rows.unit)), overlap=overlap, refused=refused, estimates=estimates
    )


def as_tuple(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
