"""Drift: how the world of the simulated shop changes, if it is asked to; without one every day is like the others.

Fashions come and go within half a day: categories, brands and kinds of items appeal more or less, each by a random
process that is drawn back to how it was (Ornstein and Uhlenbeck). Each day new items take the place of some, prices
move, some people come to like something else, and now and then fraud rings change how they go about it.
"""

import math
import random
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from typing import Final, cast

import msgspec

from demo.happenings import Happening
from demo.items import NOUNS, Assortment, Item, make_item
from demo.people import Person
from demo.rings import Habits

FASHION_H: Final = 24.0  # after so long a fashion has lost all but 1/e
FASHION: Final = {"category": 0.8, "brand": 1.0, "noun": 1.0}  # deviations of the logarithm of appeal
NEW_SHARE: Final = 0.05  # of the assortment, each day
PRICED_SHARE: Final = 0.1
TASTES_SHARE: Final = 0.08
HABITS_DAYS: Final = 1.5


class Drift:
    """Moves once an hour from `begins_days` on; `habits` are those of rings that form from now on."""

    def __init__(self, *, seed: int, begins_days: float) -> None:
        self.begins_days, self.habits = begins_days, Habits()
        self._chance = random.Random(seed)
        self._fashion: dict[str, float] = {}
        self._plain: dict[str, float] = {}  # the appeal of items as if there were no fashions
        self._launched, self._moves, self._level = 0, 0, 0.0

    def move(self, items: Assortment, people: Sequence[Person], ts_ms: int) -> list[Happening]:
        """Change the world by an hour; returns the records of products that are new or have changed."""
        told = self._day(items, people, ts_ms) if self._moves % 24 == 0 else []
        self._moves += 1
        self._follow_fashion(items)
        return [Happening("products", item.item_id, item.product, ts_ms) for item in told]

    def _follow_fashion(self, items: Assortment) -> None:
        kept = math.exp(-1 / FASHION_H)
        for kind, deviation in FASHION.items():
            for word in sorted({words_of(item)[kind] for item in items.items}):
                pushed = self._chance.gauss(0, deviation * math.sqrt(1 - kept**2))
                self._fashion[word] = kept * self._fashion.get(word, 0.0) + pushed
        seen = [self._as_seen(item) for item in items.items]
        if not self._level:
            self._level = level(items.items)
        items.put([replace(item, appeal=item.appeal * self._level / level(seen)) for item in seen])

    def _as_seen(self, item: Item) -> Item:
        plain = self._plain.setdefault(item.item_id, item.appeal)
        mood = sum(self._fashion[word] for word in words_of(item).values())
        return replace(item, appeal=plain * math.exp(mood))

    def _day(self, items: Assortment, people: Sequence[Person], ts_ms: int) -> list[Item]:
        """What changes once a day."""
        for person in people:
            if self._chance.random() < TASTES_SHARE:
                self._turn(cast(MutableMapping[str, float], person.tastes))
        if self._moves and self._moves % (24 * HABITS_DAYS) == 0:
            self.habits = self._new_habits()
        sold, chance = list(items.items), self._chance
        for at in chance.sample(range(len(sold)), int(PRICED_SHARE * len(sold))):
            sold[at] = repriced(sold[at], chance.lognormvariate(0.0, 0.3), ts_ms)
        priced = [item for item, before in zip(sold, items.items, strict=True) if item is not before]
        launched = [self._launch(ts_ms) for _ in range(int(NEW_SHARE * len(sold)))]
        gone = set(chance.sample(range(len(sold)), len(launched)))
        items.put([item for at, item in enumerate(sold) if at not in gone] + launched)
        return priced + launched

    def _launch(self, ts_ms: int) -> Item:
        self._launched += 1
        category = self._chance.choice(list(NOUNS))
        return make_item(self._chance, 9_000_000 + self._launched, category, ts_ms)

    def _turn(self, tastes: MutableMapping[str, float]) -> None:
        """Like something else best from now on."""
        best, new = max(tastes, key=lambda one: tastes[one]), self._chance.choice(list(tastes))
        tastes[best], tastes[new] = tastes[new], tastes[best]

    def _new_habits(self) -> Habits:
        chance = self._chance
        return Habits(
            dear=chance.random() < 0.5,
            method=chance.choice(("card", "wallet", "transfer")),
            abroad=chance.uniform(0.0, 0.8),
            account_days=chance.choice((20.0, 60.0, 300.0)),
        )


def level(items: Sequence[Item]) -> float:
    """The mean appeal of what is shown, which is shown in proportion to it; fashions move it to and fro, not up."""
    return sum(item.appeal**2 for item in items) / sum(item.appeal for item in items)


def words_of(item: Item) -> dict[str, str]:
    """What an item's fashion goes by."""
    brand, *_, noun = item.product.title.split()
    return {"category": item.category, "brand": brand, "noun": noun}


def repriced(item: Item, factor: float, ts_ms: int) -> Item:
    product = item.product
    price = max(0.5, round(product.price * factor, 2))
    event_id = f"{product.event_id}.{ts_ms}"
    return replace(item, product=msgspec.structs.replace(product, price=price, ts_ms=ts_ms, event_id=event_id))
