"""Candidates by the next-item part of a bundle: neighbours of whole histories, items near the user's vector, a rank.

Items are rows of the bundle here, followed by those that are newer and have a vector estimated (`new_items`): they are
found by vector, and have no neighbours or counts. Items of which nothing is known come after the others, in the
candidates' own order.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.profiles.histories import LatestItems
from contract.retrieval.features import HISTORY_MAX, build_features
from contract.retrieval.item_table import ItemTable, Neighbours, no_neighbours
from contract.units import DAY_MS
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.item_tables import NeighbourTable
from worker.model.next_item_model import NextItemModel
from worker.retrieval.bundle_items import BundleItems
from worker.retrieval.co_visitation import WeightedNeighbours
from worker.retrieval.item_search import ItemSearch
from worker.retrieval.kernels import find_strongest
from worker.retrieval.new_items import NewItemVectors
from worker.rules.kind_rules import KindRules

Rows = npt.NDArray[np.int64]
SHARE: Final = 0.4  # of the candidates, at most, from each of the sources
SCORE_MIN: Final = np.float32(-1e30)  # of what is not finite


class RetrievedItems(NamedTuple):
    """What was found for U users: histories as rows (U, L), vectors (U, d), and items by catalogue number (U, n)."""

    histories: Rows
    users: npt.NDArray[np.float32]
    neighbours: WeightedNeighbours
    other_neighbours: ItemNumbers
    nearest: ItemNumbers


class NextItemSource:
    """The next-item part of one model over the catalogue as it is now."""

    def __init__(self, model: NextItemModel, neighbours: NeighbourTable, catalogue: Catalogue) -> None:
        self.model = model
        self._catalogue = catalogue
        other = model.other_neighbours
        self._table = ItemTable(
            neighbours=to_neighbours(neighbours),
            other_neighbours=to_neighbours(other) if other else no_neighbours(len(neighbours.hashes)),
            vectors=model.vectors.vectors,
            counts=model.vectors.counts,
            recent_counts=model.vectors.recent_counts,
        )
        self._items = BundleItems(neighbours.hashes, catalogue)
        self._new_items, self._puts = NewItemVectors(model.vectors.vectors, catalogue), -1
        self.search = ItemSearch(model.vectors.vectors, model.index)
        self.refresh()

    def refresh(self, rules: KindRules | None = None) -> None:
        """Follow the catalogue: new items, and those in stock that rules leave. O(items), so it runs on a timer."""
        if self._items.items_known != len(self._catalogue):
            self._items = BundleItems(self.model.vectors.hashes, self._catalogue)
        if self._puts != self._catalogue.puts:
            self._puts = self._catalogue.puts
            self._append_new_items()
        number = self._items.number[:-1]
        self._is_available = (number >= 0) & self._catalogue.in_stock[number]
        if rules:
            self._is_available &= ~rules.is_excluded[number]
        self.search.follow(self._is_available, self._table.vectors)

    def retrieve(
        self, histories: LatestItems, now_ms: npt.NDArray[np.int64], bought: ItemNumbers, starts: Rows, count_max: int
    ) -> RetrievedItems:
        """Items for each user, at most `SHARE` of `count_max` by each source.

        bought[starts[u] : starts[u + 1]]: catalogue numbers that user u does not get. `now_ms` (U,): event time.
        """
        rows = self._items.find_rows(histories.items[:, :HISTORY_MAX])
        actions = histories.actions[:, :HISTORY_MAX].astype(np.int64)
        ages = np.maximum(now_ms[:, None] - histories.seen_s[:, :HISTORY_MAX] * np.int64(1000), 0) / DAY_MS
        users = self.model.encode(rows, actions, ages.astype(np.float32))
        excluded = self._items.rows_of(bought).astype(np.int64)
        excluded_users = np.repeat(np.arange(len(rows)), np.diff(starts))
        count = max(int(count_max * SHARE), 1)
        known = excluded >= 0
        nearest = self.search.find(users, (excluded_users[known], excluded[known]), count)
        of_bundle = np.where(excluded < len(self._table.counts), excluded, -1)
        neighbours, other = (
            find_strongest(rows, tuple(source), HISTORY_MAX, self._is_available, of_bundle, starts, count)
            for source in (self._table.neighbours, self._table.other_neighbours)
        )
        return RetrievedItems(
            rows,
            users,
            WeightedNeighbours(self._to_numbers(neighbours[0]), neighbours[1]),
            self._to_numbers(other[0]),
            self._to_numbers(nearest),
        )

    def rank(self, retrieved: RetrievedItems, numbers: ItemNumbers, starts: Rows) -> npt.NDArray[np.float32]:
        """The score of each candidate (P,), of which those in [starts[u], starts[u + 1]) are for user u."""
        rows = self._items.rows_of(numbers).astype(np.int64)
        features = build_features(self._table, retrieved.histories, retrieved.users, rows, starts)
        scores = self.model.rank(features) if len(numbers) else np.zeros(0, np.float32)
        return np.where(np.isfinite(scores), scores, SCORE_MIN)

    def _append_new_items(self) -> None:
        """Copies all vectors where those of new items change, which most records of items do not cause."""
        numbers, vectors = self._new_items.estimate(self._items)
        known = self.model.vectors.vectors
        self._items.replace_new(numbers)
        if not np.array_equal(vectors, self._table.vectors[len(known) :]):
            self._table = self._table._replace(vectors=np.concatenate([known, vectors]) if len(numbers) else known)

    def _to_numbers(self, rows: Rows) -> ItemNumbers:
        numbers: ItemNumbers = self._items.number[rows].astype(np.int64)
        return numbers


def to_neighbours(table: NeighbourTable) -> Neighbours:
    return Neighbours(table.rows, table.weights, table.fading)
