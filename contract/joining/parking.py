"""Parking: events that came before what they belong to, for a stated time and up to a stated number."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from contract.joining.shelf import Shelf


class Timed(Protocol):
    """What has a time of its own."""

    @property
    def ts_ms(self) -> int:
        """Its event time."""


K = TypeVar("K", bound=Hashable)
E = TypeVar("E", bound=Timed)
EACH_MAX: Final = 100  # for one key: whoever repeats himself without end must cost no more than others


class Parked(Generic[K, E]):
    """Events by the key of what they wait for, in the order in which they came."""

    def __init__(self, *, wait_ms: int, limit: int) -> None:
        self._wait_ms = wait_ms
        self._shelf = Shelf[int, tuple[K, E]](limit=limit, remembered=0)
        self._numbers: dict[K, dict[int, E]] = {}
        self._next = 0

    def park(self, key: K, event: E) -> E | None:
        """Keep an event until `wait_ms` after its own time; returns the one that has to leave for it, if any."""
        number, self._next = self._next, self._next + 1
        of = self._numbers.setdefault(key, {})
        of[number] = event
        crowded = self._shelf.put(number, (key, event), since_ms=event.ts_ms, due_ms=event.ts_ms + self._wait_ms)
        if crowded is None and len(of) > EACH_MAX:
            oldest = next(iter(of))
            crowded = oldest, self._shelf.remove(oldest)
        if crowded is None:
            return None
        self._forget(crowded[0], crowded[1][0])
        return crowded[1][1]

    def look(self, key: K) -> Sequence[E]:
        """The events that wait for `key`."""
        return tuple(self._numbers.get(key, {}).values())

    def claim(self, key: K) -> Sequence[E]:
        """Take out the events that wait for `key`."""
        found = self._numbers.pop(key, {})
        for number in found:
            self._shelf.remove(number)
        return tuple(found.values())

    def take(self, key: K, event: E) -> None:
        """Take out one event."""
        for number, parked in self._numbers.get(key, {}).items():
            if parked is event:
                self._shelf.remove(number)
                self._forget(number, key)
                return

    def expired(self, watermark_ms: int) -> Iterator[E]:
        """Take out the events that have waited too long."""
        for number, (key, event) in self._shelf.due(watermark_ms):
            self._shelf.remove(number)
            self._forget(number, key)
            yield event

    def oldest_ms(self) -> int | None:
        return self._shelf.oldest_ms()

    def _forget(self, number: int, key: K) -> None:
        of = self._numbers[key]
        del of[number]
        if not of:
            del self._numbers[key]
