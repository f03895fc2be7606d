"""Writes changed popular lists, of all items and by category, to Redis, and rewrites every list in a cycle."""

import numpy as np

from contract.features.declaration import FeatureSet
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.recommend.due_lists import DueLists, join_tables
from worker.recommend.ranked_lists import falling_values
from worker.retrieval.popularity import Popularity
from worker.rules.item_selection import Mask
from worker.rules.kind_rules import KindRules
from worker.rules.list_rules import ListRules
from worker.state.answer_cache import AnswerCache


class PopularListWriter:
    """Writes the lists that are due, once a second: few of a shop's thousands of categories change in a second."""

    def __init__(
        self,
        *,
        answer_cache: AnswerCache,
        catalogue: Catalogue,
        popularity: Popularity,
        length: int,
        rules: ListRules | None = None,
    ) -> None:
        self._answer_cache = answer_cache
        self._catalogue = catalogue
        self._popularity = popularity
        self._length = length
        self._rules = rules or ListRules(catalogue, FeatureSet(()))
        self._written_by: KindRules | None = None
        self._due = DueLists(length)

    def write(self, now_ms: int) -> None:
        """Write the lists that are due; after `Unavailable` they are due again."""
        rules = self._rules.of("popular")
        popular, names = self._gather_popular(rules)
        due, was_filled = self._due.find(popular, all_changed=rules is not self._written_by)
        is_deleted = self._find_emptied(rules, was_filled)
        categories = self._catalogue.categories.words
        lists, list_names = dict[str, list[str]](), dict[str, dict[str, str]]()
        for code in due.tolist():
            numbers = popular[code][popular[code] >= 0]
            items = self._catalogue.item_ids(numbers)
            if items or is_deleted[code]:
                lists[categories[code]] = items
                if named := {item: names[n] for item, n in zip(items, numbers.tolist(), strict=True) if n in names}:
                    list_names[categories[code]] = named
        self._answer_cache.write_popular(lists, now_ms, list_names)
        self._due.record(popular)
        self._written_by = rules

    def _find_emptied(self, rules: KindRules, was_filled: Mask) -> Mask:
        """The lists (C,) that are deleted if they are empty: those of this worker, and those that rules empty.

        Other workers may know items of the other categories.
        """
        is_deleted = was_filled.copy()
        if rules.removes:
            is_excluded = rules.is_excluded[: len(self._catalogue)]
            is_deleted[np.unique(self._catalogue.category[: len(self._catalogue)][is_excluded])] = True
            is_deleted[0] |= bool(is_excluded.any())
        return is_deleted

    def _gather_popular(self, rules: KindRules) -> tuple[ItemNumbers, dict[int, str]]:
        """Popular items by category code (C, length), -1 after the last; row 0 (no category) has those of all items.

        By item the names of the rules that put it where it is.
        """
        if not self._rules.file:
            return join_tables(self._popularity.top, self._popularity.in_category, self._length), {}
        top, in_category = self._popularity.rank_items(rules, weighs_rules=True)
        popular, names = np.full((len(in_category), self._length), -1, np.int64), dict[int, str]()
        for code, row in enumerate([top, *in_category[1:]]):
            arranged, named = self._arrange(rules, code, row[row >= 0])
            popular[code, : len(arranged)] = arranged
            names |= named
        return popular, names

    def _arrange(self, rules: KindRules, code: int, numbers: ItemNumbers) -> tuple[ItemNumbers, dict[int, str]]:
        """The list of a category, 0 for that of all items, and the names of rules by item."""
        pinned = rules.find_pinned(self._length)
        if code:
            pinned = pinned[self._catalogue.category[pinned] == code]
        candidates = np.concatenate([numbers, pinned[~np.isin(pinned, numbers)]])
        arranged = rules.arrange(
            candidates, falling_values(len(candidates)), self._length, pinned=pinned, is_one_category=code > 0
        )
        on_list = candidates[arranged.indexes]
        return on_list, {int(candidates[n]): name for n, name in arranged.rules.items() if n in arranged.indexes}
