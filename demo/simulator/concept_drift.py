"""Optional concept drift of the simulated shop; without it every day has the same distribution.

The appeal of categories, brands and kinds of items follows mean-reverting random processes (Ornstein-Uhlenbeck), one
step per hour. Each day new items replace old ones, prices change and some users change their favourite category; every
`PATTERN_DAYS` new fraud rings change their pattern.
"""

import math
import random
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from typing import Final, cast

import msgspec

from demo.simulator.catalogue import NOUNS, Item, ItemCatalogue, make_item
from demo.simulator.fraud_rings import FraudPattern
from demo.simulator.records import SourceRecord
from demo.simulator.users import User

FASHION_DECAY_H: Final = 24.0  # time constant: a fashion decays to 1/e of its value
FASHION_DEVIATION: Final = {"category": 0.8, "brand": 1.0, "noun": 1.0}  # standard deviations of log appeal
NEW_SHARE: Final = 0.05  # of the items, each day
PRICED_SHARE: Final = 0.1
PREFERENCES_SHARE: Final = 0.08
PATTERN_DAYS: Final = 1.5


class ConceptDrift:
    """Changes the catalogue and the users once an hour after `start_days`; `pattern` is that of new fraud rings."""

    def __init__(self, *, seed: int, start_days: float) -> None:
        self.start_days, self.pattern = start_days, FraudPattern()
        self._rng = random.Random(seed)
        self._fashion_by_word: dict[str, float] = {}
        self._base_appeal: dict[str, float] = {}  # appeal of items without fashions
        self._launched = self._hours = 0
        self._mean_appeal = 0.0

    def step_hour(self, catalogue: ItemCatalogue, users: Sequence[User], ts_ms: int) -> list[SourceRecord]:
        """Apply one hour of drift; returns the records of new and changed products."""
        changed_items = self._step_day(catalogue, users, ts_ms) if self._hours % 24 == 0 else []
        self._hours += 1
        self._update_fashion(catalogue)
        return [SourceRecord("products", item.item_id, item.product, ts_ms) for item in changed_items]

    def _update_fashion(self, catalogue: ItemCatalogue) -> None:
        decay = math.exp(-1 / FASHION_DECAY_H)
        for kind, deviation in FASHION_DEVIATION.items():
            for word in sorted({fashion_words(item)[kind] for item in catalogue.items}):
                noise = self._rng.gauss(0, deviation * math.sqrt(1 - decay**2))
                self._fashion_by_word[word] = decay * self._fashion_by_word.get(word, 0.0) + noise
        shown_items = [self._apply_fashion(item) for item in catalogue.items]
        if not self._mean_appeal:
            self._mean_appeal = mean_shown_appeal(catalogue.items)
        mean_appeal = mean_shown_appeal(shown_items)
        catalogue.set_items(
            [replace(item, appeal=item.appeal * self._mean_appeal / mean_appeal) for item in shown_items]
        )

    def _apply_fashion(self, item: Item) -> Item:
        base_appeal = self._base_appeal.setdefault(item.item_id, item.appeal)
        log_factor = sum(self._fashion_by_word[word] for word in fashion_words(item).values())
        return replace(item, appeal=base_appeal * math.exp(log_factor))

    def _step_day(self, catalogue: ItemCatalogue, users: Sequence[User], ts_ms: int) -> list[Item]:
        """Apply the daily changes; returns the new and repriced items."""
        for user in users:
            if self._rng.random() < PREFERENCES_SHARE:
                self._swap_favourite(cast(MutableMapping[str, float], user.preferences))
        if self._hours and self._hours % (24 * PATTERN_DAYS) == 0:
            self.pattern = self._draw_pattern()
        items, rng = list(catalogue.items), self._rng
        for index in rng.sample(range(len(items)), int(PRICED_SHARE * len(items))):
            items[index] = reprice(items[index], rng.lognormvariate(0.0, 0.3), ts_ms)
        priced = [item for item, before in zip(items, catalogue.items, strict=True) if item is not before]
        launched = [self._make_new_item(ts_ms) for _ in range(int(NEW_SHARE * len(items)))]
        removed = set(rng.sample(range(len(items)), len(launched)))
        catalogue.set_items([item for index, item in enumerate(items) if index not in removed] + launched)
        return priced + launched

    def _make_new_item(self, ts_ms: int) -> Item:
        self._launched += 1
        category = self._rng.choice(list(NOUNS))
        return make_item(self._rng, 9_000_000 + self._launched, category, ts_ms)

    def _swap_favourite(self, preferences: MutableMapping[str, float]) -> None:
        """Swap the favourite category with a random one."""
        best, new = max(preferences, key=lambda category: preferences[category]), self._rng.choice(list(preferences))
        preferences[best], preferences[new] = preferences[new], preferences[best]

    def _draw_pattern(self) -> FraudPattern:
        rng = self._rng
        return FraudPattern(
            expensive_items=rng.random() < 0.5,
            payment_method=rng.choice(("card", "wallet", "transfer")),
            abroad_share=rng.uniform(0.0, 0.8),
            account_days=rng.choice((20.0, 60.0, 300.0)),
        )


def mean_shown_appeal(items: Sequence[Item]) -> float:
    """Mean appeal of shown items, which are drawn in proportion to appeal; held constant, so that only ratios drift."""
    return sum(item.appeal**2 for item in items) / sum(item.appeal for item in items)


def fashion_words(item: Item) -> dict[str, str]:
    """The words whose fashions multiply the appeal of an item."""
    brand, *_, noun = item.product.title.split()
    return {"category": item.category, "brand": brand, "noun": noun}


def reprice(item: Item, factor: float, ts_ms: int) -> Item:
    product = item.product
    price = max(0.5, round(product.price * factor, 2))
    event_id = f"{product.event_id}.{ts_ms}"
    return replace(item, product=msgspec.structs.replace(product, price=price, ts_ms=ts_ms, event_id=event_id))
