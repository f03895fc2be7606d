"""Fraud rings: accounts, new or stolen, on few devices and cards, that order in bursts, dearly, and ship abroad."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from contract.events import Click, Label, Line
from demo.happenings import Happening
from demo.items import Item
from demo.people import COUNTRIES, DAY_MS, FAR, Person, make_person
from demo.world import Payment, World, make_order

FIRST_MEMBER: Final = 5_000  # numbers of users from which on they belong to rings
HOUR_MS: Final = 3_600_000
STOLEN_SHARE: Final = 0.3
LOOKS_S: Final = 420.0  # for how long before an order somebody looks around


@dataclass(frozen=True, slots=True)
class Habits:
    """How rings go about it: what they take, how they pay, how often it goes abroad, how old their accounts are."""

    dear: bool = True
    method: str = "card"
    abroad: float = 0.7
    account_days: float = 60.0


class Ring:
    """One ring: it strikes a few times, and is found out some hours after each strike.

    Its members are accounts of its own, and some that it stole from `people`.
    """

    def __init__(self, *, world: World, people: Sequence[Person], ts_ms: int, habits: Habits | None = None) -> None:
        chance = world.chance
        first = FIRST_MEMBER + 10 * world.counted["ring"]
        name = world.number("ring")
        self._world = world
        self._habits = habits = habits or Habits()
        self._devices = [f"x{name}.{n}" for n in range(chance.choice((1, 2)))]
        self._cards = [f"y{name}.{n}" for n in range(chance.choice((2, 3)))]
        self._ip = f"172.16.{world.counted['ring'] % 250}.{chance.randrange(1, 255)}"
        self._country = chance.choice(FAR)
        dearness = -1 if habits.dear else 1
        by_price = sorted(world.items.items, key=lambda item: dearness * item.product.price)
        self._loot = by_price[: len(by_price) // 3]
        self._members = [
            chance.choice(people) if chance.random() < STOLEN_SHARE else self._recruit(first + n, ts_ms)
            for n in range(chance.randrange(4, 9))
        ]
        self.strikes_ms = [ts_ms]
        while len(self.strikes_ms) < 3 and chance.random() < 0.4:
            self.strikes_ms.append(self.strikes_ms[-1] + int(chance.uniform(0.4, 1.2) * DAY_MS))

    def strike(self, ts_ms: int) -> list[Happening]:
        """Orders within an hour or two from `ts_ms`, and the labels that come when they are found out."""
        chance, happenings = self._world.chance, list[Happening]()
        found_ms = ts_ms + int(chance.uniform(4, 16) * HOUR_MS)
        for person in chance.sample(self._members, chance.randrange(3, len(self._members) + 1)):
            ts_ms += int(chance.uniform(LOOKS_S, 1_000) * 1000)
            lines, payment = self._choose(), self._payment()
            happenings += self._look(person, lines, payment, ts_ms)
            order = make_order(self._world, person, lines, payment, ts_ms)
            happenings.append(Happening("orders", person.user_id, order, ts_ms))
            told_ms = max(found_ms, ts_ms) + int(chance.uniform(0, HOUR_MS))
            happenings.append(label_fraud(self._world, person.user_id, order.event_id, 1.0, told_ms))
        return happenings

    def _look(self, person: Person, lines: list[Line], payment: Payment, until_ms: int) -> list[Happening]:
        """Clicks of the last minutes before an order: thieves look around as everybody does, if not for long."""
        chance, clicks = self._world.chance, list[Happening]()
        others = chance.sample(self._world.items.items, chance.randrange(0, 6))
        for item_id in (*(item.item_id for item in others), *(line.item_id for line in lines)):
            click = Click(
                event_id=self._world.number("c"),
                ts_ms=until_ms - int(chance.uniform(60, LOOKS_S) * 1000),
                user_id=person.user_id,
                item_id=item_id,
                surface=chance.choice(("home", "category")),
                platform=person.platform,
                device_id=payment.device_id,
                ip=payment.ip,
            )
            clicks.append(Happening("clicks", person.user_id, click, click.ts_ms))
        return clicks

    def _recruit(self, number: int, ts_ms: int) -> Person:
        person = make_person(self._world.chance, number, list(self._world.items.categories), ts_ms)
        age_ms = int(self._world.chance.expovariate(1 / self._habits.account_days) * DAY_MS)
        return replace(person, account_created_ms=ts_ms - age_ms)

    def _choose(self) -> list[Line]:
        chosen: list[Item] = self._world.chance.sample(self._loot, self._world.chance.choice((1, 1, 2)))
        return [self._world.line(item.item_id, self._world.chance.choice((1, 1, 2, 3))) for item in chosen]

    def _payment(self) -> Payment:
        chance = self._world.chance
        return Payment(
            method=self._habits.method,
            card_id=chance.choice(self._cards),
            device_id=chance.choice(self._devices),
            ip=self._ip,
            ships_to=self._country if chance.random() < self._habits.abroad else chance.choice(COUNTRIES),
        )


def label_fraud(world: World, user_id: str, order_id: str, value: float, ts_ms: int) -> Happening:
    """What became known of an order: 1 for fraud, 0 for an order confirmed honest."""
    label = Label(
        event_id=world.number("l"), ts_ms=ts_ms, user_id=user_id, judged_event_id=order_id, task="fraud", value=value
    )
    return Happening("labels", user_id, label, ts_ms)
