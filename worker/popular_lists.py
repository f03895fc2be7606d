"""Popular lists in Redis, of all items and by category: what has changed is written, and by and by everything."""

from typing import Final

import numpy as np

from worker.caches import Caches
from worker.catalogue import Catalogue
from worker.item_index import Numbers
from worker.popularity import Popularity

ROUND: Final = 60  # writings in which every list comes once, changed or not: Redis may have lost it


class PopularLists:
    """Writes them in turns, told once a second. A shop has thousands of categories, of which few change in a second."""

    def __init__(self, *, caches: Caches, catalogue: Catalogue, popularity: Popularity, length: int) -> None:
        self._caches, self._catalogue, self._popularity, self._length = caches, catalogue, popularity, length
        self._written: Numbers = np.zeros((0, length), np.int64)
        self._turn = 0

    def write(self, now_ms: int) -> None:
        """Write what is due; raises `Unavailable`, and then it is due again."""
        popular = self._popular()
        changed = np.ones(len(popular), np.bool_)
        known = min(len(popular), len(self._written))
        changed[:known] = (popular[:known] != self._written[:known]).any(1)
        due = np.flatnonzero(changed | (np.arange(len(popular)) % ROUND == self._turn))
        had = np.zeros(len(popular), np.bool_)  # a list of ours; those of others, who may know more, are left alone
        had[:known] = (self._written[:known] >= 0).any(1)
        words, lists = self._catalogue.categories.words, dict[str, list[str]]()
        for code in due.tolist():
            items = self._catalogue.names(popular[code][popular[code] >= 0])
            if items or had[code]:
                lists[words[code]] = items
        self._caches.write_popular(lists, now_ms)
        self._written, self._turn = popular, (self._turn + 1) % ROUND

    def _popular(self) -> Numbers:
        """The popular items of each category (C, length), -1 behind the last; in the place of none those of all."""
        popularity, length = self._popularity, self._length
        found = np.full((len(popularity.in_category), length), -1, np.int64)
        width = min(length, popularity.in_category.shape[1])
        found[:, :width] = popularity.in_category[:, :width]
        top = popularity.top[:length]
        found[0, : len(top)], found[0, len(top) :] = top, -1
        return found
