"""A bounded store of pending entries, each with the event time it started at and the time it is due."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from contract.joining.multi_index import MultiIndex
from contract.joining.timers import Timers

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class PendingStore(Generic[K, T]):
    """Entries by key. Each has the event time of its earliest part, and the event time at which it is due.

    Beyond `limit`, the entry added first is evicted. The last `removed_max` removed keys are remembered.
    """

    def __init__(self, *, limit: int, removed_max: int) -> None:
        self._limit, self._removed_max = limit, removed_max
        self._items: dict[K, T] = {}
        self._owners: dict[K, str] = {}
        self._by_owner = MultiIndex[str, K, None]()
        self._removed: dict[K, None] = {}
        self._since, self._due = Timers[K](), Timers[K]()

    def add(self, key: K, item: T, *, since_ms: int, due_ms: int, owner: str = "") -> tuple[K, T] | None:
        """Add an entry of a user under a new key; returns the entry that is evicted for it, if any."""
        self._items[key] = item
        if owner:
            self._owners[key] = owner
            self._by_owner.add(owner, key, None)
        self._since.schedule(key, since_ms)
        self._due.schedule(key, due_ms)
        if len(self._items) <= self._limit:
            return None
        oldest = next(iter(self._items))
        return oldest, self.remove(oldest)

    def get(self, key: K) -> T | None:
        return self._items.get(key)

    def was_removed(self, key: K) -> bool:
        """Whether an entry with this key was removed, as far as remembered."""
        return key in self._removed

    def find_covered(self, owner: str, until_ms: int) -> list[K]:
        """The entries of a user that have a part at or before this time."""
        keys = self._by_owner.entries(owner)
        return [key for key in keys if (since_ms := self._since.get(key)) is not None and since_ms <= until_ms]

    def extend(self, key: K, ms: int) -> None:
        """Add a part at `ms` to an entry, which moves its start if the part is the earliest."""
        since_ms = self._since.get(key)
        if since_ms is not None and ms < since_ms:
            self._since.schedule(key, ms)

    def reschedule(self, key: K, due_ms: int) -> None:
        """Set when an entry is due."""
        self._due.schedule(key, due_ms)

    def due(self, watermark_ms: int) -> Iterator[tuple[K, T]]:
        """Each entry that is due before the watermark; the caller reschedules or removes it."""
        for key in self._due.pop_before(watermark_ms):
            yield key, self._items[key]

    def remove(self, key: K) -> T:
        self._since.cancel(key)
        self._due.cancel(key)
        self._removed[key] = None
        if len(self._removed) > self._removed_max:
            del self._removed[next(iter(self._removed))]
        if owner := self._owners.pop(key, ""):
            self._by_owner.remove(owner, key)
        return self._items.pop(key)

    def oldest_ms(self) -> int | None:
        """The earliest start of all entries."""
        return self._since.earliest_ms()
