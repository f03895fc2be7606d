"""The earliest of many event times, in memory that depends on the span of the times and not on their number."""

import heapq
from collections.abc import Iterable
from typing import Final, TypeAlias

BUCKET_MS: Final = 60_000
SinceBucket: TypeAlias = tuple[int, int, int]  # its number, the count of its times, the earliest that it had


class SinceIndex:
    """Times by bucket of a minute. The earliest is exact, or up to a minute early once its bucket has lost a time.

    Too early is safe: it only means that a little more of the log is kept, and read again after a crash.
    """

    def __init__(self, buckets: Iterable[SinceBucket] = ()) -> None:
        self._buckets = {number: [count, first_ms] for number, count, first_ms in buckets}
        self._heap = sorted(self._buckets)

    def add(self, ms: int) -> None:
        number = ms // BUCKET_MS
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [1, ms]
            heapq.heappush(self._heap, number)
        else:
            bucket[1] = min(ms, bucket[1]) if bucket[0] else ms
            bucket[0] += 1

    def remove(self, ms: int) -> None:
        """Remove a time that was added."""
        self._buckets[ms // BUCKET_MS][0] -= 1

    def earliest_ms(self) -> int | None:
        """The earliest time, or None without any."""
        while self._heap and not self._buckets[self._heap[0]][0]:
            del self._buckets[heapq.heappop(self._heap)]
        return self._buckets[self._heap[0]][1] if self._heap else None

    def buckets(self) -> list[SinceBucket]:
        """The index as it is stored."""
        return [(number, count, first_ms) for number, (count, first_ms) in self._buckets.items()]
