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
from worker.retrieval.exploration import NO_ITEMS, FreshItems
from worker.retrieval.kernels import FRESH, RULE, CandidateSources, concatenate_lists, find_distinct, select_candidates
from worker.retrieval.next_item import NextItemSource, RetrievedItems
from worker.retrieval.popularity import Popularity
from worker.rules.hiding import Hidden
from worker.rules.kind_rules import KindRules

RECENT_MAX: Final = 8  # latest distinct items whose co-visits and categories count, and which are candidates themselves
CATEGORIES_MAX: Final = 3  # categories of a user's recent items whose popular items are candidates
PER_CATEGORY_MAX: Final = 10


class UserCandidates(NamedTuple):
    """The candidates of one user: catalogue numbers (P,), source codes (P,), and the propensity of a fresh item.

    `scores` (P,): by the bundle's ranker, None without one. `pinned`: those that rules pin.
    """

    numbers: ItemNumbers
    sources: npt.NDArray[np.int8]
    propensity: float
    scores: npt.NDArray[np.float32] | None = None
    pinned: ItemNumbers = NO_ITEMS


class CandidateGenerator:
    """Candidates are neighbours of the user's items, these items, and popular items of their categories and all.

    With a next-item part in the bundle, they are items near the user's vector too, and its ranker scores them. Items
    that are sold out, delisted, excluded or hidden are left out. Pinned items are candidates. A few fresh items come
    last, for the list to explore. While rules are suspended all candidates are popular items.
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
        self._no_exclusion = np.zeros(catalogue.items_max, np.bool_)

    def vary(self, lists: ListSettings, next_item: NextItemSource | None = None) -> "CandidateGenerator":
        """Candidates as many and with as many fresh items as these settings say, from this next-item part."""
        varied = copy(self)
        varied._candidates_max, varied._explored = lists.candidates, lists.explore * lists.length
        varied._length, varied._next_item = lists.length, next_item
        return varied

    def generate(
        self,
        histories: LatestItems,
        hidden: Hidden,
        seeds: Sequence[int],
        now_ms: npt.NDArray[np.int64],
        rules: KindRules | None = None,
    ) -> list[UserCandidates]:
        """Candidates for U users with these histories at `now_ms` (U,), in event time.

        `seeds`: for the sample of each user's fresh items.
        """
        hidden_items, starts = concatenate_lists(hidden.items)
        retrieved = None
        is_suspended = rules is not None and bool(rules.suspended)
        if self._next_item and not is_suspended:
            retrieved = self._next_item.retrieve(histories, now_ms, hidden_items, starts, self._candidates_max)
        recent = self._catalogue.find_hashes(find_distinct(histories.items, RECENT_MAX))
        if is_suspended:
            recent = np.full_like(recent, -1)
        sources = self._collect_sources(recent, retrieved, rules)
        ragged = (hidden_items, starts, *concatenate_lists(hidden.categories))
        numbers, codes, counts = select_candidates(recent, sources, ragged, self._candidates_max)
        pinned = rules.find_pinned(self._length) if rules else NO_ITEMS
        candidates = list[UserCandidates]()
        for u, count in enumerate(counts.tolist()):
            user_hidden = hidden.items[u], hidden.categories[u]
            selected = UserCandidates(numbers[u, :count], codes[u, :count], 0.0)
            if len(pinned):
                selected = self._append_pinned(selected, pinned, user_hidden)
            candidates.append(self._append_fresh(selected, user_hidden, seeds[u], rules))
        return self._score(self._next_item, retrieved, candidates) if self._next_item and retrieved else candidates

    def _collect_sources(
        self, recent: ItemNumbers, retrieved: RetrievedItems | None, rules: KindRules | None
    ) -> CandidateSources:
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
            is_excluded=rules.is_excluded if rules else self._no_exclusion,
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

    def _append_pinned(
        self, candidates: UserCandidates, pinned: ItemNumbers, hidden: tuple[ItemNumbers, ItemNumbers]
    ) -> UserCandidates:
        """The candidates with the pinned items that are not hidden, followed by those that no source gave."""
        if len(hidden[0]):
            pinned = pinned[~np.isin(pinned, hidden[0])]
        if len(hidden[1]):
            pinned = pinned[~np.isin(self._catalogue.category[pinned], hidden[1])]
        is_new = [not (candidates.numbers == number).any() for number in pinned.tolist()]
        if not any(is_new):
            return candidates._replace(pinned=pinned)
        added = pinned[is_new]
        return candidates._replace(
            numbers=np.concatenate([candidates.numbers, added]),
            sources=np.concatenate([candidates.sources, np.full(len(added), RULE, np.int8)]),
            pinned=pinned,
        )

    def _append_fresh(
        self, candidates: UserCandidates, hidden: tuple[ItemNumbers, ItemNumbers], seed: int, rules: KindRules | None
    ) -> UserCandidates:
        """The candidates followed by fresh items, which replace the last candidates beyond the limit."""
        numbers, sources, pinned = candidates.numbers, candidates.sources, candidates.pinned
        count = min(self._explored, self._length - len(pinned)) if len(pinned) else self._explored
        fresh, propensity = self._fresh_items.sample(numbers, hidden, seed, count, rules)
        if not len(fresh):
            return candidates
        is_kept = np.arange(len(numbers)) < self._candidates_max - len(fresh)
        if len(pinned):
            is_kept |= np.isin(numbers, pinned)
        codes = np.full(len(fresh), FRESH, np.int8)
        return candidates._replace(
            numbers=np.concatenate([numbers[is_kept], fresh]),
            sources=np.concatenate([sources[is_kept], codes]),
            propensity=propensity,
        )
