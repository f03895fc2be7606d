"""Parking: events that came before what they belong to, for a stated time and up to a stated number."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from contract.joining.pending import PendingStore


class HasEventTime(Protocol):
    """What has a time of its own."""

    @property
    def ts_ms(self) -> int:
        """Its event time."""


K = TypeVar("K", bound=Hashable)
E = TypeVar("E", bound=HasEventTime)
PER_KEY_MAX: Final = 100  # for one key: whoever repeats himself without end must cost no more than others


class EarlyEvents(Generic[K, E]):
    """Events by the key of what they wait for, in the order in which they came."""

    def __init__(self, *, wait_ms: int, limit: int) -> None:
        self._wait_ms = wait_ms
        self._pending = PendingStore[int, tuple[K, E]](limit=limit, removed_max=0)
        self._events_by_key: dict[K, dict[int, E]] = {}
        self._next_number = 0

    def add(self, key: K, event: E) -> E | None:
        """Keep an event until `wait_ms` after its own time; returns the one that has to leave for it, if any."""
        number, self._next_number = self._next_number, self._next_number + 1
        waiting = self._events_by_key.setdefault(key, {})
        waiting[number] = event
        evicted = self._pending.add(number, (key, event), since_ms=event.ts_ms, due_ms=event.ts_ms + self._wait_ms)
        if evicted is None and len(waiting) > PER_KEY_MAX:
            oldest = next(iter(waiting))
            evicted = oldest, self._pending.remove(oldest)
        if evicted is None:
            return None
        self._discard(evicted[0], evicted[1][0])
        return evicted[1][1]

    def peek(self, key: K) -> Sequence[E]:
        """The events that wait for `key`."""
        return tuple(self._events_by_key.get(key, {}).values())

    def pop(self, key: K) -> Sequence[E]:
        """Take out the events that wait for `key`."""
        waiting = self._events_by_key.pop(key, {})
        for number in waiting:
            self._pending.remove(number)
        return tuple(waiting.values())

    def remove(self, key: K, event: E) -> None:
        """Take out one event."""
        for number, waiting in self._events_by_key.get(key, {}).items():
            if waiting is event:
                self._pending.remove(number)
                self._discard(number, key)
                return

    def pop_expired(self, watermark_ms: int) -> Iterator[E]:
        """Take out the events that have waited too long."""
        for number, (key, event) in self._pending.due(watermark_ms):
            self._pending.remove(number)
            self._discard(number, key)
            yield event

    def oldest_ms(self) -> int | None:
        return self._pending.oldest_ms()

    def _discard(self, number: int, key: K) -> None:
        waiting = self._events_by_key[key]
        del waiting[number]
        if not waiting:
            del self._events_by_key[key]
