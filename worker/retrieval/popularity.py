"""Popular and trending items, of all and by category, by people who visited them; a timer sweeps the items in turn.

A worker reads only some partitions, but the samples of people and the profile of an item have the visits of all, so all
workers get the same result. An item whose visits were folded before people were counted, as those of a history, is
ranked by the events in its profile, below all items with people.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.profiles.entity_updates import to_updates
from contract.profiles.record import AGGREGATE_COLUMNS
from contract.profiles.store import ProfileStore, fold
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.people.samples import PeopleStore
from worker.people.visits import BUYERS, HALF_LIFE_MS, PEOPLE
from worker.retrieval.kernels import top_per_group
from worker.rules.kind_rules import KindRules

POPULAR_MAX: Final = 200
PER_CATEGORY_MAX: Final = 50
SWEEP_MIN: Final = 500  # items of one sweep at least
SWEEP_SHARE: Final = 600  # a sweep covers at least 1/600 of all items: at one a second every item in ten minutes
HALF_LIFE_DAYS: Final = 1.0
UNCOUNTED_MAX: Final = 1e-3  # the weight of an item without people is below it
TRENDING_MIN: Final = 1e-3  # people, with decay
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
    """People who clicked or bought each item, with exponential decay; without `people` its clicks and orders."""

    def __init__(
        self,
        catalogue: Catalogue,
        purchase_value: float,
        people: PeopleStore | None = None,
        trending_half_life_ms: int = HALF_LIFE_MS,
    ) -> None:
        self._catalogue = catalogue
        self._purchase_value = purchase_value
        self._people, self._trending_half_life_ms = people, trending_half_life_ms
        self._weight = np.zeros(catalogue.items_max, np.float32)
        self._seed_weight = np.zeros(catalogue.items_max, np.float32)  # of the bundle: below the weight of any click
        # The logarithm of the people who visit an item at present: so that no passing of time changes the order, it is
        # the one that they would weigh at time 0.
        self._trend = np.full(catalogue.items_max, -np.inf, np.float64)
        self._now_ms = 0
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
        """Update the weights of some items as they are at `now_ms` (event time); raises `Unavailable`."""
        numbers, self._now_ms = self._next_sweep(), now_ms
        if len(numbers):
            items = self._catalogue.item_ids(numbers)
            weight = self._weigh_events(profiles, items, now_ms)
            if self._people:
                people = self._people.read(PEOPLE, items)
                buyers = self._people.read(BUYERS, items).weigh(now_ms, HALF_LIFE_MS)
                counted = people.weigh(now_ms, HALF_LIFE_MS) + self._purchase_value * buyers
                weight = np.where(people.has_people(), counted, UNCOUNTED_MAX * weight / (1 + weight))
                with np.errstate(divide="ignore"):
                    trend = np.log2(people.weigh(now_ms, self._trending_half_life_ms))
                self._trend[numbers] = trend + now_ms / self._trending_half_life_ms
            self._weight[numbers] = weight
            self._is_active[numbers] = False

    def rank(self, rules: KindRules | None = None) -> None:
        """Rank the items in stock that rules leave, of all and by category."""
        self.top, self.in_category = self.rank_items(rules)

    def rank_trending(self, rules: KindRules | None = None) -> PopularItems:
        """The items in stock that people visit and rules leave, of all and by category."""
        catalogue = self._catalogue
        count = len(catalogue)
        people = self.count_people(np.arange(count)).astype(np.float32)
        is_shown = catalogue.in_stock[:count] & (people >= TRENDING_MIN)
        if rules:
            people, is_shown = rules.weigh_items(people), is_shown & ~rules.is_excluded[:count]
        return self._select_best(people, is_shown)

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
        return self._select_best(weight, is_shown)

    def _select_best(self, weight: npt.NDArray[np.float32], is_shown: npt.NDArray[np.bool_]) -> PopularItems:
        catalogue, count = self._catalogue, len(weight)
        (top,) = top_per_group(weight, is_shown, np.zeros(count, np.int32), 1, POPULAR_MAX)
        in_category = top_per_group(
            weight, is_shown, catalogue.category[:count], len(catalogue.categories), PER_CATEGORY_MAX
        )
        return PopularItems(top[top >= 0], in_category)

    def count_people(self, numbers: ItemNumbers) -> npt.NDArray[np.float64]:
        """The people who visit these items at present, with the decay of trending items."""
        people: npt.NDArray[np.float64] = np.exp2(self._trend[numbers] - self._now_ms / self._trending_half_life_ms)
        return people

    def _weigh_events(self, profiles: ProfileStore, items: Sequence[str], now_ms: int) -> npt.NDArray[np.float64]:
        """The clicks and orders of items by their profiles, with decay."""
        entities = [f"item:{item}" for item in items]
        memory = fold(profiles.read(entities), to_updates([], extra_entities=entities))
        aggregates, _ = memory.read_at(entities, [now_ms] * len(entities))
        return self._weigh(aggregates)

    def _next_sweep(self) -> ItemNumbers:
        """The active items and the next ones in turn, one sweep in all."""
        count = len(self._catalogue)
        size = min(count, max(SWEEP_MIN, -(-count // SWEEP_SHARE)))
        active = np.flatnonzero(self._is_active[:count])[:size]
        in_turn = (self._sweep_start + np.arange(size - len(active))) % max(count, 1)
        self._sweep_start = (self._sweep_start + len(in_turn)) % max(count, 1)
        return np.unique(np.concatenate([active, in_turn])).astype(np.int64)

    def _weigh(self, aggregates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        total = np.zeros(len(aggregates))
        for family, value in (("clicks", 1.0), ("orders", self._purchase_value)):
            shorter = np.zeros(len(aggregates))
            for (window, _, _), weight in zip(SPANS, DECAY_WEIGHTS, strict=True):
                count = aggregates[:, AGGREGATE_COLUMNS[f"{family}.count_{window}"]]
                total += value * weight * np.maximum(count - shorter, 0)
                shorter = count
        return total
