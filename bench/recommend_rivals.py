"""What lists are compared with: popular items, item-to-item co-occurrence, and the models of a library (`implicit`).

Each sees the whole history of a case, where a worker knows the latest eight items. Of several variants the best on the
very cases that are judged is told, which is to their advantage.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
from scipy import sparse
from threadpoolctl import threadpool_limits

from bench.recommend_data import LENGTH, Data

NEAREST: Final = 100
FACTORS: Final = (32, 64, 128)
CHUNK: Final = 2_000
Lists = Iterator[Sequence[str]]


class Rivals:
    """One shop's training part as users by items, and its cases as histories by items."""

    def __init__(self, data: Data) -> None:
        self._data, self._names = data, data.items
        self._at = {item: number for number, item in enumerate(self._names)}
        self._depth = LENGTH + max(len(case.left_out) for case in data.cases)
        users = {user: number for number, user in enumerate(dict.fromkeys(user for user, _, _ in data.taken))}
        self.taken = self._matrix([(users[user], self._at[item]) for user, item, _ in data.taken], len(users))
        self.histories = self._matrix(
            [(n, self._at[i]) for n, case in enumerate(data.cases) for i, _ in case.history if i in self._at],
            len(data.cases),
        )

    def popularity(self) -> Mapping[str, Lists]:
        order = np.argsort(-np.asarray(self.taken.sum(0)).ravel(), kind="stable")
        best = [self._names[n] for n in order[: self._depth].tolist()]
        return {"users": iter([best] * len(self._data.cases))}

    def cooccurrence(self) -> Mapping[str, Lists]:
        """The cosine of items that users have together, summed over a history; with and without its own items."""
        together = (self.taken.T @ self.taken).tocsr()
        often = np.sqrt(np.maximum(together.diagonal(), 1))
        cosine = sparse.diags(1 / often) @ together @ sparse.diags(1 / often)
        apart = cosine.tolil()
        apart.setdiag(0)
        return {"with own": self._by(cosine.tocsr()), "without": self._by(apart.tocsr())}

    def nearest(self) -> Mapping[str, Lists]:
        """The library's item-based neighbours."""
        found = {}
        for name, model in (("cosine", CosineRecommender(K=NEAREST)), ("bm25", BM25Recommender(K=NEAREST))):
            model.fit(self.taken, show_progress=False)
            found[name] = self._by(model.similarity.tocsr())
        return found

    def factors(self, seed: int) -> Mapping[str, Lists]:
        """The library's matrix factorisation, the user's factors made from the history of the case."""
        found = {}
        with threadpool_limits(1, "blas"):
            for factors in FACTORS:
                model = AlternatingLeastSquares(factors, random_state=seed, num_threads=1)
                model.fit(self.taken, show_progress=False)
                users = model.recalculate_user(np.arange(self.histories.shape[0]), self.histories)
                found[f"als{factors}"] = self._best(users @ model.item_factors.T)
        return found

    def _by(self, similarity: Any) -> Lists:
        for begin in range(0, self.histories.shape[0], CHUNK):
            scores = (self.histories[begin : begin + CHUNK] @ similarity).toarray()
            yield from self._best(scores)

    def _best(self, scores: npt.NDArray[Any]) -> Lists:
        """The names of the best of each row, as many as are enough when those are gone that the user has."""
        depth = min(self._depth, scores.shape[1] - 1)
        for values in scores:
            some = np.argpartition(-values, depth)[:depth]
            yield [self._names[n] for n in some[np.argsort(-values[some], kind="stable")].tolist()]

    def _matrix(self, pairs: Sequence[tuple[int, int]], rows: int) -> Any:
        row, column = np.array(pairs, np.int64).reshape(-1, 2).T
        found = sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(rows, len(self._names)))
        found.sum_duplicates()
        found.data[:] = 1
        return found
