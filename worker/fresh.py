"""Fresh items: new ones that nobody's history speaks for yet, of which each list shows a few to find out.

Which ones is chance, by a seed that a replay repeats, and the chance of each is told with it: whoever learns from what
was shown can weigh by it (inverse propensity, Horvitz and Thompson 1952).
"""

from typing import Final

import numpy as np

from contract.settings import Lists
from worker.catalogue import Catalogue
from worker.item_index import Numbers

POOL: Final = 1_000
DAY_MS: Final = 86_400_000
NONE: Final[Numbers] = np.zeros(0, np.int64)


class Fresh:
    """The newest items that can be had, and the chance of each to be on a list."""

    def __init__(self, catalogue: Catalogue, lists: Lists) -> None:
        self._catalogue, self._lists = catalogue, lists
        self._pool: Numbers = np.zeros(0, np.int64)

    def refresh(self, now_ms: int) -> None:
        """Look which items are new at `now_ms`, in the streams' own time; those of a shop's first day are not."""
        count = len(self._catalogue)
        since = self._catalogue.since_ms[:count]
        first = since.min() if count else 0
        new = (since > max(now_ms - self._lists.fresh_days * DAY_MS, first + DAY_MS)) & self._catalogue.sold[:count]
        found = np.flatnonzero(new)
        if len(found) > POOL:  # the newest, without putting all others in order too
            least = np.partition(since[found], -POOL)[-POOL]
            found = found[since[found] >= least]
        self._pool = found[np.argsort(-since[found], kind="stable")][:POOL]

    def choose(self, taken: Numbers, bought: Numbers, seed: int) -> tuple[Numbers, float]:
        """Some fresh items besides those `taken` and `bought`, and the chance that each of them had."""
        wanted = self._lists.explore * self._lists.length
        if not len(self._pool) or not wanted:
            return NONE, 0.0
        pool = self._pool[~np.isin(self._pool, np.concatenate([taken, bought]))]
        if not len(pool):
            return NONE, 0.0
        chance = np.random.default_rng(seed)
        places = min(int(wanted) + int(chance.random() < wanted % 1), len(pool))
        return chance.choice(pool, places, replace=False), min(wanted / len(pool), 1.0)
