"""Seeded batches of orders and clicks of one shop, as a worker reads them.

Nine in ten devices and cards belong to one user; four users share an address; few items are bought often. Users are
spread over four partitions, so an entity has a slice for each partition whose users' events update it.
"""

import random
from typing import Final

from contract.events.model import Click, Event, Line, Order
from contract.profiles.entity_updates import Arrival

PARTITIONS: Final = 4
USERS: Final = 5_000
ITEMS: Final = 2_000
SELLERS: Final = 200
START_MS: Final = 1_700_000_000_000
TOPIC_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # as long as Apache Kafka's


class SyntheticShop:
    """Generates events and assigns their offsets; the same seed gives the same events."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.event_count = 0
        self.offsets: dict[str, int] = {}

    def draw_orders(self, count: int, *, lines: int = 1, sellers: bool = False) -> list[Arrival]:
        """Orders that update a user, device, address, card, each line's item and, with `sellers`, its seller."""
        return [self.append("orders", user, self.draw_order(user, lines, sellers)) for user in self.draw_users(count)]

    def draw_hot_orders(self, count: int) -> list[Arrival]:
        """Orders of one line, every second one from the same device."""
        return [
            self.append("orders", user, self.draw_order(user, 1, False, "hot" if number % 2 else ""))
            for number, user in enumerate(self.draw_users(count))
        ]

    def draw_clicks(self, count: int) -> list[Arrival]:
        """Clicks that update a user, an item and a device."""
        return [self.append("clicks", user, self.draw_click(user)) for user in self.draw_users(count)]

    def draw_users(self, count: int) -> list[int]:
        return [self.rng.randrange(USERS) for _ in range(count)]

    def append(self, kind: str, user: int, event: Event) -> Arrival:
        source = f"{kind}~{TOPIC_ID}/{user % PARTITIONS}"
        self.offsets[source] = self.offsets.get(source, -1) + 1
        return Arrival(source, self.offsets[source], event, f"shop.{kind}", user % PARTITIONS)

    def draw_order(self, user: int, lines: int, sellers: bool, device: str = "") -> Order:
        order_lines = [self.draw_line(sellers) for _ in range(lines)]
        return Order(
            event_id=f"o{self.event_count}",
            ts_ms=self.next_ms(),
            user_id=f"u{user}",
            lines=tuple(order_lines),
            amount=sum(line.unit_price for line in order_lines),
            currency="EUR",
            payment_method="card",
            card_id=f"c{self.draw_own_id(user)}",
            device_id=device or f"d{self.draw_own_id(user)}",
            ip=f"81.0.{self.draw_own_id(user) // 4 // 250}.{self.draw_own_id(user) // 4 % 250}",
            shipping_country="DE",
            billing_country="DE",
            account_created_ms=START_MS,
        )

    def draw_click(self, user: int) -> Click:
        ts_ms = self.next_ms()
        return Click(
            event_id=f"e{self.event_count}",
            ts_ms=ts_ms,
            user_id=f"u{user}",
            item_id=f"i{self.draw_item()}",
            surface="home",
            platform="web",
            device_id=f"d{self.draw_own_id(user)}",
        )

    def draw_line(self, sellers: bool) -> Line:
        item = self.draw_item()
        seller = f"s{item % SELLERS}" if sellers else None
        return Line(item_id=f"i{item}", quantity=1, unit_price=item % 97 + 0.99, seller_id=seller)

    def next_ms(self) -> int:
        self.event_count += 1
        return START_MS + self.event_count * 5_000

    def draw_own_id(self, user: int) -> int:
        """The number of the user's own device or card, or in one of ten cases of a random user."""
        return user if self.rng.random() < 0.9 else self.rng.randrange(USERS)

    def draw_item(self) -> int:
        """The square of a uniform draw, so few items are frequent."""
        return int(ITEMS * self.rng.random() ** 2)
