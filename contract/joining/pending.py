"""A shelf: things that wait, each since a time and until a time, and never more than a stated number of them."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from contract.joining.timers import Timers

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class PendingStore(Generic[K, T]):
    """Things by key. Each has the event time since which its parts have been arriving, and the time to look at it next.

    The oldest arrival leaves when there are more than `limit`; of the keys that left, the last `remembered` are known.
    """

    def __init__(self, *, limit: int, removed_max: int) -> None:
        self._limit, self._removed_max = limit, removed_max
        self._items: dict[K, T] = {}
        self._removed: dict[K, None] = {}
        self._since, self._due = Timers[K](), Timers[K]()

    def add(self, key: K, item: T, *, since_ms: int, due_ms: int) -> tuple[K, T] | None:
        """Add a thing under a new key; returns what had to leave for it."""
        self._items[key] = item
        self._since.schedule(key, since_ms)
        self._due.schedule(key, due_ms)
        if len(self._items) <= self._limit:
            return None
        oldest = next(iter(self._items))
        return oldest, self.remove(oldest)

    def get(self, key: K) -> T | None:
        return self._items.get(key)

    def was_removed(self, key: K) -> bool:
        """Whether a thing under this key was here and is gone, as far as this is remembered."""
        return key in self._removed

    def extend(self, key: K, ms: int) -> None:
        """Note a part of the thing that lies at `ms`, which may be before all others."""
        since_ms = self._since.get(key)
        if since_ms is not None and ms < since_ms:
            self._since.schedule(key, ms)

    def reschedule(self, key: K, due_ms: int) -> None:
        """Set the time to look at a thing."""
        self._due.schedule(key, due_ms)

    def due(self, watermark_ms: int) -> Iterator[tuple[K, T]]:
        """Each thing whose time lies before the watermark; whoever takes one wakes it again or removes it."""
        for key in self._due.pop_before(watermark_ms):
            yield key, self._items[key]

    def remove(self, key: K) -> T:
        self._since.cancel(key)
        self._due.cancel(key)
        self._removed[key] = None
        if len(self._removed) > self._removed_max:
            del self._removed[next(iter(self._removed))]
        return self._items.pop(key)

    def oldest_ms(self) -> int | None:
        """The event time since which the oldest thing waits."""
        return self._since.earliest_ms()
