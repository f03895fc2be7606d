"""Exploration: each list shows a few fresh items, which have no history yet.

They are sampled with a seed that a replay repeats, and each list states their probability, so that training can weight
examples by it (inverse propensity, Horvitz and Thompson 1952).
"""

from typing import Final

import numpy as np

from contract.settings.worker import ListSettings
from contract.units import DAY_MS
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.rules.kind_rules import KindRules

POOL_MAX: Final = 1_000
NO_ITEMS: Final[ItemNumbers] = np.zeros(0, np.int64)


class FreshItems:
    """The newest items in stock, and the probability of each to be on a list."""

    def __init__(self, catalogue: Catalogue, lists: ListSettings) -> None:
        self._catalogue = catalogue
        self._lists = lists
        self._pool: ItemNumbers = np.zeros(0, np.int64)

    @property
    def expected_count(self) -> float:
        """The mean number of fresh items on a list."""
        return self._lists.explore * self._lists.length

    def refresh(self, now_ms: int) -> None:
        """Find the items that are new at `now_ms` (event time), without those of the catalogue's first day."""
        count = len(self._catalogue)
        first_seen_ms = self._catalogue.first_seen_ms[:count]
        opened_ms = first_seen_ms.min() if count else 0
        is_new = first_seen_ms > max(now_ms - self._lists.fresh_days * DAY_MS, opened_ms + DAY_MS)
        new_items = np.flatnonzero(is_new & self._catalogue.in_stock[:count])
        if len(new_items) > POOL_MAX:  # select the newest before sorting
            oldest_ms = np.partition(first_seen_ms[new_items], -POOL_MAX)[-POOL_MAX]
            new_items = new_items[first_seen_ms[new_items] >= oldest_ms]
        self._pool = new_items[np.argsort(-first_seen_ms[new_items], kind="stable")][:POOL_MAX]

    def sample(
        self,
        candidates: ItemNumbers,
        hidden: tuple[ItemNumbers, ItemNumbers],
        seed: int,
        expected_count: float,
        rules: KindRules | None = None,
    ) -> tuple[ItemNumbers, float]:
        """Fresh items that rules leave, and the probability with which each was sampled.

        `hidden`: items, and categories, that are not for the user; candidates are left out too.
        """
        if not len(self._pool) or not expected_count > 0:
            return NO_ITEMS, 0.0
        pool = rules.thin_fresh(self._pool) if rules else self._pool
        pool = pool[~np.isin(pool, np.concatenate([candidates, hidden[0]]))]
        if len(hidden[1]):
            pool = pool[~np.isin(self._catalogue.category[pool], hidden[1])]
        if not len(pool):
            return NO_ITEMS, 0.0
        rng = np.random.default_rng(seed)
        count = min(int(expected_count) + int(rng.random() < expected_count % 1), len(pool))
        return rng.choice(pool, count, replace=False), min(expected_count / len(pool), 1.0)
