"""State shared by user sessions and fraud rings: random numbers, catalogue, ids; and making orders."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from contract.events.model import Line, Order
from demo.simulator.catalogue import CURRENCY, ItemCatalogue
from demo.simulator.users import User

PAYMENT_METHODS: Final = ("card", "card", "card", "wallet", "transfer")


@dataclass(frozen=True, slots=True)
class SimulationState:
    """The only random number generator, catalogue and id counters, so that the seed determines everything."""

    rng: random.Random
    catalogue: ItemCatalogue
    id_counts: Counter[str] = field(default_factory=Counter)

    def new_id(self, prefix: str) -> str:
        """A new id that begins with `prefix`."""
        self.id_counts[prefix] += 1
        return f"{prefix}{self.id_counts[prefix]:06d}"

    def value_or_missing(self, value: str, missing_share: float) -> str | None:
        """The value, or None in `missing_share` of cases: real shops omit optional fields."""
        return None if self.rng.random() < missing_share else value

    def make_line(self, item_id: str, quantity: int) -> Line:
        product = self.catalogue.by_id[item_id].product
        return Line(item_id=item_id, quantity=quantity, unit_price=product.price, seller_id=product.seller_id)


@dataclass(frozen=True, slots=True)
class Payment:
    """Payment, device and shipping of an order; `card_id` is used only if the method is a card."""

    method: str
    card_id: str
    device_id: str
    ip: str
    shipping_country: str


def make_order(state: SimulationState, user: User, lines: Sequence[Line], payment: Payment, ts_ms: int) -> Order:
    """An order of these lines; optional fields are sometimes missing."""
    return Order(
        event_id=state.new_id("o"),
        ts_ms=ts_ms,
        user_id=user.user_id,
        lines=tuple(lines),
        amount=round(sum(line.quantity * line.unit_price for line in lines), 2),
        currency=CURRENCY,
        payment_method=payment.method,
        card_id=payment.card_id if payment.method == "card" else None,
        device_id=state.value_or_missing(payment.device_id, 0.06),
        ip=state.value_or_missing(payment.ip, 0.04),
        shipping_country=state.value_or_missing(payment.shipping_country, 0.03),
        billing_country=state.value_or_missing(user.country, 0.03),
        account_created_ms=user.account_created_ms if state.rng.random() > 0.02 else None,
        platform=user.platform,
    )
