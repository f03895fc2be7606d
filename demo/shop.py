"""The simulated shop: a seed makes people, items and fraud rings, and from then on everything follows.

`history` is what the shop lived through before it met us; `live` goes on where history ended, and shows the people that
come the lists that we made for them. The same seed, and in the live part the same lists, give the same happenings.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Final, TypeAlias

from contract.events import Order, Product
from demo.drift import Drift
from demo.happenings import Happening
from demo.items import Assortment
from demo.malformed import malformed
from demo.people import DAY_MS, Person, make_people
from demo.rings import HOUR_MS, Ring, label_fraud
from demo.visits import SHOWN, ReadShelf, Shelf, Visit
from demo.world import World

OPENED_MS: Final = 1_735_689_600_000  # 2025-01-01: a time of its own, so that no run depends on the day it is made
MALFORMED_EVERY: Final = 150
RING_GAP_DAYS: Final = (0.25, 0.75)  # bounded, so that a day or two never go by without fraud
NIGHT_H: Final = 7

Plan: TypeAlias = Callable[[int], None]


class Shop:
    """A shop in its own time, whose happenings come in the order of `ts_ms`."""

    def __init__(self, seed: int, *, people: int = 300, items: int = 400, drift: Drift | None = None) -> None:
        """`drift`: how its world changes, if it does."""
        chance = random.Random(seed)
        self._world = World(chance, Assortment(chance=chance, count=items, opened_ms=OPENED_MS))
        self.people = make_people(chance, people, list(self._world.items.categories), OPENED_MS)
        self._drift = drift
        self._now_ms = OPENED_MS
        self._agenda: list[tuple[int, int, Happening | Plan]] = []
        self._entry = count()
        self._read_shelf: ReadShelf = self._house_list
        self._open()

    def history(self, days: float) -> Iterator[Happening]:
        """The next `days` with lists by the shop's own rule of thumb, nothing malformed among them."""
        self._read_shelf = self._house_list
        yield from self._until(self._now_ms + int(days * DAY_MS))

    def live(self, read_shelf: ReadShelf, days: float) -> Iterator[Happening]:
        """The next `days`; who comes sees what `read_shelf` gives, and now and then a record is malformed."""
        self._read_shelf = read_shelf
        for number, happening in enumerate(self._until(self._now_ms + int(days * DAY_MS)), 1):
            yield happening
            if number % MALFORMED_EVERY == 0:
                yield malformed(number // MALFORMED_EVERY - 1, happening.ts_ms)

    def products(self) -> list[Happening]:
        """The catalogue as it is now, as records for its topic."""
        return [Happening("products", i.item_id, i.product, i.product.ts_ms) for i in self._world.items.items]

    def catalogue(self) -> dict[str, Product]:
        """Every item's product record."""
        return {item.item_id: item.product for item in self._world.items.items}

    def _open(self) -> None:
        """Put everything on the agenda from which the rest follows."""
        for product in self.products():
            self._note(OPENED_MS, product)
        for person in self.people:
            self._note(self._next_visit_ms(person, person.comes_ms), partial(self._visit, person))
        self._note(self._next_ring_ms(), self._found_ring)
        if self._drift:
            self._note(OPENED_MS + int(self._drift.begins_days * DAY_MS), self._change)

    def _change(self, ts_ms: int) -> None:
        if self._drift:
            for happening in self._drift.move(self._world.items, self.people, ts_ms):
                self._note(ts_ms, happening)
            self._note(ts_ms + HOUR_MS, self._change)

    def _until(self, end_ms: int) -> Iterator[Happening]:
        """Follow the agenda: a happening comes out, a plan puts more on it."""
        while self._agenda and self._agenda[0][0] < end_ms:
            self._now_ms, _, thing = heapq.heappop(self._agenda)
            if isinstance(thing, Happening):
                yield thing
            else:
                thing(self._now_ms)
        self._now_ms = end_ms

    def _note(self, ts_ms: int, thing: Happening | Plan) -> None:
        heapq.heappush(self._agenda, (ts_ms, next(self._entry), thing))

    def _visit(self, person: Person, ts_ms: int) -> None:
        shelf = self._read_shelf(person) or Shelf("", self._house_list(person).items)
        for happening in Visit(world=self._world, person=person, ts_ms=ts_ms).walk(shelf):
            self._note(happening.ts_ms, happening)
            if isinstance(happening.event, Order) and self._world.chance.random() < 0.4:
                self._confirm(happening.event)
        self._note(self._next_visit_ms(person, ts_ms), partial(self._visit, person))

    def _confirm(self, order: Order) -> None:
        """Two orders of five are said to be honest, within a day."""
        told_ms = order.ts_ms + int(self._world.chance.uniform(0.3, 0.9) * DAY_MS)
        self._note(told_ms, label_fraud(self._world, order.user_id, order.event_id, 0.0, told_ms))

    def _found_ring(self, ts_ms: int) -> None:
        habits = self._drift.habits if self._drift else None
        ring = Ring(world=self._world, people=self.people, ts_ms=ts_ms, habits=habits)
        for strike_ms in ring.strikes_ms:
            self._note(self._by_day(strike_ms), partial(self._strike, ring))
        self._note(self._next_ring_ms(), self._found_ring)

    def _strike(self, ring: Ring, ts_ms: int) -> None:
        for happening in ring.strike(ts_ms):
            self._note(happening.ts_ms, happening)

    def _house_list(self, person: Person) -> Shelf:
        """The shop's own rule of thumb: half of it what sells, half of it from a category that the person likes."""
        chance, items = self._world.chance, self._world.items
        liked = items.draw(chance, person.likes(chance), SHOWN // 2)
        others = [item for _ in range(SHOWN // 2) for item in items.draw(chance, chance.choice([*items.categories]), 1)]
        shown = list(dict.fromkeys(liked + others))
        chance.shuffle(shown)
        return Shelf(self._world.number("h"), tuple(shown))

    def _next_visit_ms(self, person: Person, after_ms: int) -> int:
        return self._by_day(after_ms + int(self._world.chance.expovariate(person.visits_a_day) * DAY_MS))

    def _by_day(self, at_ms: int) -> int:
        """That time, or the next morning: nobody comes at night, not even thieves."""
        asleep_h = NIGHT_H - at_ms % DAY_MS / HOUR_MS
        return at_ms + (int(self._world.chance.uniform(asleep_h, asleep_h + 3) * HOUR_MS) if asleep_h > 0 else 0)

    def _next_ring_ms(self) -> int:
        return self._now_ms + int(self._world.chance.uniform(*RING_GAP_DAYS) * DAY_MS)
