"""What is popular now, of all items and by category: from the profiles of items, looked at by the clock.

A worker reads only some partitions, but an item's profile knows what all of them have seen: all workers say the same.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.features import AGGREGATE_AT
from contract.memory import Profiles, fold
from contract.touches import columns
from worker.catalogue import Catalogue
from worker.drawing import best
from worker.item_index import Numbers

POPULAR: Final = 200
OF_CATEGORY: Final = 50
SWEEP_LEAST: Final = 500  # items that are looked at in one go, those that were touched first
SWEEP_SHARE: Final = 600  # and at least this part of all: with one look a second, every item every ten minutes
HALF_LIFE_DAYS: Final = 1.0
SPANS: Final = (("1d", 0.0, 1.0), ("7d", 1.0, 7.0), ("30d", 7.0, 30.0))  # a window, and the days it adds to the former


def faded(days: tuple[float, float]) -> float:
    """The mean weight of what happened between so many days ago, halved each `HALF_LIFE_DAYS`."""
    begin, end = (2.0 ** -(day / HALF_LIFE_DAYS) for day in days)
    return float((begin - end) * HALF_LIFE_DAYS / (math.log(2) * (days[1] - days[0])))


FADED: Final = tuple(faded((begin, end)) for _, begin, end in SPANS)


class Popularity:
    """How much each item is clicked and bought, halved by each day that passes."""

    def __init__(self, catalogue: Catalogue, purchase_value: float) -> None:
        self._catalogue, self._purchase_value = catalogue, purchase_value
        self._weight = np.zeros(catalogue.items_max, np.float32)
        self._start = np.zeros(catalogue.items_max, np.float32)  # popular elsewhere: below everything that is seen here
        self._touched = np.zeros(catalogue.items_max, np.bool_)
        self._next = 0
        self.top: Numbers = np.zeros(0, np.int64)
        self.in_category: Numbers = np.zeros((1, OF_CATEGORY), np.int64) - 1  # (categories, k), -1 behind the last

    def touch(self, numbers: Numbers) -> None:
        """These items were clicked or bought: they are looked at first."""
        self._touched[numbers[numbers >= 0]] = True

    def begin_with(self, numbers: Numbers) -> None:
        """Popular items from elsewhere, the most popular first, for as long as there are few of our own."""
        self._start[:] = 0
        known = numbers[numbers >= 0]
        self._start[known] = 1e-6 / (1 + np.arange(len(known), dtype=np.float32))

    def look(self, profiles: Profiles, now_ms: int) -> None:
        """Ask some items' profiles how they do at `now_ms`, in the streams' own time; raises `Unavailable`."""
        numbers = self._due()
        if len(numbers):
            entities = [f"item:{name}" for name in self._catalogue.names(numbers)]
            memory = fold(profiles.read(entities), columns([], watched=entities))
            aggregates, _ = memory.look(entities, [now_ms] * len(entities))
            self._weight[numbers] = self._weigh(aggregates)
            self._touched[numbers] = False

    def rank(self) -> None:
        """Put in order what is popular and can be had, of all and by category."""
        count, catalogue = len(self._catalogue), self._catalogue
        weight, sold = self._weight[:count] + self._start[:count], catalogue.sold[:count]
        (top,) = best(weight, sold, np.zeros(count, np.int32), 1, POPULAR)
        self.top = top[top >= 0]
        self.in_category = best(weight, sold, catalogue.category[:count], len(catalogue.categories), OF_CATEGORY)

    @property
    def by_category(self) -> dict[int, Numbers]:
        """Popular items by the category's code, of those that have any."""
        found = {code: row[row >= 0] for code, row in enumerate(self.in_category)}
        return {code: row for code, row in found.items() if code and len(row)}

    def _due(self) -> Numbers:
        """The touched items and the next of the round, at most one sweep."""
        count = len(self._catalogue)
        size = min(count, max(SWEEP_LEAST, -(-count // SWEEP_SHARE)))
        touched = np.flatnonzero(self._touched[:count])[:size]
        round_ = (self._next + np.arange(size - len(touched))) % max(count, 1)
        self._next = (self._next + len(round_)) % max(count, 1)
        return np.unique(np.concatenate([touched, round_])).astype(np.int64)

    def _weigh(self, aggregates: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        total = np.zeros(len(aggregates))
        for family, value in (("clicks", 1.0), ("orders", self._purchase_value)):
            before = np.zeros(len(aggregates))
            for (window, _, _), weight in zip(SPANS, FADED, strict=True):
                count = aggregates[:, AGGREGATE_AT[f"{family}.count_{window}"]]
                total += value * weight * np.maximum(count - before, 0)
                before = count
        return total.astype(np.float32)
