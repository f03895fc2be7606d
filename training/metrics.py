"""Figures that say how good predictions are, exact and without a library: labels y (N,), predictions p (N,).

Every figure is NaN where it has no meaning, as an AUC without a negative. Ties count as ties.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TINY = 1e-7
BINS = 10
NDCG_AT = 10


def auc(y: Array, p: Array) -> float:
    """The chance that a positive stands before a negative, ties counting half."""
    positive = y > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def average_precision(y: Array, p: Array) -> float:
    """The mean of the precision at each positive, from the highest prediction down; equal ones are one step."""
    positive = y > 0.5
    if not positive.any():
        return float("nan")
    values, place = np.unique(-p, return_inverse=True)
    hits = np.bincount(place, weights=positive, minlength=len(values))
    precision = np.cumsum(hits) / np.cumsum(np.bincount(place, minlength=len(values)))
    return float((precision * hits).sum() / positive.sum())


def row_log_loss(y: Array, p: Array) -> npt.NDArray[np.float64]:
    """-log of the probability given to what was true, for each row; of classes p is (N, classes)."""
    p = np.clip(p.astype(np.float64), TINY, 1 - TINY)
    if p.ndim == 2:
        p = p[np.arange(len(y)), y.astype(np.int64)]
        y = np.ones(len(y))
    loss: npt.NDArray[np.float64] = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return loss


def log_loss(y: Array, p: Array) -> float:
    return float(row_log_loss(y, p).mean()) if len(y) else float("nan")


def calibration_error(y: Array, p: Array) -> float:
    """Expected calibration error: the mean gap of predicted and observed, over ten bins of equally many rows."""
    if not len(y):
        return float("nan")
    bins = [rows for rows in np.array_split(np.argsort(p, kind="stable"), BINS) if len(rows)]
    return float(sum(len(rows) * abs(y[rows].mean() - p[rows].mean()) for rows in bins) / len(y))


def ndcg(y: Array, p: Array, query: Array) -> float:
    """The mean over queries, of those with something relevant, of the gain of the first ten against the best order."""
    _, group = np.unique(query.astype(str), return_inverse=True)
    found, best = discounted_gain(y, p, group), discounted_gain(y, y, group)
    return float((found[best > 0] / best[best > 0]).mean()) if (best > 0).any() else float("nan")


def discounted_gain(y: Array, by: Array, group: Array) -> npt.NDArray[np.float64]:
    order = np.lexsort((-by, group))
    counts = np.bincount(group)
    place = np.arange(len(order)) - (np.cumsum(counts) - counts)[group[order]]
    gains = np.where(place < NDCG_AT, y[order] / np.log2(place + 2), 0.0)
    return np.bincount(group[order], weights=gains).astype(np.float64)


def accuracy(y: Array, p: Array) -> float:
    return float((p.argmax(1) == y).mean()) if len(y) else float("nan")


def macro_f1(y: Array, p: Array) -> float:
    """The mean of the classes' F1, over the classes that are true or predicted somewhere."""
    guess, scores = p.argmax(1), list[float]()
    for one in np.union1d(y, guess):
        hit = float(((guess == one) & (y == one)).sum())
        scores.append(2 * hit / float((guess == one).sum() + (y == one).sum()))
    return float(np.mean(scores)) if scores else float("nan")


def root_mean_square(y: Array, p: Array) -> float:
    return float(np.sqrt(np.square(y - p).mean())) if len(y) else float("nan")
