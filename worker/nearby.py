"""Neighbours of items by catalogue number: what the bundle has learned, and what this worker has seen since.

Both say how much an item speaks for another one. Of several recent items the newer ones speak louder, of what was
learned by as much as the bundle says (`fading`).
"""

from typing import Final, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from worker.catalogue import Catalogue
from worker.item_index import Numbers
from worker.runtime import Neighbours

PLACES: Final = 8  # co-visited items that are remembered of each item
FADING: Final = 1.0  # of co-visits: the k-th latest item speaks with 1 / k
PRIOR: Final = 20.0  # visits of an item before what it was visited with is half believed
HALF_LIFE_MS: Final = 7 * 24 * 3_600_000
AGE_MAX: Final = 100.0  # half-lives after which weights are brought back to the present, long before they overflow

Weights = npt.NDArray[np.float32]
compiled = numba.njit(cache=True, nogil=True)


class Near(NamedTuple):
    """Neighbours of U users' recent items, (U, n) each: catalogue numbers, -1 for none, and their weights."""

    numbers: Numbers
    weights: Weights


class Nearby:
    """The neighbours that candidates are drawn from."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._neighbours: Neighbours | None = None
        self._learned: Learned | None = None
        self.visits = CoVisits(catalogue.items_max)

    def serve(self, neighbours: Neighbours | None) -> None:
        self._neighbours = neighbours if neighbours and len(neighbours.rows) else None
        self._learned = Learned(self._neighbours, self._catalogue) if self._neighbours else None

    def refresh(self) -> None:
        """Look again whether items that the bundle names have come; by the clock, since it looks at all of them."""
        if self._neighbours and self._learned and self._learned.known != len(self._catalogue):
            self._learned = Learned(self._neighbours, self._catalogue)

    def of(self, seen: Numbers) -> Near:
        """The neighbours of recent items (U, R), newest first; -1 where there is none."""
        sources = [source for source in (self._learned, self.visits) if source]
        found = [faded(source.of(seen), source.fading) for source in sources]
        numbers = np.concatenate([near.numbers for near in found], 2)  # (U, R, n)
        weights = np.concatenate([near.weights for near in found], 2)
        return Near(numbers.reshape(len(seen), -1), weights.reshape(len(seen), -1))


def faded(near: Near, fading: float) -> Near:
    """Neighbours (U, R, n) of recent items, newest first, those of the older ones with less weight."""
    loudness = (np.arange(1.0, near.weights.shape[1] + 1) ** -fading).astype(np.float32)
    return Near(near.numbers, near.weights * loudness[None, :, None])


class Learned:
    """A bundle's neighbours, read in its own numbers and told in those of the catalogue as it was then."""

    def __init__(self, neighbours: Neighbours, catalogue: Catalogue) -> None:
        self.known, self._neighbours, self.fading = len(catalogue), neighbours, neighbours.fading
        self._number = catalogue.linked(np.append(neighbours.hashes, np.uint64(0))).astype(np.int32)  # (M + 1,)
        self._row = np.full(self.known + 1, -1, np.int32)  # the last one is for what is unknown
        here = np.flatnonzero(self._number >= 0)
        self._row[self._number[here]] = here

    def of(self, seen: Numbers) -> Near:
        """(U, R, K) of `seen` (U, R)."""
        row = self._row[np.where((seen < 0) | (seen >= self.known), self.known, seen)]
        near = self._number[np.where((row >= 0)[..., None], self._neighbours.rows[row], -1)]
        return Near(near.astype(np.int64), self._neighbours.weights[row])


class CoVisits:
    """The items that users came to next, counted per item in a few places, the least of which makes room for a new one.

    A new item takes over the count that it displaces (space saving, Metwally et al. 2005), so what is frequent stays.
    Later visits weigh more, relative to the first: nothing has to be faded one by one.
    """

    fading: Final = FADING

    def __init__(self, items_max: int) -> None:
        self._near = np.zeros((items_max, PLACES), np.int32)  # number + 1, so that 0 is a free place
        self._weights = np.zeros((items_max, PLACES), np.float32)
        self._visits = np.zeros(items_max, np.float32)
        self._since_ms = self._now_ms = 0

    def note(self, before: Numbers, after: Numbers, now_ms: int) -> None:
        """Pairs (P,) of items that a user saw one after the other; unknown ones (-1) and repeats count for nothing."""
        real = (before >= 0) & (after >= 0) & (before != after)
        if not real.any():
            return
        weight = np.float32(self._weight(now_ms))
        count_visits(self._near, self._weights, self._visits, before[real], after[real], weight)

    def of(self, seen: Numbers) -> Near:
        """(U, R, PLACES) of `seen` (U, R); a weight is the share of visits, the surer the more there were."""
        at = np.maximum(seen, 0)
        known = (seen >= 0)[..., None] & (self._near[at] > 0)
        visits = self._visits[at] + np.float32(PRIOR * self._weight(0))
        return Near(np.where(known, self._near[at].astype(np.int64) - 1, -1), self._weights[at] / visits[..., None])

    def _weight(self, now_ms: int) -> float:
        """What one visit weighs now; 0: as of the latest one that was noted."""
        self._since_ms = self._since_ms or now_ms
        self._now_ms = max(now_ms, self._now_ms)
        age = (self._now_ms - self._since_ms) / HALF_LIFE_MS
        if age > AGE_MAX:
            np.multiply(self._weights, np.float32(2.0**-age), out=self._weights)
            np.multiply(self._visits, np.float32(2.0**-age), out=self._visits)
            self._since_ms, age = self._now_ms, 0.0
        return float(2.0**age)


@compiled
def count_visits(near, weights, visits, before, after, weight):  # type: ignore[no-untyped-def]
    """Count pairs, each for both of its items; what is written is `near`, `weights` (items, PLACES) and `visits`."""
    for n in range(2 * len(before)):
        item, other = (before[n // 2], after[n // 2]) if n % 2 == 0 else (after[n // 2], before[n // 2])
        visits[item] += weight
        least = 0
        for k in range(near.shape[1]):
            if near[item, k] == other + 1:
                least = k
                break
            if weights[item, k] < weights[item, least]:
                least = k
        near[item, least] = other + 1
        weights[item, least] += weight
