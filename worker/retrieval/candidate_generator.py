"""Generates candidates: the items that may be recommended to a user, before the model ranks them."""

from collections.abc import Sequence
from copy import copy
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.settings.worker import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.kernels import CandidateSources, concatenate_lists, select_candidates
from worker.retrieval.popularity import Popularity

SOURCES: Final = ("neighbour", "recent", "category", "popular", "fresh")  # by the code of a candidate's source
FRESH: Final = SOURCES.index("fresh")
CATEGORIES_MAX: Final = 3  # categories of a user's recent items whose popular items are candidates
PER_CATEGORY_MAX: Final = 10


class UserCandidates(NamedTuple):
    """The candidates of one user: catalogue numbers (P,), source codes (P,), and the propensity of a fresh item."""

    numbers: ItemNumbers
    sources: npt.NDArray[np.int8]
    propensity: float


class CandidateGenerator:
    """Candidates are neighbours of the user's recent items, these items, and popular items of their categories and all.

    Items that are sold out, delisted or just bought are excluded. A few fresh items come last, for the list to explore.
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
        self._catalogue = catalogue
        self._neighbours = neighbours
        self._popularity = popularity
        self._fresh_items = fresh_items
        self._candidates_max = candidates_max
        self._explored = fresh_items.expected_count

    def vary(self, lists: ListSettings) -> "CandidateGenerator":
        """Candidates from the same sources, as many and with as many fresh items as these settings say."""
        varied = copy(self)
        varied._candidates_max, varied._explored = lists.candidates, lists.explore * lists.length
        return varied

    def generate(
        self, recent: npt.NDArray[np.uint64], bought: Sequence[ItemNumbers], seeds: Sequence[int]
    ) -> list[UserCandidates]:
        """Candidates for U users with these recent items (U, R), as hashes from profiles, newest first.

        `bought`: the items that each user has just bought. `seeds`: for the sample of each user's fresh items.
        """
        recent_items = self._catalogue.find_hashes(recent)
        neighbours = self._neighbours.neighbours_of(recent_items)
        sources = CandidateSources(
            neighbours=neighbours.numbers,
            neighbour_weights=neighbours.weights,
            popular=self._popularity.top,
            popular_by_category=self._popularity.in_category[:, :PER_CATEGORY_MAX],
            item_category=self._catalogue.category,
            in_stock=self._catalogue.in_stock,
            categories_max=CATEGORIES_MAX,
        )
        excluded, starts = concatenate_lists(list(bought))
        numbers, codes, counts = select_candidates(recent_items, sources, excluded, starts, self._candidates_max)
        return [
            self._append_fresh(numbers[u, :count], codes[u, :count], bought[u], seeds[u])
            for u, count in enumerate(counts.tolist())
        ]

    def _append_fresh(
        self, numbers: ItemNumbers, sources: npt.NDArray[np.int8], bought: ItemNumbers, seed: int
    ) -> UserCandidates:
        """The candidates followed by fresh items, which replace the last candidates beyond the limit."""
        fresh, propensity = self._fresh_items.sample(numbers, bought, seed, self._explored)
        if not len(fresh):
            return UserCandidates(numbers, sources, propensity)
        room = self._candidates_max - len(fresh)
        codes = np.full(len(fresh), FRESH, np.int8)
        return UserCandidates(
            np.concatenate([numbers[:room], fresh]), np.concatenate([sources[:room], codes]), propensity
        )
