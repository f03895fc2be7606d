"""The items nearest to a user's vector: by an exact product, or by the bundle's index where the catalogue is large.

What the index finds is scored, masked and ordered by the vectors themselves, so an index can miss an item but find
none that is not to be shown. Users for whom it finds too few are searched exactly, and the recall for real users is
measured against the exact product, a few users at a time.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.compilation import jit
from worker.model.vector_index import Rows, VectorIndex, Vectors, count_failure, measure_recall
from worker.ops import metrics
from worker.retrieval.nearest import USERS_PER_PRODUCT, find_nearest

Pairs = tuple[Rows, Rows]
MEASURED_USERS: Final = 4  # at a time: 20 ms with a million items
MEASURE_INTERVAL_MS: Final = 5_000
MEASURED_MIN: Final = 32  # users whose mean recall is told
RECALL_MIN: Final = 0.95
SPARE: Final = 4  # of `count` a quarter more is fetched: half precision may swap the last ones


class ItemSearch:
    """Searches the vectors (M, d) of one bundle, and further ones of items that are newer.

    `index`: of the bundle's, None for an exact search. The further ones are few, and searched exactly.
    """

    def __init__(self, vectors: Vectors, index: VectorIndex | None = None) -> None:
        self._vectors, self.index = vectors, index
        self._penalty = np.zeros(len(vectors), np.float32)
        self._latest: tuple[Vectors, Rows, Pairs] | None = None
        self._recalls = list[float]()
        self._selector: Any = None
        self._available_share = 1.0
        self._measure_due_ms = 0
        self.recall = index.recall if index else 1.0

    @property
    def indexed_items(self) -> int:
        return self.index.item_count if self.index else 0

    def follow(self, is_available: npt.NDArray[np.bool_], vectors: Vectors | None = None) -> None:
        """Find only these rows from now on. O(items), so it runs on a timer.

        `vectors` (M + N, d): those of the bundle, and N further ones; None where they are the same as before.
        """
        self._vectors = self._vectors if vectors is None else vectors
        self._penalty = np.where(is_available, 0, -np.inf).astype(np.float32)
        self._available_share = float(is_available.mean()) if len(is_available) else 1.0
        if self.index:
            self._selector = self.index.select(is_available[: self.index.row_count])

    def find(self, users: Vectors, excluded: Pairs, count: int) -> Rows:
        """The rows (U, count) nearest to each user (U, d), as `find_nearest` gives them.

        `excluded`: users (E,) and rows (E,) that are not to be found for them.
        """
        if self.index is None:
            return self._find_exactly(users, excluded, count)
        try:
            nearest = self._find_by_index(self.index, users, excluded, count)
        except Exception:  # a library that lists can do without
            self._drop_index("search")
            return self._find_exactly(users, excluded, count)
        is_searched = users.any(1) & np.isfinite(users).all(1)
        self._complete(nearest, users, excluded, np.flatnonzero(is_searched & (nearest[:, -1] < 0)))
        measured = np.flatnonzero(is_searched)[:MEASURED_USERS]
        self._latest = users[measured], nearest[measured], take_pairs(excluded, measured, len(users))
        return nearest

    def measure(self, now_ms: int) -> None:
        """Compare what the index found for a few of the latest users with an exact search; widen it if need be."""
        if self.index is None or self._latest is None or now_ms < self._measure_due_ms:
            return
        self._measure_due_ms = now_ms + MEASURE_INTERVAL_MS
        users, found_rows, excluded = self._latest
        self._latest = None
        exact = self._find_exactly(users, excluded, found_rows.shape[1])
        self._recalls += [measure_recall(found_rows[[u]], exact[[u]]) for u in range(len(users))]
        if len(self._recalls) < MEASURED_MIN:
            return
        self.recall = float(np.mean(self._recalls))
        self._recalls.clear()
        if self.recall < RECALL_MIN and not self.index.widen():
            self._drop_index("recall")

    def _find_exactly(self, users: Vectors, excluded: Pairs, count: int) -> Rows:
        return find_nearest(users, self._vectors, self._penalty, excluded, count)

    def _find_by_index(self, index: VectorIndex, users: Vectors, excluded: Pairs, count: int) -> Rows:
        nearest = np.full((len(users), count), -1, np.int64)
        searched = np.flatnonzero(users.any(1) & np.isfinite(users).all(1))
        for begin in range(0, len(searched), USERS_PER_PRODUCT):
            chunk = searched[begin : begin + USERS_PER_PRODUCT]
            own = take_pairs(excluded, chunk, len(users))
            wanted = count + min(int(np.bincount(own[0]).max(initial=0)), count)
            reach = wanted / max(self._available_share, 1 / len(self._vectors))
            if not index.is_faster(reach):
                continue  # `find` completes them
            found_rows = index.search(users[chunk], wanted + count // SPARE, self._selector, reach)
            found_rows = np.concatenate(
                [found_rows, self._find_further(index.row_count, users[chunk], own, count)], axis=1
            )
            scores = np.matmul(self._vectors[found_rows], users[chunk, :, None])[:, :, 0]
            nearest[chunk] = select_found(found_rows, scores, self._penalty, own, count)
        return nearest

    def _find_further(self, first: int, users: Vectors, excluded: Pairs, count: int) -> Rows:
        """The nearest of the rows from `first` on, as `find_nearest` gives them."""
        if len(self._vectors) == first:
            return np.zeros((len(users), 0), np.int64)
        here = excluded[1] >= first
        pairs = excluded[0][here], excluded[1][here] - first
        rows = find_nearest(users, self._vectors[first:], self._penalty[first:], pairs, count)
        return np.where(rows >= 0, rows + first, -1)

    def _complete(self, nearest: Rows, users: Vectors, excluded: Pairs, short: Rows) -> None:
        """Search exactly for the users for whom the index found too few."""
        if len(short):
            metrics.RETRIEVAL_EXACT_USERS.inc(len(short))
            nearest[short] = self._find_exactly(users[short], take_pairs(excluded, short, len(users)), nearest.shape[1])

    def _drop_index(self, reason: str) -> None:
        self.index, self.recall = None, 1.0
        count_failure(reason)


def report_searches(searches: Sequence[ItemSearch], now_ms: int) -> None:
    """Measure the recall of these searches, and show the least one."""
    for search in searches:
        search.measure(now_ms)
    metrics.RETRIEVAL_RECALL.set(min((search.recall for search in searches), default=1.0))
    metrics.RETRIEVAL_INDEX_ITEMS.set(max((search.indexed_items for search in searches), default=0))


def take_pairs(pairs: Pairs, chosen: Rows, user_count: int) -> Pairs:
    """The pairs of the chosen users (C,), who are numbered by their place there."""
    place = np.full(user_count, -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    users = place[pairs[0]]
    return users[users >= 0], pairs[1][users >= 0]


@jit
def select_found(found_rows: Any, scores: Any, penalty: Any, excluded: Any, count: int) -> Any:
    """The rows (U, count) of the largest `scores` among those found (U, K; -1: none), best first; ties by row.

    `scores` is written to. penalty (M,) and `excluded` as `find_nearest` takes them.
    """
    excluded_users, excluded_rows = excluded
    for n in range(len(excluded_users)):
        u = excluded_users[n]
        for k in range(found_rows.shape[1]):
            if found_rows[u, k] == excluded_rows[n]:
                scores[u, k] = -np.inf
    rows = np.full((len(found_rows), count), -1, np.int64)
    best = np.full(count, -np.inf, np.float32)
    for u in range(len(found_rows)):
        best[:] = -np.inf
        for k in range(found_rows.shape[1]):
            row, score = found_rows[u, k], scores[u, k]
            if row < 0 or not score + penalty[row] > -np.inf:
                continue
            place = count
            while place > 0 and (best[place - 1] < score or (best[place - 1] == score and rows[u, place - 1] > row)):
                place -= 1
            if place == count:
                continue
            for k2 in range(count - 1, place, -1):
                best[k2], rows[u, k2] = best[k2 - 1], rows[u, k2 - 1]
            best[place], rows[u, place] = score, row
    return rows
