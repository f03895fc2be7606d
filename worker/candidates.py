"""Candidates: which items may be recommended to a user, before the model ranks them."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.catalogue import Catalogue
from worker.fresh import Fresh
from worker.item_index import Numbers
from worker.nearby import Near, Nearby
from worker.popularity import Popularity

WHY: Final = ("neighbour", "recent", "category", "popular", "fresh")  # where a candidate comes from, by its code
NEIGHBOUR, RECENT, CATEGORY, POPULAR, FRESH = range(len(WHY))
CATEGORIES: Final = 3  # of a user's recent items, whose popular ones are drawn
OF_CATEGORY: Final = 10


class Drawn(NamedTuple):
    """The candidates of one user: catalogue numbers (P,), where each comes from, and the chance of a fresh one."""

    numbers: Numbers
    why: npt.NDArray[np.int8]
    propensity: float


class Candidates:
    """Draws candidates: neighbours of the user's recent items, these, and popular ones of their categories and of all.

    Sold-out and delisted items are left out, and those just bought. A few fresh items stand behind all others, for the
    list to explore.
    """

    def __init__(
        self, *, catalogue: Catalogue, nearby: Nearby, popularity: Popularity, fresh: Fresh, candidates_max: int
    ) -> None:
        self._catalogue, self._nearby, self._popularity, self._fresh = catalogue, nearby, popularity, fresh
        self._max = candidates_max

    def draw(self, recent: npt.NDArray[np.uint64], bought: Sequence[Numbers], seeds: Sequence[int]) -> list[Drawn]:
        """For U users with these recent items (U, R), as profiles link them, newest first.

        `bought`: what each has just bought. `seeds`: what chooses each user's fresh items.
        """
        seen = self._catalogue.linked(recent)
        near = self._nearby.of(seen)
        return [
            self._of(seen[u], Near(near.numbers[u], near.weights[u]), bought[u], seeds[u]) for u in range(len(seen))
        ]

    def _of(self, seen: Numbers, near: Near, bought: Numbers, seed: int) -> Drawn:
        own = seen[seen >= 0]
        sources = [strongest(near), own, self._of_categories(own), self._popularity.top]
        numbers = np.concatenate(sources)
        why = np.repeat(np.arange(len(sources), dtype=np.int8), [len(source) for source in sources])
        numbers, why = self._may(numbers, why, bought)
        fresh, propensity = self._fresh.choose(np.concatenate([numbers[: self._max], bought]), seed)
        kept = self._max - len(fresh)
        return Drawn(
            np.concatenate([numbers[:kept], fresh]),
            np.concatenate([why[:kept], np.full(len(fresh), FRESH, np.int8)]),
            propensity,
        )

    def _may(
        self, numbers: Numbers, why: npt.NDArray[np.int8], bought: Numbers
    ) -> tuple[Numbers, npt.NDArray[np.int8]]:
        """Each item once, for its first reason, if it can be had and was not just bought."""
        first = np.sort(np.unique(numbers, return_index=True)[1])
        numbers, why = numbers[first], why[first]
        kept = self._catalogue.sold[numbers]
        if len(bought):
            kept &= ~np.isin(numbers, bought)
        return numbers[kept], why[kept]

    def _of_categories(self, own: Numbers) -> Numbers:
        """Popular items of the categories that the user moves in, the latest first."""
        codes = dict.fromkeys(self._catalogue.category[own].tolist())
        found = [self._popularity.by_category.get(code) for code in list(codes)[:CATEGORIES] if code]
        return np.concatenate([np.zeros(0, np.int64), *(some[:OF_CATEGORY] for some in found if some is not None)])


def strongest(near: Near) -> Numbers:
    """The neighbours of one user's recent items, those that most speaks for first; ties by number."""
    real = near.numbers >= 0
    if not real.any():
        return np.zeros(0, np.int64)
    items, place = np.unique(near.numbers[real], return_inverse=True)
    weight = np.bincount(place, weights=near.weights[real])
    found: Numbers = items[np.lexsort((items, -weight))]
    return found
