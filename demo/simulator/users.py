"""Simulated users: preferences, devices and cards; some share a household."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from contract.events.model import Platform
from contract.units import DAY_MS

COUNTRIES: Final = ("DE", "FR", "GB", "NL", "ES", "PL")
FAR_COUNTRIES: Final = ("US", "SG", "BR")  # destinations of gifts and of fraudulent orders
HOUSEHOLD_SHARE: Final = 0.25
OFFICE_SHARE: Final = 0.15
NEWCOMER_SHARE: Final = 0.4
NEWCOMERS_DAYS: Final = 14.0


@dataclass(frozen=True, slots=True)
class User:
    """One user. `preferences`: affinity to each category, 0 to 1; `sessions_per_day`: on average.

    `first_session_ms`: the first session is at this time or later.
    """

    user_id: str
    preferences: Mapping[str, float]
    devices: Sequence[str]
    ip: str
    cards: Sequence[str]
    country: str
    first_session_ms: int
    account_created_ms: int
    platform: Platform
    sessions_per_day: float
    spending: float

    def draw_category(self, rng: random.Random) -> str:
        """A random category, weighted by preference."""
        return rng.choices(list(self.preferences), weights=list(self.preferences.values()))[0]


def make_users(rng: random.Random, count: int, categories: Sequence[str], opened_ms: int) -> list[User]:
    """Users in the order of their ids; some live with the previous one, some join later.

    Members of a household share IP address and a device; half of them share a card.
    """
    users: list[User] = []
    for number in range(count):
        host = users[-1] if users and rng.random() < HOUSEHOLD_SHARE else None
        user = make_user(rng, number, categories, opened_ms, host)
        if rng.random() < NEWCOMER_SHARE:
            first_session_ms = opened_ms + int(rng.uniform(0, NEWCOMERS_DAYS) * DAY_MS)
            user = replace(user, first_session_ms=first_session_ms, account_created_ms=first_session_ms)
        users.append(user)
    return users


def make_user(
    rng: random.Random, number: int, categories: Sequence[str], opened_ms: int, host: User | None = None
) -> User:
    """A user with two favourite categories; `host` is a user of the same household."""
    favourites = rng.sample(categories, 2)
    preferences = {c: 0.04 + 0.06 * rng.random() for c in categories} | {favourites[0]: 0.9, favourites[1]: 0.5}
    devices = [f"d{number:04d}"]
    if rng.random() < 0.3:
        devices.append(f"d{number:04d}b")
    if host:
        devices.append(host.devices[0])
    return User(
        user_id=f"u{number:04d}",
        preferences=preferences,
        devices=devices,
        ip=host.ip if host else draw_ip(rng, number),
        cards=[f"k{number:04d}", *(host.cards[:1] if host and rng.random() < 0.5 else [])],
        country=host.country if host else rng.choice(COUNTRIES),
        first_session_ms=opened_ms,
        account_created_ms=opened_ms - int(rng.expovariate(1 / 300) * DAY_MS),
        platform=rng.choice(("web", "app")),
        sessions_per_day=min(rng.gammavariate(2.0, 1.0), 6.0),
        spending=rng.uniform(0.6, 1.4),
    )


def draw_ip(rng: random.Random, number: int) -> str:
    """The IP address of a home, or sometimes that of an office shared by dozens of users."""
    if rng.random() < OFFICE_SHARE:
        return f"192.0.2.{rng.randrange(1, 4)}"
    return f"81.{number // 250}.{number % 250}.{rng.randrange(1, 255)}"
