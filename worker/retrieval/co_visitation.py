"""Neighbours of items by catalogue number: those of the bundle, and co-visits that this worker has counted since.

Both score item-to-item similarity. The neighbours of newer recent items weigh more; the bundle sets the decay of its
own (`fading`).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.compilation import jit
from contract.units import DAY_MS
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.item_tables import NeighbourTable
from worker.retrieval.bundle_items import BundleItems

SLOTS: Final = 8  # co-visited items that are kept of each item
RECENCY_EXPONENT: Final = 1.0  # of co-visits: neighbours of the k-th latest item weigh 1 / k
PRIOR_VISITS: Final = 20.0  # pseudo-count: with as many visits of an item its co-visit shares are halved
HALF_LIFE_MS: Final = 7 * DAY_MS
HALF_LIVES_MAX: Final = 100.0  # after this age weights are rescaled to the present, long before they overflow

Weights = npt.NDArray[np.float32]


class WeightedNeighbours(NamedTuple):
    """Neighbours of U users' recent items, (U, n) each: catalogue numbers, -1 for none, and their weights."""

    numbers: ItemNumbers
    weights: Weights


class ItemNeighbours:
    """The neighbours of the bundle and of co-visits together."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._neighbours: NeighbourTable | None = None
        self._from_bundle: BundleNeighbours | None = None
        self.co_visits = CoVisits(catalogue.items_max)

    def activate(self, neighbours: NeighbourTable | None) -> None:
        self._neighbours = neighbours if neighbours and len(neighbours.rows) else None
        self._from_bundle = BundleNeighbours(self._neighbours, self._catalogue) if self._neighbours else None

    def refresh(self) -> None:
        """Rebuild the bundle's neighbours if the catalogue has new items. O(items), so it runs on a timer."""
        if self._neighbours and self._from_bundle and self._from_bundle.items_known != len(self._catalogue):
            self._from_bundle = BundleNeighbours(self._neighbours, self._catalogue)

    def neighbours_of(self, recent: ItemNumbers) -> WeightedNeighbours:
        """The neighbours (U, n) of recent items (U, R), newest first; -1 is no item."""
        return concatenate([decay(source, recent) for source in (self._from_bundle, self.co_visits) if source])

    def co_visited_with(self, recent: ItemNumbers) -> WeightedNeighbours:
        """The neighbours (U, n) that this worker has counted."""
        return decay(self.co_visits, recent)


def decay(source: "BundleNeighbours | CoVisits", recent: ItemNumbers) -> WeightedNeighbours:
    """A source's neighbours (U, n) of recent items (U, R), newest first; the k-th item's weigh k ** -exponent."""
    neighbours = source.neighbours_of(recent)
    recency_weight = (np.arange(1.0, recent.shape[1] + 1) ** -source.recency_exponent).astype(np.float32)
    return flatten(WeightedNeighbours(neighbours.numbers, neighbours.weights * recency_weight[None, :, None]))


def flatten(neighbours: WeightedNeighbours) -> WeightedNeighbours:
    """The neighbours (U, R, n) of all recent items of a user, as (U, R * n)."""
    users = len(neighbours.numbers)
    return WeightedNeighbours(neighbours.numbers.reshape(users, -1), neighbours.weights.reshape(users, -1))


def concatenate(sources: Sequence[WeightedNeighbours]) -> WeightedNeighbours:
    """The neighbours (U, n) of several sources together."""
    return WeightedNeighbours(
        np.concatenate([source.numbers for source in sources], 1),
        np.concatenate([source.weights for source in sources], 1),
    )


class BundleNeighbours:
    """A bundle's neighbours, from row numbers of the bundle to numbers of the catalogue as it is now."""

    def __init__(self, neighbours: NeighbourTable, catalogue: Catalogue) -> None:
        self.recency_exponent = neighbours.fading
        self._neighbours, self._items = neighbours, BundleItems(neighbours.hashes, catalogue)

    @property
    def items_known(self) -> int:
        return self._items.items_known

    def neighbours_of(self, recent: ItemNumbers) -> WeightedNeighbours:
        """The neighbours (U, R, K) of recent items (U, R)."""
        row = self._items.rows_of(recent)
        numbers = self._items.number[np.where((row >= 0)[..., None], self._neighbours.rows[row], -1)]
        return WeightedNeighbours(numbers.astype(np.int64), self._neighbours.weights[row])


class CoVisits:
    """Counts the items that users visit before or after each item, in a few slots per item.

    A new item replaces the one with the lowest count and takes over its count (space saving, Metwally et al. 2005), so
    frequent items stay. Later visits weigh more, relative to the first, so no count has to be decayed.
    """

    recency_exponent: Final = RECENCY_EXPONENT

    def __init__(self, items_max: int) -> None:
        self._neighbours = np.zeros((items_max, SLOTS), np.int32)  # number + 1; 0 is a free slot
        self._weights = np.zeros((items_max, SLOTS), np.float32)
        self._visits = np.zeros(items_max, np.float32)
        self._since_ms = 0
        self._now_ms = 0

    def record(self, before: ItemNumbers, after: ItemNumbers, now_ms: int) -> None:
        """Count pairs (P,) of items that a user visited in succession; unknown items (-1) and repeats are ignored."""
        is_counted = (before >= 0) & (after >= 0) & (before != after)
        if not is_counted.any():
            return
        weight = np.float32(self._visit_weight(now_ms))
        count_visits(self._neighbours, self._weights, self._visits, before[is_counted], after[is_counted], weight)

    def neighbours_of(self, recent: ItemNumbers) -> WeightedNeighbours:
        """The neighbours (U, R, SLOTS) of recent items (U, R); weights are shares of the visits, shrunk by a prior."""
        items = np.maximum(recent, 0)
        known = (recent >= 0)[..., None] & (self._neighbours[items] > 0)
        visits = self._visits[items] + np.float32(PRIOR_VISITS * self._visit_weight(0))
        return WeightedNeighbours(
            np.where(known, self._neighbours[items].astype(np.int64) - 1, -1), self._weights[items] / visits[..., None]
        )

    def _visit_weight(self, now_ms: int) -> float:
        """The weight of a visit at `now_ms`; 0: at the latest recorded visit."""
        self._since_ms = self._since_ms or now_ms
        self._now_ms = max(now_ms, self._now_ms)
        age = (self._now_ms - self._since_ms) / HALF_LIFE_MS
        if age > HALF_LIVES_MAX:
            np.multiply(self._weights, np.float32(2.0**-age), out=self._weights)
            np.multiply(self._visits, np.float32(2.0**-age), out=self._visits)
            self._since_ms = self._now_ms
            age = 0.0
        return float(2.0**age)


@jit
def count_visits(neighbours, weights, visits, before, after, weight):  # type: ignore[no-untyped-def]
    """Count each pair for both items. Writes `neighbours` and `weights` (items, SLOTS), and `visits` (items,)."""
    for n in range(2 * len(before)):
        item, other = (before[n // 2], after[n // 2]) if n % 2 == 0 else (after[n // 2], before[n // 2])
        visits[item] += weight
        slot = 0
        for k in range(neighbours.shape[1]):
            if neighbours[item, k] == other + 1:
                slot = k
                break
            if weights[item, k] < weights[item, slot]:
                slot = k
        neighbours[item, slot] = other + 1
        weights[item, slot] += weight
