"""Judges a next-item part that serves on newer interactions, which it has not learned."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from torch import Tensor

from contract.arrays import Floats, Integers
from export.neighbours import encode_ids
from model.sequence.next_item import NextItemPart, from_tensors, to_tensors
from model.sequence.ranker import NEIGHBOUR, CandidateRanker
from training.next_item.candidates import find_candidates
from training.next_item.encoder_training import encode_users
from training.next_item.evaluation import as_own_order, compare_orders, measure_order
from training.next_item.histories import History, build_cases
from training.next_item.ranker_training import score_pairs


class OrderJudgement(NamedTuple):
    """C cases: the NDCG@20 that each loses by the ranked order, negative for a gain, and its user; and the metrics."""

    lost: Floats
    user: Integers
    evaluation: dict[str, float]


def judge_order(
    tensors: Mapping[str, Tensor], before: Any, new: Any, *, new_items_only: bool, seed: int
) -> OrderJudgement:
    """Compare both orders on new interactions of users with earlier ones. Tables of (user_id, item_id, ts_ms)."""
    part = from_tensors(tensors)
    history, is_new = merge_history(part, before, new)
    is_known = np.ones(len(part.items), np.bool_)
    cases = build_cases(history, is_new, new_items_only=new_items_only, seed=seed, is_known=is_known)
    if not len(cases):
        return OrderJudgement(np.zeros(0), np.zeros(0, np.int64), {})
    users, popular = encode_users(part.encoder, cases), part.popular.astype(np.int64)
    ranked = find_candidates(part.table, popular, cases, users, new_items_only=new_items_only)
    scores = score_pairs(part.ranker, ranked)
    own, by_ranker = (measure_order(ranked, order)["ndcg_20"] for order in (ranked.features[:, NEIGHBOUR], scores))
    return OrderJudgement(own - by_ranker, cases.user, compare_orders(ranked, scores))


def reset_ranker(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same part with the untrained ranker, which gives the candidates' own order."""
    part = from_tensors(tensors)
    return to_tensors(replace(part, ranker=CandidateRanker().eval(), evaluation=as_own_order(part.evaluation)))


def merge_history(part: NextItemPart, before: Any, new: Any) -> tuple[History, Any]:
    """The interactions with the part's items of users with new ones, and which of them are new (N,)."""
    table = pa.concat_tables([before, new])
    items, user = encode_ids(table, "item_id"), np.unique(encode_ids(table, "user_id"), return_inverse=True)[1]
    row = np.minimum(np.searchsorted(part.items, items), len(part.items) - 1)
    is_new, ts_ms = np.arange(len(table)) >= len(before), table.column("ts_ms").to_numpy()
    is_used = (part.items[row] == items) & np.isin(user, user[is_new])
    kept = np.flatnonzero(is_used)[np.lexsort((is_new[is_used], ts_ms[is_used], user[is_used]))]
    actions = np.ones(len(kept), np.int8)
    return History(user[kept], row[kept], ts_ms[kept], actions, part.items), is_new[kept]
