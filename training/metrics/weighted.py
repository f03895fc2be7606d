"""The figures of `training.metrics.metrics` where rows stand for more than themselves: labels y, predictions p, weights w (N,).

A negative that was kept with chance r stands for 1 / r of them. With whole weights each figure is that of rows written
down so many times; with weights of 1 it is that of `training.metrics.metrics`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from training.metrics.metrics import BINS, row_log_loss

Array = npt.NDArray[Any]


def sum_weights(w: Array) -> float:
    return float(w.sum(dtype=np.float64))


def auc(y: Array, p: Array, w: Array) -> float:
    """The chance that a positive stands before a negative, ties counting half; NaN where a label is missing."""
    values, index = np.unique(p.astype(np.float64), return_inverse=True)
    hits = np.bincount(index, weights=w * y, minlength=len(values))
    misses = np.bincount(index, weights=w * (1 - y), minlength=len(values))
    pairs = sum_weights(hits) * sum_weights(misses)
    wins = float((hits * (np.cumsum(misses) - misses / 2)).sum())
    return wins / pairs if pairs > 0 else float("nan")


def log_loss(y: Array, p: Array, w: Array) -> float:
    return float(np.average(row_log_loss(y, p), weights=w))


def calibration_error(y: Array, p: Array, w: Array) -> float:
    """The mean gap of predicted and observed over ten bins of about equal weight, equal predictions in one bin."""
    values, index = np.unique(p.astype(np.float64), return_inverse=True)
    weight = np.bincount(index, weights=w)
    middle = np.cumsum(weight) - weight / 2
    number = np.minimum(middle * BINS / sum_weights(weight), BINS - 1).astype(np.int64)[index]
    gap = np.bincount(number, weights=w * (values[index] - y), minlength=BINS)
    return float(np.abs(gap).sum()) / sum_weights(w)


def predicted_to_observed(y: Array, p: Array, w: Array) -> float:
    """The sum of the predictions over that of the labels; NaN where nothing was observed."""
    observed = sum_weights(w * y)
    return sum_weights(w * p.astype(np.float64)) / observed if observed > 0 else float("nan")


def rates_at_threshold(y: Array, p: Array, w: Array, threshold: float) -> tuple[float, float]:
    """The shares of positives and of negatives that a threshold flags, as the worker compares with it."""
    flagged = p.astype(np.float64) >= threshold
    return weighted_share(flagged, w * y), weighted_share(flagged, w * (1 - y))


def recall_at_k(y: Array, p: Array, w: Array, group: npt.NDArray[np.int64], k: int) -> float:
    """The share of positives that stand among the first k of their list, by prediction; NaN without a positive.

    A row's place is the weight of what stands before it in its list, of equal ones half: negatives that were left out
    stood before it, too. Lists that are no longer than k say nothing and are left out.
    """
    order = np.lexsort((-p, group))
    within, value, weight = group[order], -p[order].astype(np.float64), w[order]
    new = np.concatenate([[True], (within[1:] != within[:-1]) | (value[1:] != value[:-1])])
    tie = np.cumsum(new) - 1
    before = np.cumsum(weight) - weight
    ahead = before[np.flatnonzero(new)][tie] + (np.bincount(tie, weights=weight)[tie] - weight) / 2
    length = np.bincount(within, weights=weight)
    position = ahead - (np.cumsum(length) - length)[within]
    is_long = length[within] > k
    return weighted_share(position < k, (w * y)[order] * is_long)


def weighted_share(chosen: npt.NDArray[np.bool_], w: Array) -> float:
    """The weight of the chosen rows in that of all; NaN where nothing has weight."""
    return sum_weights(w[chosen]) / sum_weights(w) if sum_weights(w) > 0 else float("nan")
