"""Metrics of the order of predictions p (N,), given labels y (N,) and optional weights (N,).

A label between 0 and 1 counts as that share of a positive. A weight counts as that many equal rows, so a negative that
was sampled with probability r has weight 1 / r. Rows with equal predictions are ties: no metric depends on row order.
"""

from typing import Final

import numpy as np
from sklearn.metrics import average_precision_score

from contract.arrays import Array, Floats, Integers, Mask
from training.data.codes import factorize
from training.metrics.guard import require_finite, to_weights

NDCG_RANKS: Final = 10
FALSE_POSITIVE_RATE: Final = 0.01


class RankedRows:
    """Rows sorted once by group and prediction, so that metrics of many weightings need no further sort.

    The bootstrap weighs the same rows hundreds of times: on 100,000 rows a draw takes 2 ms here and 18 ms in
    scikit-learn, which sorts in each call and knows no groups. Tests compare the two.
    """

    def __init__(self, y: Array, p: Array, group: Integers | None = None) -> None:
        group = np.zeros(len(y), np.int64) if group is None else group
        self._order = np.lexsort((p, group))
        sorted_group, sorted_p = group[self._order], p[self._order]
        self._start, _ = find_runs(sorted_group, sorted_p)
        self._group = sorted_group[self._start]  # of each run of ties, as everything below
        self._groups = int(group.max(initial=-1)) + 1
        self._positive = np.asarray(y, np.float64)[self._order]

    def aucs(self, weights: Array | None = None) -> Floats:
        """The AUC of each group: the probability that a positive is ranked above a negative, ties counting half.

        NaN for a group without positives or without negatives.
        """
        hits, misses = self._count(weights)
        positives, negatives = self._sum_groups(hits), self._sum_groups(misses)
        below = np.cumsum(misses) - misses / 2 - (np.cumsum(negatives) - negatives)[self._group]
        pairs = positives * negatives
        wins = self._sum_groups(hits * below)
        aucs: Floats = np.divide(wins, pairs, out=np.full(self._groups, np.nan), where=pairs > 0)
        return aucs

    def recall_at_fpr(self, weights: Array | None = None, false_positive_rate: float = FALSE_POSITIVE_RATE) -> float:
        """The largest recall of a threshold that flags at most this share of the negatives, over all groups."""
        hits, misses = (np.cumsum(counts[::-1]) for counts in self._count(weights))
        if not hits[-1] or not misses[-1]:
            return float("nan")
        allowed = misses <= false_positive_rate * misses[-1]
        return float(hits[allowed].max(initial=0) / hits[-1])

    def _count(self, weights: Array | None) -> tuple[Floats, Floats]:
        """Positives and negatives in each run of ties."""
        sorted_weights = to_weights(weights, len(self._order))[self._order]
        hits = np.add.reduceat(sorted_weights * self._positive, self._start)
        return hits, np.add.reduceat(sorted_weights * (1 - self._positive), self._start)

    def _sum_groups(self, values: Floats) -> Floats:
        return np.asarray(np.bincount(self._group, weights=values, minlength=self._groups), np.float64)


def find_runs(group: Array, value: Array) -> tuple[Integers, Integers]:
    """Runs of equal (group, value) in sorted rows: where each run starts, and the number of the run of each row."""
    new = np.concatenate([[True], (group[1:] != group[:-1]) | (value[1:] != value[:-1])])
    return np.flatnonzero(new), np.cumsum(new) - 1


@require_finite
def auc(y: Array, p: Array, weights: Array | None = None) -> float:
    """The probability that a positive is ranked above a negative, ties counting half."""
    return float(RankedRows(y, p).aucs(weights)[0])


@require_finite
def auc_by_group(y: Array, p: Array, user: Array) -> float:
    """The mean AUC of the users that have both labels, weighted by their rows (GAUC, Zhu et al. 2017).

    It measures the order within a user's list; differences between users do not count.
    """
    code = factorize(user)
    aucs = RankedRows(y, p, code).aucs()
    defined = ~np.isnan(aucs)
    return float(np.average(aucs[defined], weights=np.bincount(code)[defined])) if defined.any() else float("nan")


@require_finite
def average_precision(y: Array, p: Array) -> float:
    """The mean precision at each positive of 0/1 labels, from the highest prediction down; ties are one step."""
    return float(average_precision_score(y > 0.5, p)) if (y > 0.5).any() else float("nan")


@require_finite
def recall_at_fpr(
    y: Array, p: Array, false_positive_rate: float = FALSE_POSITIVE_RATE, weights: Array | None = None
) -> float:
    """The largest recall of one threshold that flags at most this share of the negatives."""
    return RankedRows(y, p).recall_at_fpr(weights, false_positive_rate)


def rates_at_threshold(y: Array, p: Array, weights: Array, threshold: float) -> tuple[float, float]:
    """The shares of positives and of negatives with p >= threshold in float64, the comparison that the worker makes."""
    flagged = p.astype(np.float64) >= threshold
    return share_by_weight(flagged, weights * y), share_by_weight(flagged, weights * (1 - y))


def recall_at_k(y: Array, p: Array, weights: Array, group: Integers, k: int) -> float:
    """The share of positives among the first k of their list by prediction; NaN without positives.

    A row's rank is the weight of the rows before it in its list plus half the weight of its ties, because negatives
    that sampling removed had ranks, too. Lists of k items or fewer are left out.
    """
    order = np.lexsort((-p, group))
    sorted_group, weight = group[order], np.asarray(weights, np.float64)[order]
    start, tie = find_runs(sorted_group, p[order])
    before = np.cumsum(weight) - weight
    ahead = before[start][tie] + (np.bincount(tie, weights=weight)[tie] - weight) / 2
    length = np.bincount(sorted_group, weights=weight)
    rank = ahead - (np.cumsum(length) - length)[sorted_group]
    is_long = length[sorted_group] > k
    return share_by_weight(rank < k, (weights * y)[order] * is_long)


def share_by_weight(chosen: Mask, weights: Array) -> float:
    """The weight of the chosen rows as a share of the total; NaN for a total of 0."""
    total = float(weights.sum(dtype=np.float64))
    return float(weights[chosen].sum(dtype=np.float64)) / total if total > 0 else float("nan")


@require_finite
def ndcg(y: Array, p: Array, query: Array) -> float:
    """The mean NDCG of the first ten results, over the queries that have a relevant one.

    All queries in one pass: scikit-learn's `ndcg_score` takes one query at a time, about 0.3 ms each.
    """
    group = factorize(query)
    gains, best = dcg(y, p, group), dcg(y, y, group)
    return float((gains[best > 0] / best[best > 0]).mean()) if (best > 0).any() else float("nan")


def dcg(y: Array, by: Array, group: Integers) -> Floats:
    """The discounted gain of each group's first ten rows, sorted by `by` descending; ties share their mean gain."""
    order = np.lexsort((-by, group))
    sorted_group, counts = group[order], np.bincount(group)
    rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[sorted_group]
    discount = np.where(rank < NDCG_RANKS, 1 / np.log2(rank + 2), 0.0)
    start, tie = find_runs(sorted_group, by[order])
    shared = np.bincount(tie, weights=y[order]) / np.bincount(tie) * np.bincount(tie, weights=discount)
    return np.bincount(sorted_group[start], weights=shared).astype(np.float64)
