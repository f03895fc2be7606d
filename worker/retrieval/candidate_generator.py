"""Candidates: which items may be recommended to a user, before the model ranks them."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.kernels import CandidateSources, concatenate_lists, select_candidates
from worker.retrieval.popularity import Popularity

SOURCES: Final = ("neighbour", "recent", "category", "popular", "fresh")  # where a candidate comes from, by its code
FRESH: Final = SOURCES.index("fresh")
CATEGORIES_MAX: Final = 3  # of a user's recent items, whose popular ones are drawn
PER_CATEGORY_MAX: Final = 10


class UserCandidates(NamedTuple):
    """The candidates of one user: catalogue numbers (P,), where each comes from, and the chance of a fresh one."""

    numbers: ItemNumbers
    sources: npt.NDArray[np.int8]
    propensity: float


class CandidateGenerator:
    """Draws candidates: neighbours of the user's recent items, these, and popular ones of their categories and of all.

    Sold-out and delisted items are left out, and those just bought. A few fresh items stand behind all others, for the
    list to explore.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        neighbours: ItemNeighbours,
        popularity: Popularity,
        fresh_items: FreshItems,
        candidates_max: int,
    ) -> None:
        self._catalogue, self._neighbours, self._popularity, self._fresh_items = (
            catalogue,
            neighbours,
            popularity,
            fresh_items,
        )
        self._candidates_max = candidates_max

    def generate(
        self, recent: npt.NDArray[np.uint64], bought: Sequence[ItemNumbers], seeds: Sequence[int]
    ) -> list[UserCandidates]:
        """For U users with these recent items (U, R), as profiles link them, newest first.

        `bought`: what each has just bought. `seeds`: what chooses each user's fresh items.
        """
        seen, catalogue, popularity = self._catalogue.find_hashes(recent), self._catalogue, self._popularity
        neighbours = self._neighbours.neighbours_of(seen)
        pool = CandidateSources(
            near=neighbours.numbers,
            weights=neighbours.weights,
            popular=popularity.top,
            in_category=popularity.in_category[:, :PER_CATEGORY_MAX],
            category=catalogue.category,
            sold=catalogue.in_stock,
            categories_max=CATEGORIES_MAX,
        )
        numbers, sources, counts = select_candidates(seen, pool, *concatenate_lists(list(bought)), self._candidates_max)
        return [
            self._append_fresh(numbers[u, :count], sources[u, :count], bought[u], seeds[u])
            for u, count in enumerate(counts.tolist())
        ]

    def _append_fresh(
        self, numbers: ItemNumbers, sources: npt.NDArray[np.int8], bought: ItemNumbers, seed: int
    ) -> UserCandidates:
        """The candidates with some fresh items behind them, which take the places of the last ones."""
        fresh, propensity = self._fresh_items.sample(numbers, bought, seed)
        if not len(fresh):
            return UserCandidates(numbers, sources, propensity)
        room = self._candidates_max - len(fresh)
        codes = np.full(len(fresh), FRESH, np.int8)
        return UserCandidates(
            np.concatenate([numbers[:room], fresh]), np.concatenate([sources[:room], codes]), propensity
        )
