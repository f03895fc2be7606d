"""Baselines of recommendation lists: popularity, item-to-item co-occurrence, and models of a library (`implicit`).

Each uses the whole history of a case, where a worker knows its latest 64 items. Of several variants the one that is
best on the test cases is reported, which is to the baselines' advantage.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
from scipy import sparse
from threadpoolctl import threadpool_limits

from bench.quality.recommend.datasets import RecommendDataset

NEIGHBOURS: Final = 100
FACTORS: Final = (32, 64, 128)
CHUNK: Final = 2_000
RankedItems = Iterator[Sequence[str]]


class RecommendBaselines:
    """One dataset's training part as a users-by-items matrix, and its cases as a histories-by-items matrix."""

    def __init__(self, data: RecommendDataset) -> None:
        self._data, self._item_ids = data, data.items
        self._item_index = {item: number for number, item in enumerate(self._item_ids)}
        self._depth = data.length + max(len(case.excluded) for case in data.cases)
        users = {user: number for number, user in enumerate(dict.fromkeys(user for user, _, _ in data.interactions))}
        self.interactions = self._build_matrix(
            [(users[user], self._item_index[item]) for user, item, _ in data.interactions], len(users)
        )
        self.histories = self._build_matrix(
            [
                (row, self._item_index[item])
                for row, case in enumerate(data.cases)
                for item, _ in case.history
                if item in self._item_index
            ],
            len(data.cases),
        )

    def rank_by_popularity(self) -> Mapping[str, RankedItems]:
        order = np.argsort(-np.asarray(self.interactions.sum(0)).ravel(), kind="stable")
        best = [self._item_ids[n] for n in order[: self._depth].tolist()]
        return {"users": iter([best] * len(self._data.cases))}

    def rank_by_cooccurrence(self) -> Mapping[str, RankedItems]:
        """Cosine similarity of items by common users, summed over a history; with and without its own items."""
        counts = (self.interactions.T @ self.interactions).tocsr()
        norms = np.sqrt(np.maximum(counts.diagonal(), 1))
        cosine = sparse.diags(1 / norms) @ counts @ sparse.diags(1 / norms)
        without_own = cosine.tolil()
        without_own.setdiag(0)
        return {
            "with own": self._rank_by_similarity(cosine.tocsr()),
            "without": self._rank_by_similarity(without_own.tocsr()),
        }

    def rank_by_neighbours(self) -> Mapping[str, RankedItems]:
        """The library's item-based nearest neighbours."""
        variants = {}
        for name, model in (("cosine", CosineRecommender(K=NEIGHBOURS)), ("bm25", BM25Recommender(K=NEIGHBOURS))):
            model.fit(self.interactions, show_progress=False)
            variants[name] = self._rank_by_similarity(model.similarity.tocsr())
        return variants

    def rank_by_factors(self, seed: int) -> Mapping[str, RankedItems]:
        """The library's matrix factorisation, with user factors computed from the history of each case."""
        variants = {}
        with threadpool_limits(1, "blas"):
            for factors in FACTORS:
                model = AlternatingLeastSquares(factors, random_state=seed, num_threads=1)
                model.fit(self.interactions, show_progress=False)
                users = model.recalculate_user(np.arange(self.histories.shape[0]), self.histories)
                variants[f"als{factors}"] = self._select_top(users @ model.item_factors.T)
        return variants

    def _rank_by_similarity(self, similarity: Any) -> RankedItems:
        for begin in range(0, self.histories.shape[0], CHUNK):
            scores = (self.histories[begin : begin + CHUNK] @ similarity).toarray()
            yield from self._select_top(scores)

    def _select_top(self, scores: npt.NDArray[Any]) -> RankedItems:
        """The ids of the best items of each row, enough for a full list without excluded items."""
        depth = min(self._depth, scores.shape[1] - 1)
        for values in scores:
            top = np.argpartition(-values, depth)[:depth]
            yield [self._item_ids[n] for n in top[np.argsort(-values[top], kind="stable")].tolist()]

    def _build_matrix(self, pairs: Sequence[tuple[int, int]], rows: int) -> Any:
        row, column = np.array(pairs, np.int64).reshape(-1, 2).T
        matrix = sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(rows, len(self._item_ids)))
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix
