"""Neighbours of items by catalogue number: what the bundle has learned, and what this worker has seen since.

Both say how much an item speaks for another one. Of several recent items the newer ones speak louder, of what was
learned by as much as the bundle says (`fading`).
"""

from typing import Final, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.onnx_model import NeighbourTable

SLOTS: Final = 8  # co-visited items that are remembered of each item
RECENCY_EXPONENT: Final = 1.0  # of co-visits: the k-th latest item speaks with 1 / k
PRIOR_VISITS: Final = 20.0  # visits of an item before what it was visited with is half believed
HALF_LIFE_MS: Final = 7 * 24 * 3_600_000
HALF_LIVES_MAX: Final = (
    100.0  # half-lives after which weights are brought back to the present, long before they overflow
)

Weights = npt.NDArray[np.float32]
compiled = numba.njit(cache=True, nogil=True)


class WeightedNeighbours(NamedTuple):
    """Neighbours of U users' recent items, (U, n) each: catalogue numbers, -1 for none, and their weights."""

    numbers: ItemNumbers
    weights: Weights


class ItemNeighbours:
    """The neighbours that candidates are drawn from."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._neighbours: NeighbourTable | None = None
        self._from_bundle: BundleNeighbours | None = None
        self.co_visits = CoVisits(catalogue.items_max)

    def activate(self, neighbours: NeighbourTable | None) -> None:
        self._neighbours = neighbours if neighbours and len(neighbours.rows) else None
        self._from_bundle = BundleNeighbours(self._neighbours, self._catalogue) if self._neighbours else None

    def refresh(self) -> None:
        """Look again whether items that the bundle names have come; by the clock, since it looks at all of them."""
        if self._neighbours and self._from_bundle and self._from_bundle.items_known != len(self._catalogue):
            self._from_bundle = BundleNeighbours(self._neighbours, self._catalogue)

    def neighbours_of(self, seen: ItemNumbers) -> WeightedNeighbours:
        """The neighbours of recent items (U, R), newest first; -1 where there is none."""
        sources = [source for source in (self._from_bundle, self.co_visits) if source]
        neighbours = [decay(source.neighbours_of(seen), source.recency_exponent) for source in sources]
        numbers = np.concatenate([source_neighbours.numbers for source_neighbours in neighbours], 2)  # (U, R, n)
        weights = np.concatenate([source_neighbours.weights for source_neighbours in neighbours], 2)
        return WeightedNeighbours(numbers.reshape(len(seen), -1), weights.reshape(len(seen), -1))


def decay(neighbours: WeightedNeighbours, exponent: float) -> WeightedNeighbours:
    """Neighbours (U, R, n) of recent items, newest first, those of the older ones with less weight."""
    recency_weight = (np.arange(1.0, neighbours.weights.shape[1] + 1) ** -exponent).astype(np.float32)
    return WeightedNeighbours(neighbours.numbers, neighbours.weights * recency_weight[None, :, None])


class BundleNeighbours:
    """A bundle's neighbours, read in its own numbers and told in those of the catalogue as it was then."""

    def __init__(self, neighbours: NeighbourTable, catalogue: Catalogue) -> None:
        self.items_known, self._neighbours, self.recency_exponent = len(catalogue), neighbours, neighbours.fading
        self._number = catalogue.find_hashes(np.append(neighbours.hashes, np.uint64(0))).astype(np.int32)  # (M + 1,)
        self._row = np.full(self.items_known + 1, -1, np.int32)  # the last one is for what is unknown
        present = np.flatnonzero(self._number >= 0)
        self._row[self._number[present]] = present

    def neighbours_of(self, seen: ItemNumbers) -> WeightedNeighbours:
        """(U, R, K) of `seen` (U, R)."""
        row = self._row[np.where((seen < 0) | (seen >= self.items_known), self.items_known, seen)]
        numbers = self._number[np.where((row >= 0)[..., None], self._neighbours.rows[row], -1)]
        return WeightedNeighbours(numbers.astype(np.int64), self._neighbours.weights[row])


class CoVisits:
    """The items that users came to next, counted per item in a few places, the least of which makes room for a new one.

    A new item takes over the count that it displaces (space saving, Metwally et al. 2005), so what is frequent stays.
    Later visits weigh more, relative to the first: nothing has to be faded one by one.
    """

    recency_exponent: Final = RECENCY_EXPONENT

    def __init__(self, items_max: int) -> None:
        self._neighbours = np.zeros((items_max, SLOTS), np.int32)  # number + 1, so that 0 is a free place
        self._weights = np.zeros((items_max, SLOTS), np.float32)
        self._visits = np.zeros(items_max, np.float32)
        self._since_ms = self._now_ms = 0

    def record(self, before: ItemNumbers, after: ItemNumbers, now_ms: int) -> None:
        """Pairs (P,) of items that a user saw one after the other; unknown ones (-1) and repeats count for nothing."""
        is_counted = (before >= 0) & (after >= 0) & (before != after)
        if not is_counted.any():
            return
        weight = np.float32(self._visit_weight(now_ms))
        count_visits(self._neighbours, self._weights, self._visits, before[is_counted], after[is_counted], weight)

    def neighbours_of(self, seen: ItemNumbers) -> WeightedNeighbours:
        """(U, R, PLACES) of `seen` (U, R); a weight is the share of visits, the surer the more there were."""
        items = np.maximum(seen, 0)
        known = (seen >= 0)[..., None] & (self._neighbours[items] > 0)
        visits = self._visits[items] + np.float32(PRIOR_VISITS * self._visit_weight(0))
        return WeightedNeighbours(
            np.where(known, self._neighbours[items].astype(np.int64) - 1, -1), self._weights[items] / visits[..., None]
        )

    def _visit_weight(self, now_ms: int) -> float:
        """What one visit weighs now; 0: as of the latest one that was noted."""
        self._since_ms = self._since_ms or now_ms
        self._now_ms = max(now_ms, self._now_ms)
        age = (self._now_ms - self._since_ms) / HALF_LIFE_MS
        if age > HALF_LIVES_MAX:
            np.multiply(self._weights, np.float32(2.0**-age), out=self._weights)
            np.multiply(self._visits, np.float32(2.0**-age), out=self._visits)
            self._since_ms, age = self._now_ms, 0.0
        return float(2.0**age)


@compiled
def count_visits(neighbours, weights, visits, before, after, weight):  # type: ignore[no-untyped-def]
    """Count pairs, each for both of its items; what is written is `near`, `weights` (items, PLACES) and `visits`."""
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
