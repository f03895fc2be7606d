"""A buffer for events that arrive before the row that they belong to: for a limited time and up to a limited number."""

from collections.abc import Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from contract.joining.pending import PendingStore
from contract.joining.row_store import RowStore


class HasEventTime(Protocol):
    """An event, or something that wraps one."""

    @property
    def ts_ms(self) -> int:
        """Its event time."""


E = TypeVar("E", bound=HasEventTime)
PER_KEY_MAX: Final = 100  # so that a user who repeats an event endlessly costs no more than others


class EarlyEvents(Generic[E]):
    """Events by the key of the row they wait for, in the order of arrival; all of them in memory."""

    def __init__(
        self, name: str, event_type: type[E], *, wait_ms: int, limit: int, rows: RowStore | None = None
    ) -> None:
        """`name`: of the table in `rows` that has them too."""
        self._wait_ms = wait_ms
        self.pending = PendingStore[E](name, event_type, limit=limit, removed_max=0, rows=rows, is_resident=True)

    def add(self, key: str, event: E, *, owner: str = "") -> E | None:
        """Keep an event until `wait_ms` after its own time; returns the event that is evicted for it, if any."""
        due_ms = event.ts_ms + self._wait_ms
        number = str(self.pending.next_number)
        evicted = self.pending.add(number, event, since_ms=event.ts_ms, due_ms=due_ms, owner=owner, group=key)
        if evicted is None and self.pending.group_size(key) > PER_KEY_MAX:
            oldest, _ = next(iter(self.pending.in_group(key).items()))
            return self.pending.remove(oldest)
        return evicted[1] if evicted else None

    def peek(self, key: str) -> Sequence[E]:
        """The events that wait for `key`."""
        return tuple(self.pending.in_group(key).values())

    def pop(self, key: str) -> Sequence[E]:
        """Remove and return the events that wait for `key`."""
        return tuple(self.pending.remove(number) for number in self.pending.in_group(key))

    def remove(self, key: str, event: E) -> None:
        """Remove one event."""
        for number, waiting_event in self.pending.in_group(key).items():
            if waiting_event is event:
                self.pending.remove(number)
                return

    def pop_expired(self, watermark_ms: int) -> Iterator[E]:
        """Remove and yield the events whose wait is over."""
        for number, _ in self.pending.due(watermark_ms):
            yield self.pending.remove(number)
