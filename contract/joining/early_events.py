"""A buffer for events that arrive before the row that they belong to: for a limited time and up to a limited number."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from contract.joining.multi_index import MultiIndex
from contract.joining.pending import PendingStore


class HasEventTime(Protocol):
    """An event, or something that wraps one."""

    @property
    def ts_ms(self) -> int:
        """Its event time."""


K = TypeVar("K", bound=Hashable)
E = TypeVar("E", bound=HasEventTime)
PER_KEY_MAX: Final = 100  # so that a user who repeats an event endlessly costs no more than others


class EarlyEvents(Generic[K, E]):
    """Events by the key of the row they wait for, in the order of arrival."""

    def __init__(self, *, wait_ms: int, limit: int) -> None:
        self._wait_ms = wait_ms
        self._pending = PendingStore[int, tuple[K, E]](limit=limit, removed_max=0)
        self._numbers_by_key = MultiIndex[K, int, E]()
        self._next_number = 0

    def add(self, key: K, event: E, *, owner: str = "") -> E | None:
        """Keep a user's event until `wait_ms` after its own time; returns the event that is evicted for it, if any."""
        number = self._next_number
        self._next_number += 1
        count = self._numbers_by_key.add(key, number, event)
        due_ms = event.ts_ms + self._wait_ms
        evicted = self._pending.add(number, (key, event), since_ms=event.ts_ms, due_ms=due_ms, owner=owner)
        if evicted is None and count > PER_KEY_MAX:
            oldest = self._numbers_by_key.oldest(key)
            evicted = oldest, self._pending.remove(oldest)
        if evicted is None:
            return None
        evicted_number, (evicted_key, evicted_event) = evicted
        self._numbers_by_key.remove(evicted_key, evicted_number)
        return evicted_event

    def peek(self, key: K) -> Sequence[E]:
        """The events that wait for `key`."""
        return tuple(self._numbers_by_key.entries(key).values())

    def pop(self, key: K) -> Sequence[E]:
        """Remove and return the events that wait for `key`."""
        waiting = self._numbers_by_key.pop(key)
        for number in waiting:
            self._pending.remove(number)
        return tuple(waiting.values())

    def remove(self, key: K, event: E) -> None:
        """Remove one event."""
        for number, waiting_event in self._numbers_by_key.entries(key).items():
            if waiting_event is event:
                self._pending.remove(number)
                self._numbers_by_key.remove(key, number)
                return

    def erase(self, owner: str, until_ms: int) -> None:
        """Remove the events of a user at or before this time."""
        for number in self._pending.find_covered(owner, until_ms):
            key, _ = self._pending.remove(number)
            self._numbers_by_key.remove(key, number)

    def pop_expired(self, watermark_ms: int) -> Iterator[E]:
        """Remove and yield the events whose wait is over."""
        for number, (key, event) in self._pending.due(watermark_ms):
            self._pending.remove(number)
            self._numbers_by_key.remove(key, number)
            yield event

    def oldest_ms(self) -> int | None:
        return self._pending.oldest_ms()
