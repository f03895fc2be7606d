"""Fresh items: new ones that nobody's history speaks for yet, of which each list shows a few to find out.

Which ones is chance, by a seed that a replay repeats, and the chance of each is told with it: whoever learns from what
was shown can weigh by it (inverse propensity, Horvitz and Thompson 1952).
"""

from typing import Final

import numpy as np

from contract.settings import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers

POOL_MAX: Final = 1_000
DAY_MS: Final = 86_400_000
NO_ITEMS: Final[ItemNumbers] = np.zeros(0, np.int64)


class FreshItems:
    """The newest items that can be had, and the chance of each to be on a list."""

    def __init__(self, catalogue: Catalogue, lists: ListSettings) -> None:
        self._catalogue, self._lists = catalogue, lists
        self._pool: ItemNumbers = np.zeros(0, np.int64)

    def refresh(self, now_ms: int) -> None:
        """Look which items are new at `now_ms`, in the streams' own time; those of a shop's first day are not."""
        count = len(self._catalogue)
        first_seen_ms = self._catalogue.first_seen_ms[:count]
        first = first_seen_ms.min() if count else 0
        is_new = (
            first_seen_ms > max(now_ms - self._lists.fresh_days * DAY_MS, first + DAY_MS)
        ) & self._catalogue.in_stock[:count]
        new_items = np.flatnonzero(is_new)
        if len(new_items) > POOL_MAX:  # the newest, without putting all others in order too
            least = np.partition(first_seen_ms[new_items], -POOL_MAX)[-POOL_MAX]
            new_items = new_items[first_seen_ms[new_items] >= least]
        self._pool = new_items[np.argsort(-first_seen_ms[new_items], kind="stable")][:POOL_MAX]

    def sample(self, candidates: ItemNumbers, bought: ItemNumbers, seed: int) -> tuple[ItemNumbers, float]:
        """Some fresh items besides those `taken` and `bought`, and the chance that each of them had."""
        wanted = self._lists.explore * self._lists.length
        if not len(self._pool) or not wanted:
            return NO_ITEMS, 0.0
        pool = self._pool[~np.isin(self._pool, np.concatenate([candidates, bought]))]
        if not len(pool):
            return NO_ITEMS, 0.0
        rng = np.random.default_rng(seed)
        count = min(int(wanted) + int(rng.random() < wanted % 1), len(pool))
        return rng.choice(pool, count, replace=False), min(wanted / len(pool), 1.0)
