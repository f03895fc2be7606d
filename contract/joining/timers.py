"""Event-time timers, one for each key; rescheduling is cheap."""

import heapq
from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
STALE_MIN: Final = 64


class Timers(Generic[K]):
    """At most one time for each key, in milliseconds.

    A time that was moved or cancelled stays in the heap until it is reached, or until stale entries outnumber the
    others, so memory is bounded by the number of keys.
    """

    def __init__(self) -> None:
        self._ms: dict[K, int] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._pushed = 0

    def schedule(self, key: K, ms: int) -> None:
        """Set the key's time, replacing an earlier one."""
        if self._ms.get(key) == ms:
            return
        self._ms[key] = ms
        self._pushed += 1  # equal times in the order of scheduling, so that keys need no order
        heapq.heappush(self._heap, (ms, self._pushed, key))
        if len(self._heap) > 2 * len(self._ms) + STALE_MIN:
            self._heap = [entry for entry in self._heap if self._ms.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def get(self, key: K) -> int | None:
        return self._ms.get(key)

    def cancel(self, key: K) -> None:
        self._ms.pop(key, None)

    def earliest_ms(self) -> int | None:
        """The earliest time, or None without any."""
        while self._heap:
            ms, _, key = self._heap[0]
            if self._ms.get(key) == ms:
                return ms
            heapq.heappop(self._heap)
        return None

    def pop_before(self, ms: int) -> Iterator[K]:
        """Remove and yield each key whose time is before `ms`, earliest first; keys may be added in the loop."""
        while (earliest_ms := self.earliest_ms()) is not None and earliest_ms < ms:
            key = heapq.heappop(self._heap)[2]
            del self._ms[key]
            yield key
