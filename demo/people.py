"""Who comes to the simulated shop: people with tastes, devices and cards, some of them in one household."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from contract.events import Platform

DAY_MS: Final = 86_400_000
COUNTRIES: Final = ("DE", "FR", "GB", "NL", "ES", "PL")
FAR: Final = ("US", "SG", "BR")  # where gifts and loot go
HOUSEHOLD_SHARE: Final = 0.25
OFFICE_SHARE: Final = 0.15
NEWCOMER_SHARE: Final = 0.4
NEWCOMERS_DAYS: Final = 14.0


@dataclass(frozen=True, slots=True)
class Person:
    """One user. `tastes`: how much a category is liked, 0 to 1; `visits_a_day`: how often they come, on average.

    `comes_ms`: when they come to know the shop.
    """

    user_id: str
    tastes: Mapping[str, float]
    devices: Sequence[str]
    ip: str
    cards: Sequence[str]
    country: str
    comes_ms: int
    account_created_ms: int
    platform: Platform
    visits_a_day: float
    spending: float

    def likes(self, chance: random.Random) -> str:
        """A category, liked ones more often."""
        return chance.choices(list(self.tastes), weights=list(self.tastes.values()))[0]


def make_people(chance: random.Random, count: int, categories: Sequence[str], opened_ms: int) -> list[Person]:
    """People in the order of their ids: some live with the one before them, some come to know the shop later.

    Those of one home share address and device, half of them a card.
    """
    people: list[Person] = []
    for number in range(count):
        host = people[-1] if people and chance.random() < HOUSEHOLD_SHARE else None
        person = make_person(chance, number, categories, opened_ms, host)
        if chance.random() < NEWCOMER_SHARE:
            comes_ms = opened_ms + int(chance.uniform(0, NEWCOMERS_DAYS) * DAY_MS)
            person = replace(person, comes_ms=comes_ms, account_created_ms=comes_ms)
        people.append(person)
    return people


def make_person(
    chance: random.Random, number: int, categories: Sequence[str], opened_ms: int, host: Person | None = None
) -> Person:
    """A person with two favourite categories; `host` is someone they share a home with."""
    favourites = chance.sample(categories, 2)
    tastes = {c: 0.04 + 0.06 * chance.random() for c in categories} | {favourites[0]: 0.9, favourites[1]: 0.5}
    devices = [f"d{number:04d}"]
    if chance.random() < 0.3:
        devices.append(f"d{number:04d}b")
    if host:
        devices.append(host.devices[0])
    return Person(
        user_id=f"u{number:04d}",
        tastes=tastes,
        devices=devices,
        ip=host.ip if host else draw_ip(chance, number),
        cards=[f"k{number:04d}", *(host.cards[:1] if host and chance.random() < 0.5 else [])],
        country=host.country if host else chance.choice(COUNTRIES),
        comes_ms=opened_ms,
        account_created_ms=opened_ms - int(chance.expovariate(1 / 300) * DAY_MS),
        platform=chance.choice(("web", "app")),
        visits_a_day=min(chance.gammavariate(2.0, 1.0), 6.0),
        spending=chance.uniform(0.6, 1.4),
    )


def draw_ip(chance: random.Random, number: int) -> str:
    """An address of one's own, or now and then that of an office with dozens of people behind it."""
    if chance.random() < OFFICE_SHARE:
        return f"192.0.2.{chance.randrange(1, 4)}"
    return f"10.{number // 250}.{number % 250}.{chance.randrange(1, 255)}"
