"""Figures that say how good predictions are, exact and without a library: labels y (N,), predictions p (N,).

A figure is NaN where it has no meaning: an AUC without a negative, anything of no rows or of predictions that are not
finite. Equal predictions count as equal: no figure depends on the order of the rows.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
P = ParamSpec("P")
PROBABILITY_MIN: Final = 1e-7
BINS: Final = 10
NDCG_AT: Final = 10
FALSE_POSITIVE_RATE: Final = 0.01


def require_finite(
    metric: Callable[Concatenate[Array, Array, P], float],
) -> Callable[Concatenate[Array, Array, P], float]:
    """The figure, but NaN without rows or where some prediction is not finite: no sort may take NaN for the best."""

    @wraps(metric)
    def guarded(y: Array, p: Array, /, *args: P.args, **kwargs: P.kwargs) -> float:
        return metric(y, p, *args, **kwargs) if len(y) and np.isfinite(p).all() else float("nan")

    return guarded


def factorize(ids: Array) -> npt.NDArray[np.int64]:
    """Equal numbers for equal ids (N,), whatever they are."""
    codes = pa.array(ids).dictionary_encode().indices
    return np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)


@require_finite
def auc(y: Array, p: Array) -> float:
    """The chance that a positive stands before a negative, ties counting half."""
    (value,), _ = group_aucs(y, p, np.zeros(len(y), np.int64))
    return float(value)


@require_finite
def grouped_auc(y: Array, p: Array, user: Array) -> float:
    """The mean of the users' own AUCs, weighted by their rows; users without both labels have none (Zhu et al. 2017).

    What a list needs: the order within one user, whatever users are like on the whole.
    """
    aucs, rows = group_aucs(y, p, factorize(user))
    defined = ~np.isnan(aucs)
    return float(np.average(aucs[defined], weights=rows[defined])) if defined.any() else float("nan")


def group_aucs(y: Array, p: Array, group: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The AUC of each group and its rows, groups being 0, 1, ...; NaN where a label is missing."""
    order = np.lexsort((p, group))
    positive, within, counts = (y > 0.5)[order], group[order], np.bincount(group)
    position = np.arange(len(order)) - (np.cumsum(counts) - counts)[within]
    _, tie = find_runs(within, p[order])
    sizes = np.bincount(tie)
    rank = (np.bincount(tie, weights=position) / sizes + 1)[tie]  # equal predictions share the middle of their ranks
    n = np.bincount(within, weights=positive, minlength=len(counts))
    m = counts - n
    wins = np.bincount(within, weights=rank * positive, minlength=len(counts)) - n * (n + 1) / 2
    return np.divide(wins, n * m, out=np.full(len(counts), np.nan), where=n * m > 0), counts


