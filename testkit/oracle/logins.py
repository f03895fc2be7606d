"""The oracle of logins: the specification as plain code, by sets of times. Independent of the fold that it tests."""

from typing import Any, Final

import msgspec

from contract.events.model import Event, UserEvent
from contract.hashing import hash_id

GUEST: Final = "guest:"
GUESTS_MAX: Final = 128  # of a user
USERS_MAX: Final = 8  # of a guest; with more it is shared
TAG_DIGITS: Final = 5  # of a hash of 63 bits: the first 20 bits
FIELD: Final = "logins:"  # before a source
Row = tuple[str, int, int]


class LoginOracle:
    """All logins, by entity and source, after the added events; without those that are older than the horizon."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], dict[str, list[int]]] = {}

    def add(self, source: str, event: Event, erased_until: dict[str, int]) -> None:
        """Add an event of a source."""
        if not isinstance(event, UserEvent) or event.guest_id is None:
            return
        if not event.user_id or event.user_id.startswith(GUEST):
            return
        tag = format(hash_id(f"user:{event.user_id}") >> 43, f"0{TAG_DIGITS}x")
        for entity, other in ((f"user:{event.user_id}", event.guest_id), (f"user:{GUEST}{event.guest_id}", tag)):
            if event.ts_ms > erased_until.get(entity, -1):
                self._times.setdefault((entity, source), {}).setdefault(other, []).append(event.ts_ms)

    def rows(self) -> dict[tuple[str, str], list[Row]]:
        """The rows of each record that should be there, by their latest login."""
        return {name: list_rows(name[0].startswith(f"user:{GUEST}"), times) for name, times in self._times.items()}


def list_rows(is_of_guest: bool, times: dict[str, list[int]]) -> list[Row]:
    """The rows of a guest or a user with logins at these times."""
    if is_of_guest and len(times) > USERS_MAX:
        together = [ms for own in times.values() for ms in own]
        return [("", min(together), max(together))]
    rows = [(other, min(own) if is_of_guest else max(own), max(own)) for other, own in times.items()]
    return sorted(rows, key=lambda row: (row[2], row))[-GUESTS_MAX:]


def parse_logins(record: bytes) -> list[Row]:
    """The rows of a stored record."""
    content: list[Any] = msgspec.msgpack.decode(record)
    return [(row[0], row[1], row[2]) for row in content[1]]


def describe_difference(expected: list[Row] | None, record: bytes | None) -> str | None:
    """How a stored record differs from the oracle's rows, in words; None: it does not."""
    actual = None if record is None else parse_logins(record)
    return None if actual == expected else f"logins should be {expected}. Found {actual}."
