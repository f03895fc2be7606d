"""Watermarks: how far the streams' own time has come, over partitions that are read at different speeds. Pure.

The watermark is the least of the highest event times seen in each partition that has more to read, so that a topic that
is read faster fires no timer before the others have told what happened until then. When every partition has been read
to its end, it is the greatest: nobody has anything earlier to tell.
"""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class Watermarks(Generic[P]):
    """The watermark of some partitions; it never goes back."""

    def __init__(self) -> None:
        self._highest: dict[P, int | None] = {}
        self._at_end: set[P] = set()
        self._now_ms: int | None = None

    def add_partitions(self, partitions: Iterable[P]) -> None:
        """Wait for these partitions from now on."""
        for partition in partitions:
            self._highest.setdefault(partition, None)

    def observe(self, partition: P, ts_ms: int) -> None:
        """A record of that event time was read."""
        highest = self._highest.get(partition)
        if highest is None or ts_ms > highest:
            self._highest[partition] = ts_ms

    def set_at_end(self, partitions: Iterable[P]) -> None:
        """Exactly these partitions have been read to their ends."""
        self._at_end = set(partitions)

    def now_ms(self) -> int | None:
        """The watermark; None until every partition has been heard of."""
        reading = [ms for partition, ms in self._highest.items() if partition not in self._at_end]
        if None in reading:
            return self._now_ms
        known = [ms for ms in reading or self._highest.values() if ms is not None]
        if known:
            watermark_ms = min(known) if reading else max(known)
            self._now_ms = watermark_ms if self._now_ms is None else max(watermark_ms, self._now_ms)
        return self._now_ms

    def partitions_ahead(self, lead_ms: int) -> set[P]:
        """Partitions that are further ahead of the slowest one with more to read than `lead_ms`."""
        reading = [ms for partition, ms in self._highest.items() if partition not in self._at_end and ms is not None]
        if not reading:
            return set()
        return {partition for partition, ms in self._highest.items() if ms is not None and ms > min(reading) + lead_ms}
