"""Metrics of the level of predicted probabilities p (N,), given labels y (N,) and optional weights (N,)."""

from typing import Final

import numpy as np

from contract.arrays import Array, Floats, Integers
from training.metrics.guard import require_finite, to_weights

BINS: Final = 10


@require_finite
def calibration_error(y: Array, p: Array, weights: Array | None = None) -> float:
    """Expected calibration error: the mean gap between predicted and observed over the bins of `assign_bins`."""
    return bin_error(y, p, assign_bins(p, weights), to_weights(weights, len(y)))


def bin_error(y: Array, p: Array, number: Integers, weights: Floats) -> float:
    """The calibration error over given bins (N,)."""
    gap = np.bincount(number, weights=weights * (np.asarray(p, np.float64) - y), minlength=BINS)
    return float(np.abs(gap).sum() / weights.sum())


def assign_bins(p: Array, weights: Array | None = None, *, split_ties: bool = False) -> Integers:
    """The bin (N,) of each row: ten bins of about equal weight in the order of p.

    Equal predictions share the bin of their middle. With `split_ties` bins have equally many rows instead, and the
    order of the rows decides between equal predictions.
    """
    if split_ties:
        rank = np.empty(len(p), np.int64)
        rank[np.argsort(p, kind="stable")] = np.arange(len(p))
        return rank * BINS // max(len(p), 1)
    _, index = np.unique(np.asarray(p, np.float64), return_inverse=True)
    weight = np.bincount(index, weights=to_weights(weights, len(p)))
    middle = np.cumsum(weight) - weight / 2
    numbers: Integers = np.minimum(middle * BINS / weight.sum(), BINS - 1).astype(np.int64)[index]
    return numbers


def reliability_bins(y: Array, p: Array) -> tuple[Floats, Floats, Integers]:
    """Mean prediction, mean label and rows of each bin that has rows."""
    number = assign_bins(p)
    rows = np.bincount(number, minlength=BINS)
    filled = rows > 0
    predicted, observed = (np.bincount(number, weights=values, minlength=BINS)[filled] for values in (p, y))
    return predicted / rows[filled], observed / rows[filled], rows[filled]


@require_finite
def ratio_to_observed(y: Array, p: Array, weights: Array | None = None) -> float:
    """The sum of the predictions over the sum of the labels: 2 means twice too high; NaN without any positive."""
    w = to_weights(weights, len(y))
    observed = float((w * y).sum())
    return float((w * p).sum()) / observed if observed > 0 else float("nan")


def to_top_class(y: Array, p: Array) -> tuple[Floats, Array]:
    """For class probabilities (N, classes): whether the likeliest class was right, and its probability (Guo 2017)."""
    return (p.argmax(1) == y).astype(np.float64), p.max(1)
