"""The items that go with an item: similar ones, and those that are bought together with it, from the serving bundle.

Similar items are the item's neighbours and the items whose vectors are nearest to its own. Each source gives an item
1 / (60 + rank), and an item of both has the sum (reciprocal rank fusion, Cormack, Clarke and Buettcher 2009).
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.item_tables import NeighbourTable
from worker.model.onnx_model import Model
from worker.retrieval.bundle_items import BundleItems
from worker.retrieval.item_search import ItemSearch

FUSION_RANK: Final = 60
NEIGHBOUR, VECTOR, TOGETHER = "neighbour", "vector", "together"


class ItemRanking(NamedTuple):
    """The items of one list, best first: catalogue numbers (n,), scores and reasons."""

    numbers: ItemNumbers
    scores: list[float]
    reasons: list[str]


def choose_items(
    numbers: ItemNumbers, scores: npt.NDArray[np.float64], item: int, is_shown: npt.NDArray[np.bool_], length: int
) -> npt.NDArray[np.int64]:
    """The indexes of the items of a list, best first, of distinct candidates (n,): every list of an item is made here.

    `item`: the one that the list goes with, which is not on it. `is_shown` (items): in stock, and left by list rules.
    """
    is_chosen = (numbers >= 0) & (numbers != item) & is_shown[numbers] & (scores > 0)
    order = np.argsort(-scores, kind="stable")
    chosen: npt.NDArray[np.int64] = order[is_chosen[order]][:length]
    return chosen


class ItemLists:
    """Lists by one model over the catalogue as it is now."""

    def __init__(self, model: Model, catalogue: Catalogue, length: int) -> None:
        self.version = model.version
        self._catalogue, self._length = catalogue, length
        self._neighbours, self._together = model.neighbours, model.together
        next_item = model.next_item
        self._vectors = next_item.vectors.vectors if next_item else None
        self._search = ItemSearch(next_item.vectors.vectors, next_item.index) if next_item else None
        self._index_items()

    def refresh(self, is_shown: npt.NDArray[np.bool_]) -> None:
        """Follow the catalogue: its new items, and which may be shown. O(items), so it runs on a timer."""
        self._is_shown = is_shown
        if self._items.items_known != len(self._catalogue):
            self._index_items()
        number = self._items.number[:-1]
        if self._search:
            self._search.follow((number >= 0) & is_shown[number])

    def rank_similar(self, numbers: ItemNumbers) -> list[ItemRanking]:
        """The similar items of each of these items."""
        rows = self._items.rows_of(numbers).astype(np.int64)
        neighbours, weights = look_up(self._neighbours, self._items, rows)
        nearest = self._items.number[self._find_nearest(rows)]
        return [
            self._fuse(int(item), self._in_order(own, own_weights), vectors)
            for item, own, own_weights, vectors in zip(numbers, neighbours, weights, nearest, strict=True)
        ]

    def rank_together(self, numbers: ItemNumbers) -> list[ItemRanking]:
        """The items that are bought together with each of these items."""
        if self._together is None:
            return [ItemRanking(np.zeros(0, np.int64), [], []) for _ in numbers]
        rows = self._together_items.rows_of(numbers).astype(np.int64)
        others, strengths = look_up(self._together, self._together_items, rows)
        return [
            self._choose(int(item), own.astype(np.int64), own_strengths.astype(np.float64), [TOGETHER] * len(own))
            for item, own, own_strengths in zip(numbers, others, strengths, strict=True)
        ]

    def _index_items(self) -> None:
        self._items = BundleItems(self._neighbours.hashes, self._catalogue)
        self._together_items = BundleItems(hashes_of(self._together), self._catalogue)

    def _find_nearest(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows (N, length) nearest to each of these rows by vector, without itself; -1 after the last."""
        nearest = np.full((len(rows), self._length), -1, np.int64)
        known = np.flatnonzero(rows >= 0)
        if self._search and self._vectors is not None and len(known):
            own = np.arange(len(known)), rows[known]
            nearest[known] = self._search.find(self._vectors[rows[known]], own, self._length)
        return nearest

    def _in_order(self, neighbours: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]) -> list[int]:
        """Neighbours that may be on a list, the strongest first."""
        order = np.argsort(-weights, kind="stable")
        kept = order[(neighbours[order] >= 0) & (weights[order] > 0)]
        return [int(number) for number in neighbours[kept] if self._is_shown[number]]

    def _fuse(self, item: int, neighbours: list[int], nearest: npt.NDArray[np.int32]) -> ItemRanking:
        scores, best = dict[int, float](), dict[int, tuple[int, str]]()
        for reason, source in ((NEIGHBOUR, neighbours), (VECTOR, nearest[nearest >= 0].tolist())):
            for rank, number in enumerate((number for number in source if number != item), 1):
                scores[number] = scores.get(number, 0) + 1 / (FUSION_RANK + rank)
                best[number] = min(best.get(number, (rank, reason)), (rank, reason), key=lambda pair: pair[0])
        return self._choose(
            item, np.array(list(scores), np.int64), np.array(list(scores.values())), [best[n][1] for n in scores]
        )

    def _choose(
        self, item: int, numbers: ItemNumbers, scores: npt.NDArray[np.float64], reasons: list[str]
    ) -> ItemRanking:
        chosen = choose_items(numbers, scores, item, self._is_shown, self._length)
        return ItemRanking(numbers[chosen], scores[chosen].round(6).tolist(), [reasons[n] for n in chosen.tolist()])


def look_up(
    table: NeighbourTable, items: BundleItems, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The neighbours of rows (N,) as catalogue numbers (N, K), -1 for none, and their weights (N, K)."""
    numbers = np.full((len(rows), table.rows.shape[1]), -1, np.int32)
    weights = np.zeros(numbers.shape, np.float32)
    known = rows >= 0
    numbers[known], weights[known] = items.number[table.rows[rows[known]]], table.weights[rows[known]]
    return numbers, weights


def hashes_of(table: NeighbourTable | None) -> npt.NDArray[np.uint64]:
    return table.hashes if table else np.zeros(0, np.uint64)
