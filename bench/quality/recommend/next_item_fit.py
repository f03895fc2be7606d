"""Fits the next-item part of a bundle on the training part of a dataset, whole or with one of its parts left out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.quality.recommend.datasets import RecommendDataset
from bench.quality.recommend.offline_recommender import ACTIONS
from contract.retrieval.features import FEATURES
from export.exporter import to_npz
from export.next_item import export_next_item
from model.sequence.next_item import NextItemPart
from model.sequence.ranker import CandidateRanker
from training.next_item.candidates import RankedCases
from training.next_item.fit import CandidateSearch, NextItemOptions, fit_next_item, refit
from training.next_item.histories import History, build_cases, split_by_time
from training.next_item.ranker_training import train_ranker

EPOCHS: Final = 4
COLUMNS: Final = {
    "vector": ("similarity", "similarity_share", "similarity_to_latest"),
    "neighbours": (
        "neighbour",
        "neighbour_relative",
        "has_neighbour",
        "neighbour_of_latest",
        "other_neighbour",
        "other_neighbour_relative",
    ),
    "popularity": ("popularity", "recent_popularity"),
}


class Fitted(NamedTuple):
    """The files of a bundle, and the CPU seconds that the fit took."""

    files: dict[str, bytes]
    cpu_s: float


class MaskedRanker(CandidateRanker):
    """A ranker that does not see some features."""

    used: Tensor

    def __init__(self, ranker: CandidateRanker, used: Sequence[bool]) -> None:
        super().__init__()
        self.load_state_dict(ranker.state_dict())
        self.register_buffer("used", torch.tensor(used, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = super().forward(features * self.used)
        return scores


def fit(data: RecommendDataset, seed: int, report: Callable[[str], None], without: str = "") -> Fitted:
    """Raises RuntimeError where the fit gives no part, with its reason."""
    begin_s, history = time.process_time(), make_history(data)
    options = NextItemOptions(
        epochs=0 if without == "sequence" else EPOCHS, seed=seed, new_items_only=data.new_items_only, report=report
    )
    if without in COLUMNS:
        part: NextItemPart | None = fit_reduced(history, options, without)
        reason = ""
    else:
        result = fit_next_item(history, options)
        part, reason = result.part, result.reason
    if part is None:
        raise RuntimeError(f"{data.name} should give a next-item part. Found none: {reason}")
    return Fitted(to_files(part), round(time.process_time() - begin_s, 1))


def fit_reduced(history: History, options: NextItemOptions, without: str) -> NextItemPart:
    """The part with a ranker that has never seen the features of one source, whether that is better or not."""
    is_held_out = split_by_time(history)
    cases = build_cases(history, is_held_out, new_items_only=options.new_items_only, seed=options.seed)
    search = CandidateSearch(history.select(~is_held_out), cases, options)
    encoder, epochs = search.train_best_encoder()
    used = [name not in COLUMNS[without] for name in FEATURES]
    ranked = hide(search.rank_cases(encoder), used)
    ranker = train_ranker(ranked.take(search.training), ranked.take(search.selection), options.seed)
    part = refit(history, search, CandidateRanker(), epochs, {"ndcg_20": 1.0, "own_ndcg_20": 0.0})
    return replace(part, ranker=MaskedRanker(ranker or CandidateRanker(), used).eval())


def hide(cases: RankedCases, used: Sequence[bool]) -> RankedCases:
    return replace(cases, features=cases.features * np.array(used, np.float32))


def make_history(data: RecommendDataset) -> History:
    """The training part by user and time, with all items that may be recommended."""
    users, items, times = zip(*data.interactions, strict=True)
    names = np.array([item.encode() for item in data.items])
    item_number = {item: number for number, item in enumerate(data.items)}
    user = np.unique(np.array(users), return_inverse=True)[1].astype(np.int64)
    item = np.array([item_number[item] for item in items], np.int64)
    ts_ms = np.array(times, np.int64)
    order = np.lexsort((np.arange(len(user)), ts_ms, user))
    action = np.full(len(order), ACTIONS[data.action], np.int8)
    return History(user[order], item[order], ts_ms[order], action, names, data.has_times)


def to_files(part: NextItemPart) -> dict[str, bytes]:
    """The files of a bundle that has this part alone."""
    exported = export_next_item(part, {})
    arrays = {name: to_npz(arrays) for name, arrays in exported.arrays.items()}
    return {**exported.files, **arrays, "golden.npz": to_npz(exported.golden)}
