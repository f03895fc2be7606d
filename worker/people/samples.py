"""Samples of the people who visited an item, and how many people they stand for.

A sample has the visits of highest rank, at most `SAMPLE_MAX`: of fewer people it has all. In a full one the lowest
visit is the threshold: each other person stands for 1 / p people, p being the probability to be above it (Horvitz and
Thompson 1952). So the weight of 100 people is exact, and that of more has a standard deviation below 10 %.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from contract.profiles.entity_updates import UpdateBatch
from worker.people.visits import HALF_LIFE_MS, SAMPLES, collect_visits, log_hash

SAMPLE_MAX: Final = 112  # visits; with a few more, before a sample is cut, Redis stores it in the compact form


class PeopleSamples(NamedTuple):
    """The visits of N items in all: the item of each (V,), the code of its person (V,) and its rank (V,)."""

    items: int
    item: npt.NDArray[np.int64]
    code: npt.NDArray[np.int64]
    rank: npt.NDArray[np.float64]

    def has_people(self) -> npt.NDArray[np.bool_]:
        """(N) Whether the item has a visit."""
        return np.bincount(self.item, minlength=self.items) > 0

    def weigh(self, now_ms: int, half_life_ms: int) -> npt.NDArray[np.float64]:
        """(N) The people, each with a weight that halves every `half_life_ms` since the latest visit."""
        is_full = np.bincount(self.item, minlength=self.items) >= SAMPLE_MAX
        lowest = np.full(self.items, np.inf)
        np.minimum.at(lowest, self.item, self.rank)
        threshold = np.where(is_full, lowest, -np.inf)[self.item]
        days = self.rank + log_hash(self.code)
        share = np.exp2(np.minimum(days - threshold, 0))  # the probability to be above the threshold
        ages = np.maximum(now_ms / HALF_LIFE_MS - days, 0) * (HALF_LIFE_MS / half_life_ms)
        weight = np.where(self.rank > threshold, np.exp2(-ages) / share, 0)
        people: npt.NDArray[np.float64] = np.bincount(self.item, weight, self.items).astype(np.float64)
        return people


class PeopleStore(Protocol):
    """Keeps the samples of items; implemented in memory and by `worker.people.redis_store`, under the same tests."""

    def agree(self) -> None:
        """Use the salt that all workers of the shop use; raises `Unavailable`."""

    def add(self, updates: UpdateBatch) -> None:
        """Add the visits of a batch. A batch may be added again, in part or in another order: it changes nothing."""

    def read(self, sample: int, items: Sequence[str]) -> PeopleSamples:
        """One sample (an index into `SAMPLES`) of each of these items."""


class InMemoryPeopleStore:
    """Samples in this process's memory: the reference for the Redis store in tests."""

    def __init__(self, salt: int = 0) -> None:
        self.salt = salt
        self._samples = [defaultdict[str, dict[int, float]](dict) for _ in SAMPLES]

    def agree(self) -> None:
        """Only this process uses them."""

    def add(self, updates: UpdateBatch) -> None:
        visits = collect_visits(updates, self.salt)
        for sample, item, code, rank in zip(
            visits.sample.tolist(), visits.item.tolist(), visits.code.tolist(), visits.rank.tolist(), strict=True
        ):
            ranks = self._samples[sample][visits.items[item]]
            ranks[code] = max(rank, ranks.get(code, rank))
            if len(ranks) > SAMPLE_MAX:
                del ranks[min(ranks, key=lambda code: (ranks[code], str(code)))]

    def read(self, sample: int, items: Sequence[str]) -> PeopleSamples:
        return to_samples([self._samples[sample].get(item, {}) for item in items])


def to_samples(ranks: Sequence[dict[int, float]]) -> PeopleSamples:
    """The samples of N items, given as the rank of each code."""
    return PeopleSamples(
        len(ranks),
        np.repeat(np.arange(len(ranks)), [len(own) for own in ranks]),
        np.array([code for own in ranks for code in own], np.int64),
        np.array([rank for own in ranks for rank in own.values()], np.float64),
    )