def find_runs(group: Array, value: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Runs of equal (group, value) in sorted rows: where each run starts, and the number of the run of each row."""
    new = np.concatenate([[True], (group[1:] != group[:-1]) | (value[1:] != value[:-1])])
    return np.flatnonzero(new), np.cumsum(new) - 1


def cumulative_counts(y: Array, p: Array) -> tuple[Floats, Floats]:
    """From the highest prediction down, one step for each distinct one: positives and negatives at or above it."""
    order = np.argsort(-p, kind="stable")
    start, _ = find_runs(np.zeros(len(p)), p[order])
    last = np.append(start[1:], len(p)) - 1
    hits = np.cumsum((y > 0.5)[order])[last].astype(np.float64)
    return hits, last + 1 - hits


@require_finite
def average_precision(y: Array, p: Array) -> float:
    """The mean of the precision at each positive, from the highest prediction down; equal ones are one step."""
    hits, misses = cumulative_counts(y, p)
    if not hits[-1]:
        return float("nan")
    return float((hits / (hits + misses) * np.diff(hits, prepend=0)).sum() / hits[-1])


@require_finite
def recall_at_fpr(y: Array, p: Array, false_positives: float = FALSE_POSITIVE_RATE) -> float:
    """The largest share of positives that one threshold finds while it flags at most this share of negatives."""
    hits, misses = cumulative_counts(y, p)
    if not hits[-1] or not misses[-1]:
        return float("nan")
    allowed = misses <= false_positives * misses[-1]
    return float(hits[allowed].max(initial=0) / hits[-1])


def row_log_loss(y: Array, p: Array) -> Floats:
    """-log of the probability given to what was true, for each row; of classes p is (N, classes)."""
    p = np.clip(p.astype(np.float64), PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    if p.ndim == 2:
        p = p[np.arange(len(y)), y.astype(np.int64)]
        y = np.ones(len(y))
    loss: Floats = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return loss


@require_finite
def log_loss(y: Array, p: Array) -> float:
    return float(row_log_loss(y, p).mean())


@require_finite
def calibration_error(y: Array, p: Array) -> float:
    """Expected calibration error: the mean gap of predicted and observed, over the bins of `reliability`."""
    predicted, observed, rows = reliability_bins(y, p)
    return float(np.average(np.abs(predicted - observed), weights=rows))


def reliability_bins(y: Array, p: Array) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Mean prediction, mean label and rows of at most ten bins of about equally many rows, by prediction.

    Equal predictions fall into one bin, that of the middle of their places.
    """
    values, index, counts = np.unique(p.astype(np.float64), return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    number = np.minimum(middle * BINS / len(p), BINS - 1).astype(np.int64)[index]
    rows = np.bincount(number, minlength=BINS)
    filled = rows > 0
    predicted, observed = (
        np.bincount(number, weights=values_by_row, minlength=BINS)[filled] for values_by_row in (values[index], y)
    )
    return predicted / rows[filled], observed / rows[filled], rows[filled]


@require_finite
def predicted_to_observed(y: Array, p: Array) -> float:
    """The sum of the predictions over that of the labels: 1 where the level is right, 2 where it is twice too high."""
    observed = float(y.sum(dtype=np.float64))
    return float(p.sum(dtype=np.float64)) / observed if observed > 0 else float("nan")


@require_finite
def ndcg(y: Array, p: Array, query: Array) -> float:
    """The mean over queries, of those with something relevant, of the gain of the first ten against the best order."""
    group = factorize(query)
    gains, best = discounted_gain(y, p, group), discounted_gain(y, y, group)
    return float((gains[best > 0] / best[best > 0]).mean()) if (best > 0).any() else float("nan")


def discounted_gain(y: Array, by: Array, group: npt.NDArray[np.int64]) -> Floats:
    """The discounted gain of each group's first ten; equal predictions share the mean of their gains."""
    order = np.lexsort((-by, group))
    within, counts = group[order], np.bincount(group)
    position = np.arange(len(order)) - (np.cumsum(counts) - counts)[within]
    discount = np.where(position < NDCG_AT, 1 / np.log2(position + 2), 0.0)
    start, tie = find_runs(within, by[order])
    shared = np.bincount(tie, weights=y[order]) / np.bincount(tie) * np.bincount(tie, weights=discount)
    return np.bincount(within[start], weights=shared).astype(np.float64)


@require_finite
def accuracy(y: Array, p: Array) -> float:
    return float((p.argmax(1) == y).mean())


@require_finite
def macro_f1(y: Array, p: Array) -> float:
    """The mean of the classes' F1, over the classes that are true or predicted somewhere."""
    guess, scores = p.argmax(1), list[float]()
    for label in np.union1d(y, guess):
        hit = float(((guess == label) & (y == label)).sum())
        scores.append(2 * hit / float((guess == label).sum() + (y == label).sum()))
    return float(np.mean(scores))


@require_finite
def root_mean_squared_error(y: Array, p: Array) -> float:
    return float(np.sqrt(np.square(y - p, dtype=np.float64).mean()))
