"""Generates candidates: the items that may be recommended to a user, before the model ranks them."""

from collections.abc import Sequence
from copy import copy
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.profiles.histories import LatestItems
from contract.settings.worker import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.retrieval.co_visitation import ItemNeighbours, concatenate
from worker.retrieval.exploration import FreshItems
from worker.retrieval.kernels import FRESH, CandidateSources, concatenate_lists, find_distinct, select_candidates
from worker.retrieval.next_item import NextItemSource, RetrievedItems
from worker.retrieval.popularity import Popularity

RECENT_MAX: Final = 8  # latest distinct items whose co-visits and categories count, and which are candidates themselves
CATEGORIES_MAX: Final = 3  # categories of a user's recent items whose popular items are candidates
PER_CATEGORY_MAX: Final = 10


class UserCandidates(NamedTuple):
    """The candidates of one user: catalogue numbers (P,), source codes (P,), and the propensity of a fresh item.

    `scores` (P,): by the bundle's ranker, None without one.
    """

    numbers: ItemNumbers
    sources: npt.NDArray[np.int8]
    propensity: float
    scores: npt.NDArray[np.float32] | None = None


class CandidateGenerator:
    """Candidates are neighbours of the user's items, these items, and popular items of their categories and all.

    With a next-item part in the bundle, they are items near the user's vector too, and its ranker scores them. Items
    that are sold out, delisted or just bought are excluded. A few fresh items come last, for the list to explore.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        neighbours: ItemNeighbours,
        popularity: Popularity,
        fresh_items: FreshItems,
        candidates_max: int,
        length: int = 0,
        next_item: NextItemSource | None = None,
    ) -> None:
        """`length`: of a list, which has popular items where others do not fill it."""
        self._catalogue = catalogue
        self._neighbours = neighbours
        self._popularity = popularity
        self._fresh_items = fresh_items
        self._candidates_max = candidates_max
        self._length = length
        self._next_item = next_item
        self._explored = fresh_items.expected_count

    def vary(self, lists: ListSettings, next_item: NextItemSource | None = None) -> "CandidateGenerator":
        """Candidates as many and with as many fresh items as these settings say, from this next-item part."""
        varied = copy(self)
        varied._candidates_max, varied._explored = lists.candidates, lists.explore * lists.length
        varied._length, varied._next_item = lists.length, next_item
        return varied

    def generate(
        self,
        histories: LatestItems,
        bought: Sequence[ItemNumbers],
        seeds: Sequence[int],
        now_ms: npt.NDArray[np.int64],
    ) -> list[UserCandidates]:
        """Candidates for U users with these histories at `now_ms` (U,), in event time.

        `bought`: the items that each user has just bought. `seeds`: for the sample of each user's fresh items.
        """
        excluded, starts = concatenate_lists(list(bought))
        retrieved = None
        if self._next_item:
            retrieved = self._next_item.retrieve(histories, now_ms, excluded, starts, self._candidates_max)
        recent = self._catalogue.find_hashes(find_distinct(histories.items, RECENT_MAX))
        sources = self._collect_sources(recent, retrieved)
        numbers, codes, counts = select_candidates(recent, sources, excluded, starts, self._candidates_max)
        candidates = [
            self._append_fresh(numbers[u, :count], codes[u, :count], bought[u], seeds[u])
            for u, count in enumerate(counts.tolist())
        ]
        return self._score(self._next_item, retrieved, candidates) if self._next_item and retrieved else candidates

    def _collect_sources(self, recent: ItemNumbers, retrieved: RetrievedItems | None) -> CandidateSources:
        count_max = self._candidates_max
        if retrieved:
            neighbours = concatenate([retrieved.neighbours, self._neighbours.co_visited_with(recent)])
            others, nearest = retrieved.other_neighbours, retrieved.nearest
            neighbours_max, fill_max = nearest.shape[1], max(self._length, count_max // 2)
        else:
            neighbours = self._neighbours.neighbours_of(recent)
            others = nearest = np.zeros((len(recent), 0), np.int64)
            neighbours_max = fill_max = count_max
        return CandidateSources(
            neighbours=neighbours.numbers,
            neighbour_weights=neighbours.weights,
            other_neighbours=others,
            nearest=nearest,
            popular=self._popularity.top,
            popular_by_category=self._popularity.in_category[:, :PER_CATEGORY_MAX],
            item_category=self._catalogue.category,
            in_stock=self._catalogue.in_stock,
            categories_max=CATEGORIES_MAX,
            neighbours_max=neighbours_max,
            fill_max=fill_max,
        )

    def _score(
        self, next_item: NextItemSource, retrieved: RetrievedItems, candidates: Sequence[UserCandidates]
    ) -> list[UserCandidates]:
        """The candidates with the ranker's scores, those of all users in one run."""
        numbers, starts = concatenate_lists([user_candidates.numbers for user_candidates in candidates])
        scores = next_item.rank(retrieved, numbers, starts)
        spans = zip(candidates, starts.tolist(), starts[1:].tolist(), strict=False)
        return [user_candidates._replace(scores=scores[begin:end]) for user_candidates, begin, end in spans]

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
