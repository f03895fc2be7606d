"""Metrics of ranked candidates on held-out cases: of the ranked order, and of the candidates' own order."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from contract.arrays import Array, Floats, Integers
from model.sequence.ranker import NEIGHBOUR
from training.next_item.candidates import RankedCases

LENGTH: Final = 20  # of a list
METRICS: Final = ("recall_20", "ndcg_20", "mrr_20")


def compare_orders(cases: RankedCases, scores: Array) -> dict[str, float]:
    """Each of `METRICS` of the order by `scores` (P,), and as `own_METRIC` of the candidates' own order; `cases`."""
    if not len(cases):
        return {"cases": 0.0}
    ranked, own = measure_order(cases, scores), measure_order(cases, cases.features[:, NEIGHBOUR])
    means = {name: float(values.mean()) for name, values in ranked.items()}
    own_means = {f"own_{name}": float(values.mean()) for name, values in own.items()}
    return means | own_means | {"cases": float(len(cases))}


def measure_order(cases: RankedCases, scores: Array) -> dict[str, Floats]:
    """Each metric of each case (C,): Järvelin and Kekäläinen's NDCG and the reciprocal rank of the first target."""
    ranks = rank_pairs(cases.starts, scores)
    is_hit = (cases.weights > 0) & (ranks < LENGTH)
    case = np.repeat(np.arange(len(cases)), np.diff(cases.starts))[is_hit]
    hits = np.bincount(case, minlength=len(cases))
    gains = np.bincount(case, weights=1 / np.log2(ranks[is_hit] + 2.0), minlength=len(cases))
    ideal = np.append(0, np.cumsum(1 / np.log2(np.arange(LENGTH) + 2.0)))
    first = np.full(len(cases), np.inf)
    np.minimum.at(first, case, ranks[is_hit])
    return {
        "recall_20": hits / cases.target_counts,
        "ndcg_20": gains / ideal[np.minimum(cases.target_counts, LENGTH)],
        "mrr_20": 1 / (first + 1),
    }


def rank_pairs(starts: Integers, scores: Array) -> Integers:
    """The rank (P,) of each candidate in its case, from 0; equal scores keep their order."""
    case = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((-scores, case))
    ranks = np.empty(len(scores), np.int64)
    ranks[order] = np.arange(len(scores)) - starts[case[order]]
    return ranks


def as_own_order(evaluation: Mapping[str, float]) -> dict[str, float]:
    """The same metrics for a part that has the candidates' own order."""
    own = {name: evaluation[f"own_{name}"] for name in METRICS if f"own_{name}" in evaluation}
    return dict(evaluation) | own


def is_worse(evaluation: dict[str, float]) -> bool:
    """Whether the ranked order has a lower NDCG than the candidates' own; also if it is not known."""
    return not evaluation.get("ndcg_20", -1.0) >= evaluation.get("own_ndcg_20", 0.0)
