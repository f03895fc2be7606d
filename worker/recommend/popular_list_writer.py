"""Writes changed popular lists, of all items and by category, to Redis, and rewrites every list in a cycle."""

from typing import Final

import numpy as np

from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.retrieval.popularity import Popularity
from worker.state.answer_cache import AnswerCache

REWRITE_CYCLE: Final = 60  # calls in which every list is written once, changed or not, because Redis may have lost it


class PopularListWriter:
    """Writes the lists that are due, once a second: few of a shop's thousands of categories change in a second."""

    def __init__(self, *, answer_cache: AnswerCache, catalogue: Catalogue, popularity: Popularity, length: int) -> None:
        self._answer_cache = answer_cache
        self._catalogue = catalogue
        self._popularity = popularity
        self._length = length
        self._written: ItemNumbers = np.zeros((0, length), np.int64)
        self._turn = 0

    def write(self, now_ms: int) -> None:
        """Write the lists that are due; after `Unavailable` they are due again."""
        popular = self._gather_popular()
        changed = np.ones(len(popular), np.bool_)
        known = min(len(popular), len(self._written))
        changed[:known] = (popular[:known] != self._written[:known]).any(1)
        due = np.flatnonzero(changed | (np.arange(len(popular)) % REWRITE_CYCLE == self._turn))
        # An empty list is written only over one of this worker: other workers may know items of the category.
        was_written = np.zeros(len(popular), np.bool_)
        was_written[:known] = (self._written[:known] >= 0).any(1)
        categories = self._catalogue.categories.words
        lists: dict[str, list[str]] = {}
        for code in due.tolist():
            items = self._catalogue.item_ids(popular[code][popular[code] >= 0])
            if items or was_written[code]:
                lists[categories[code]] = items
        self._answer_cache.write_popular(lists, now_ms)
        self._written = popular
        self._turn = (self._turn + 1) % REWRITE_CYCLE

    def _gather_popular(self) -> ItemNumbers:
        """Popular items by category code (C, length), -1 after the last; row 0 (no category) has those of all items."""
        popularity = self._popularity
        length = self._length
        popular = np.full((len(popularity.in_category), length), -1, np.int64)
        width = min(length, popularity.in_category.shape[1])
        popular[:, :width] = popularity.in_category[:, :width]
        top = popularity.top[:length]
        popular[0, : len(top)] = top
        popular[0, len(top) :] = -1
        return popular
