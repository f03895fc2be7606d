"""Fraud rings: new or stolen accounts that share few devices and cards, and order expensive items in bursts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from contract.events.model import Click, Label, Line
from contract.units import DAY_MS, HOUR_MS
from demo.simulator.catalogue import Item
from demo.simulator.records import SourceRecord
from demo.simulator.state import Payment, SimulationState, make_order
from demo.simulator.users import COUNTRIES, FAR_COUNTRIES, User, make_user

FIRST_MEMBER_NUMBER: Final = 5_000  # user numbers from here on belong to rings
STOLEN_SHARE: Final = 0.3
BROWSE_S: Final = 420.0  # a member clicks on items for up to this long before an order


@dataclass(frozen=True, slots=True)
class FraudPattern:
    """What a ring buys, how it pays, its share of shipments abroad, and the mean age of its accounts."""

    expensive_items: bool = True
    payment_method: str = "card"
    abroad_share: float = 0.7
    account_days: float = 60.0


class FraudRing:
    """One ring: it attacks up to three times, and each attack is detected some hours later.

    Its members are its own accounts and some stolen from `users`.
    """

    def __init__(
        self, *, state: SimulationState, users: Sequence[User], ts_ms: int, pattern: FraudPattern | None = None
    ) -> None:
        rng = state.rng
        first = FIRST_MEMBER_NUMBER + 10 * state.id_counts["ring"]
        name = state.new_id("ring")
        self._state = state
        self._pattern = pattern = pattern or FraudPattern()
        self._devices = [f"x{name}.{n}" for n in range(rng.choice((1, 2)))]
        self._cards = [f"y{name}.{n}" for n in range(rng.choice((2, 3)))]
        self._ip = f"85.16.{state.id_counts['ring'] % 250}.{rng.randrange(1, 255)}"
        self._country = rng.choice(FAR_COUNTRIES)
        price_sign = -1 if pattern.expensive_items else 1
        by_price = sorted(state.catalogue.items, key=lambda item: price_sign * item.product.price)
        self._target_items = by_price[: len(by_price) // 3]
        self._members = [
            rng.choice(users) if rng.random() < STOLEN_SHARE else self._make_account(first + n, ts_ms)
            for n in range(rng.randrange(4, 9))
        ]
        self.attacks_ms = [ts_ms]
        while len(self.attacks_ms) < 3 and rng.random() < 0.4:
            self.attacks_ms.append(self.attacks_ms[-1] + int(rng.uniform(0.4, 1.2) * DAY_MS))

    def attack(self, ts_ms: int) -> list[SourceRecord]:
        """Clicks and orders of an hour or two from `ts_ms`, and the labels made at detection."""
        rng, records = self._state.rng, list[SourceRecord]()
        detected_ms = ts_ms + int(rng.uniform(4, 16) * HOUR_MS)
        for user in rng.sample(self._members, rng.randrange(3, len(self._members) + 1)):
            ts_ms += int(rng.uniform(BROWSE_S, 1_000) * 1000)
            lines, payment = self._choose_lines(), self._make_payment()
            records += self._browse(user, lines, payment, ts_ms)
            order = make_order(self._state, user, lines, payment, ts_ms)
            records.append(SourceRecord("orders", user.user_id, order, ts_ms))
            label_ms = max(detected_ms, ts_ms) + int(rng.uniform(0, HOUR_MS))
            records.append(label_fraud(self._state, user.user_id, order.event_id, 1.0, label_ms))
        return records

    def _browse(self, user: User, lines: list[Line], payment: Payment, until_ms: int) -> list[SourceRecord]:
        """Clicks in the minutes before an order: ring members browse as other users do, only shorter."""
        rng, clicks = self._state.rng, list[SourceRecord]()
        others = rng.sample(self._state.catalogue.items, rng.randrange(0, 6))
        for item_id in (*(item.item_id for item in others), *(line.item_id for line in lines)):
            click = Click(
                event_id=self._state.new_id("c"),
                ts_ms=until_ms - int(rng.uniform(60, BROWSE_S) * 1000),
                user_id=user.user_id,
                item_id=item_id,
                surface=rng.choice(("home", "category")),
                platform=user.platform,
                device_id=payment.device_id,
                ip=payment.ip,
            )
            clicks.append(SourceRecord("clicks", user.user_id, click, click.ts_ms))
        return clicks

    def _make_account(self, number: int, ts_ms: int) -> User:
        user = make_user(self._state.rng, number, list(self._state.catalogue.by_category), ts_ms)
        age_ms = int(self._state.rng.expovariate(1 / self._pattern.account_days) * DAY_MS)
        return replace(user, account_created_ms=ts_ms - age_ms)

    def _choose_lines(self) -> list[Line]:
        items: list[Item] = self._state.rng.sample(self._target_items, self._state.rng.choice((1, 1, 2)))
        return [self._state.make_line(item.item_id, self._state.rng.choice((1, 1, 2, 3))) for item in items]

    def _make_payment(self) -> Payment:
        rng = self._state.rng
        return Payment(
            method=self._pattern.payment_method,
            card_id=rng.choice(self._cards),
            device_id=rng.choice(self._devices),
            ip=self._ip,
            shipping_country=self._country if rng.random() < self._pattern.abroad_share else rng.choice(COUNTRIES),
        )


def label_fraud(state: SimulationState, user_id: str, order_id: str, value: float, ts_ms: int) -> SourceRecord:
    """A fraud label for an order: 1 for fraud, 0 for confirmed honest."""
    label = Label(
        event_id=state.new_id("l"), ts_ms=ts_ms, user_id=user_id, judged_event_id=order_id, task="fraud", value=value
    )
    return SourceRecord("labels", user_id, label, ts_ms)
