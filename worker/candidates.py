"""Candidates: which items may be recommended to a user, before the model ranks them."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.catalogue import Catalogue
from worker.drawing import Pool, draw_all, flat
from worker.fresh import Fresh
from worker.item_index import Numbers
from worker.nearby import Nearby
from worker.popularity import Popularity

WHY: Final = ("neighbour", "recent", "category", "popular", "fresh")  # where a candidate comes from, by its code
FRESH: Final = WHY.index("fresh")
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
        seen, catalogue, popularity = self._catalogue.linked(recent), self._catalogue, self._popularity
        near = self._nearby.of(seen)
        pool = Pool(
            near=near.numbers,
            weights=near.weights,
            popular=popularity.top,
            in_category=popularity.in_category[:, :OF_CATEGORY],
            category=catalogue.category,
            sold=catalogue.sold,
            categories_max=CATEGORIES,
        )
        numbers, why, counts = draw_all(seen, pool, *flat(list(bought)), self._max)
        return [
            self._with_fresh(numbers[u, :count], why[u, :count], bought[u], seeds[u])
            for u, count in enumerate(counts.tolist())
        ]

    def _with_fresh(self, numbers: Numbers, why: npt.NDArray[np.int8], bought: Numbers, seed: int) -> Drawn:
        """The candidates with some fresh items behind them, which take the places of the last ones."""
        fresh, propensity = self._fresh.choose(numbers, bought, seed)
        if not len(fresh):
            return Drawn(numbers, why, propensity)
        kept = self._max - len(fresh)
        codes = np.full(len(fresh), FRESH, np.int8)
        return Drawn(np.concatenate([numbers[:kept], fresh]), np.concatenate([why[:kept], codes]), propensity)
