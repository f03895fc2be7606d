"""Popular items, of all and by category, from the profiles of items, which a timer sweeps in turn.

A worker reads only some partitions, but an item's profile has the events of all, so all workers get the same result.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.profiles.entity_updates import to_updates
from contract.profiles.record import AGGREGATE_COLUMNS
from contract.profiles.store import ProfileStore, fold
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.retrieval.kernels import top_per_group
from worker.rules.kind_rules import KindRules

POPULAR_MAX: Final = 200
PER_CATEGORY_MAX: Final = 50
SWEEP_MIN: Final = 500  # items of one sweep at least
SWEEP_SHARE: Final = 600  # a sweep covers at least 1/600 of all items: at one a second every item in ten minutes
HALF_LIFE_DAYS: Final = 1.0
SPANS: Final = (("1d", 0.0, 1.0), ("7d", 1.0, 7.0), ("30d", 7.0, 30.0))  # window, and the days beyond the shorter one


def mean_decay(span_days: tuple[float, float]) -> float:
    """The mean weight of events in a span of days ago; weights halve every `HALF_LIFE_DAYS`."""
    begin, end = (2.0 ** -(day / HALF_LIFE_DAYS) for day in span_days)
    return float((begin - end) * HALF_LIFE_DAYS / (math.log(2) * (span_days[1] - span_days[0])))


DECAY_WEIGHTS: Final = tuple(mean_decay((begin, end)) for _, begin, end in SPANS)


class PopularItems(NamedTuple):
    """Ranked items: of all (k,), and by category code (categories, k), -1 after the last; row 0 is no category."""

    top: ItemNumbers
    in_category: ItemNumbers


class Popularity:
    """Clicks and purchases of each item, with exponential decay."""

    def __init__(self, catalogue: Catalogue, purchase_value: float) -> None:
        self._catalogue = catalogue
        self._purchase_value = purchase_value
        self._weight = np.zeros(catalogue.items_max, np.float32)
        self._seed_weight = np.zeros(catalogue.items_max, np.float32)  # of the bundle: below the weight of any click
        self._is_active = np.zeros(catalogue.items_max, np.bool_)
        self._sweep_start = 0
        self.top: ItemNumbers = np.zeros(0, np.int64)
        # (categories, k), -1 after the last item
        self.in_category: ItemNumbers = np.full((1, PER_CATEGORY_MAX), -1, np.int64)

    def mark_active(self, numbers: ItemNumbers) -> None:
        """Let the next sweep begin with these items, because they were clicked or bought."""
        self._is_active[numbers[numbers >= 0]] = True

    def seed(self, numbers: ItemNumbers) -> None:
        """Set the bundle's popular items, best first; they rank below all items with clicks or purchases."""
        self._seed_weight[:] = 0
        known = numbers[numbers >= 0]
        self._seed_weight[known] = 1e-6 / (1 + np.arange(len(known), dtype=np.float32))

    def sweep(self, profiles: ProfileStore, now_ms: int) -> None:
        """Update the weights of some items from their profiles at `now_ms` (event time); raises `Unavailable`."""
        numbers = self._next_sweep()
        if len(numbers):
            entities = [f"item:{name}" for name in self._catalogue.item_ids(numbers)]
            memory = fold(profiles.read(entities), to_updates([], extra_entities=entities))
            aggregates, _ = memory.read_at(entities, [now_ms] * len(entities))
            self._weight[numbers] = self._weigh(aggregates)
            self._is_active[numbers] = False

    def rank(self, rules: KindRules | None = None) -> None:
        """Rank the items in stock that rules leave, of all and by category."""
        self.top, self.in_category = self.rank_items(rules)

    def rank_items(self, rules: KindRules | None, *, weighs_rules: bool = False) -> PopularItems:
        """The ranked items; `weighs_rules`: with what rules boost and bury."""
        catalogue = self._catalogue
        count = len(catalogue)
        weight = self._weight[:count] + self._seed_weight[:count]
        if rules and weighs_rules:
            weight = rules.weigh_items(weight)
        is_shown = catalogue.in_stock[:count]
        if rules:
            is_shown = is_shown & ~rules.is_excluded[:count]
        (top,) = top_per_group(weight, is_shown, np.zeros(count, np.int32), 1, POPULAR_MAX)
        in_category = top_per_group(
            weight, is_shown, catalogue.category[:count], len(catalogue.categories), PER_CATEGORY_MAX
        )
        return PopularItems(top[top >= 0], in_category)

    def _next_sweep(self) -> ItemNumbers:
        """The active items and the next ones in turn, one sweep in all."""
        count = len(self._catalogue)
        size = min(count, max(SWEEP_MIN, -(-count // SWEEP_SHARE)))
        active = np.flatnonzero(self._is_active[:count])[:size]
        in_turn = (self._sweep_start + np.arange(size - len(active))) % max(count, 1)
        self._sweep_start = (self._sweep_start + len(in_turn)) % max(count, 1)
        return np.unique(np.concatenate([active, in_turn])).astype(np.int64)

    def _weigh(self, aggregates: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        total = np.zeros(len(aggregates))
        for family, value in (("clicks", 1.0), ("orders", self._purchase_value)):
            shorter = np.zeros(len(aggregates))
            for (window, _, _), weight in zip(SPANS, DECAY_WEIGHTS, strict=True):
                count = aggregates[:, AGGREGATE_COLUMNS[f"{family}.count_{window}"]]
                total += value * weight * np.maximum(count - shorter, 0)
                shorter = count
        return total.astype(np.float32)
