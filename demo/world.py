"""The world of the simulated shop: what visits and fraud rings share, and how an order comes about."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from contract.events import Line, Order
from demo.items import CURRENCY, Assortment
from demo.people import Person

METHODS: Final = ("card", "card", "card", "wallet", "transfer")


@dataclass(frozen=True, slots=True)
class World:
    """One source of chance, one assortment and one count of events, so that a seed decides everything."""

    chance: random.Random
    items: Assortment
    counted: Counter[str] = field(default_factory=Counter)

    def number(self, letter: str) -> str:
        """A new id that begins with `letter`."""
        self.counted[letter] += 1
        return f"{letter}{self.counted[letter]:06d}"

    def perhaps(self, value: str, missing: float) -> str | None:
        """The value, or nothing in a share of cases: optional fields are missing in real shops."""
        return None if self.chance.random() < missing else value

    def line(self, item_id: str, quantity: int) -> Line:
        product = self.items.at[item_id].product
        return Line(item_id=item_id, quantity=quantity, unit_price=product.price, seller_id=product.seller_id)


@dataclass(frozen=True, slots=True)
class Payment:
    """How and from where an order is paid; `card_id` counts only where the method is a card."""

    method: str
    card_id: str
    device_id: str
    ip: str
    ships_to: str


def make_order(world: World, person: Person, lines: Sequence[Line], payment: Payment, ts_ms: int) -> Order:
    """An order of these lines; some optional fields are missing now and then."""
    return Order(
        event_id=world.number("o"),
        ts_ms=ts_ms,
        user_id=person.user_id,
        lines=tuple(lines),
        amount=round(sum(line.quantity * line.unit_price for line in lines), 2),
        currency=CURRENCY,
        payment_method=payment.method,
        card_id=payment.card_id if payment.method == "card" else None,
        device_id=world.perhaps(payment.device_id, 0.06),
        ip=world.perhaps(payment.ip, 0.04),
        shipping_country=world.perhaps(payment.ships_to, 0.03),
        billing_country=world.perhaps(person.country, 0.03),
        account_created_ms=person.account_created_ms if world.chance.random() > 0.02 else None,
        platform=person.platform,
    )
