"""Popular lists in Redis, of all items and by category: what has changed is written, and by and by everything."""

from typing import Final

import numpy as np

from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.retrieval.popularity import Popularity
from worker.state.answer_cache import AnswerCache

REWRITE_CYCLE: Final = 60  # writings in which every list comes once, changed or not: Redis may have lost it


class PopularListWriter:
    """Writes them in turns, told once a second. A shop has thousands of categories, of which few change in a second."""

    def __init__(self, *, answer_cache: AnswerCache, catalogue: Catalogue, popularity: Popularity, length: int) -> None:
        self._answer_cache, self._catalogue, self._popularity, self._length = (
            answer_cache,
            catalogue,
            popularity,
            length,
        )
        self._written: ItemNumbers = np.zeros((0, length), np.int64)
        self._turn = 0

    def write(self, now_ms: int) -> None:
        """Write what is due; raises `Unavailable`, and then it is due again."""
        popular = self._gather_popular()
        changed = np.ones(len(popular), np.bool_)
        known = min(len(popular), len(self._written))
        changed[:known] = (popular[:known] != self._written[:known]).any(1)
        due = np.flatnonzero(changed | (np.arange(len(popular)) % REWRITE_CYCLE == self._turn))
        was_written = np.zeros(
            len(popular), np.bool_
        )  # a list of ours; those of others, who may know more, are left alone
        was_written[:known] = (self._written[:known] >= 0).any(1)
        categories, lists = self._catalogue.categories.words, dict[str, list[str]]()
        for code in due.tolist():
            items = self._catalogue.item_ids(popular[code][popular[code] >= 0])
            if items or was_written[code]:
                lists[categories[code]] = items
        self._answer_cache.write_popular(lists, now_ms)
        self._written, self._turn = popular, (self._turn + 1) % REWRITE_CYCLE

    def _gather_popular(self) -> ItemNumbers:
        """The popular items of each category (C, length), -1 behind the last; in the place of none those of all."""
        popularity, length = self._popularity, self._length
        popular = np.full((len(popularity.in_category), length), -1, np.int64)
        width = min(length, popularity.in_category.shape[1])
        popular[:, :width] = popularity.in_category[:, :width]
        top = popularity.top[:length]
        popular[0, : len(top)], popular[0, len(top) :] = top, -1
        return popular
