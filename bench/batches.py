"""Seeded batches of orders and clicks of one shop, as a worker meets them.

Nine in ten devices and cards belong to one user; four users share an address; few items are bought often. Users are
spread over four partitions, so an entity has a slice of each partition whose users touched it.
"""

import random
from typing import Final

from contract.events import Click, Event, Line, Order
from contract.profiles.entity_updates import Arrival

PARTITIONS: Final = 4
USERS: Final = 5_000
ITEMS: Final = 2_000
SELLERS: Final = 200
START_MS: Final = 1_700_000_000_000
TOPIC_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # as long as Apache Kafka's


class Shop:
    """Makes events and places them in their logs; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.made = 0
        self.offsets: dict[str, int] = {}

    def orders(self, count: int, *, lines: int = 1, sellers: bool = False) -> list[Arrival]:
        """Orders that touch a user, a device, an address, a card, each line's item and, if told, its seller."""
        return [self.arrive("orders", user, self.order(user, lines, sellers)) for user in self.users(count)]

    def hot_orders(self, count: int) -> list[Arrival]:
        """Orders of one line, every second one of one device."""
        return [
            self.arrive("orders", user, self.order(user, 1, False, "hot" if number % 2 else ""))
            for number, user in enumerate(self.users(count))
        ]

    def clicks(self, count: int) -> list[Arrival]:
        """Clicks that touch a user, an item and a device."""
        return [self.arrive("clicks", user, self.click(user)) for user in self.users(count)]

    def users(self, count: int) -> list[int]:
        return [self.rng.randrange(USERS) for _ in range(count)]

    def arrive(self, kind: str, user: int, event: Event) -> Arrival:
        source = f"{kind}~{TOPIC_ID}/{user % PARTITIONS}"
        self.offsets[source] = self.offsets.get(source, -1) + 1
        return Arrival(source, self.offsets[source], event, f"shop.{kind}", user % PARTITIONS)

    def order(self, user: int, lines: int, sellers: bool, device: str = "") -> Order:
        drawn = [self.line(sellers) for _ in range(lines)]
        return Order(
            event_id=f"o{self.made}",
            ts_ms=self.later(),
            user_id=f"u{user}",
            lines=tuple(drawn),
            amount=sum(line.unit_price for line in drawn),
            currency="EUR",
            payment_method="card",
            card_id=f"c{self.own(user)}",
            device_id=device or f"d{self.own(user)}",
            ip=f"10.0.{self.own(user) // 4 // 250}.{self.own(user) // 4 % 250}",
            shipping_country="DE",
            billing_country="DE",
            account_created_ms=START_MS,
        )

    def click(self, user: int) -> Click:
        ts_ms = self.later()
        return Click(
            event_id=f"e{self.made}",
            ts_ms=ts_ms,
            user_id=f"u{user}",
            item_id=f"i{self.item()}",
            surface="home",
            platform="web",
            device_id=f"d{self.own(user)}",
        )

    def line(self, sellers: bool) -> Line:
        item = self.item()
        seller = f"s{item % SELLERS}" if sellers else None
        return Line(item_id=f"i{item}", quantity=1, unit_price=item % 97 + 0.99, seller_id=seller)

    def later(self) -> int:
        self.made += 1
        return START_MS + self.made * 5_000

    def own(self, user: int) -> int:
        """The user's own, or in one of ten cases anybody's."""
        return user if self.rng.random() < 0.9 else self.rng.randrange(USERS)

    def item(self) -> int:
        """Few items often: the square of a uniform draw."""
        return int(ITEMS * self.rng.random() ** 2)
