"""Watermarks: how far event time has advanced over partitions that are read at different speeds. Pure.

The watermark is the lowest of the highest event times of the partitions that have more to read, so no timer fires
before the slower topics have delivered their events up to that time. When every partition has been read to its end, the
watermark is the highest event time: no earlier event can follow.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class Watermarks(Generic[P]):
    """The watermark of a set of partitions; it never goes back."""

    def __init__(self) -> None:
        self._highest: dict[P, int | None] = {}
        self._at_end: set[P] = set()
        self._now_ms: int | None = None

    def restore(self, highest: Mapping[P, int | None], now_ms: int | None) -> None:
        """Go on with the times that `highest_by_partition` and `now_ms` returned."""
        self._highest.update(highest)
        self._now_ms = now_ms

    def highest_by_partition(self) -> Mapping[P, int | None]:
        """The highest event time of each partition."""
        return self._highest

    def add_partitions(self, partitions: Iterable[P]) -> None:
        """Hold the watermark back for these partitions from now on."""
        for partition in partitions:
            self._highest.setdefault(partition, None)

    def observe(self, partition: P, ts_ms: int) -> None:
        """Record the event time of a record that was read."""
        highest = self._highest.get(partition)
        if highest is None or ts_ms > highest:
            self._highest[partition] = ts_ms

    def set_at_end(self, partitions: Iterable[P]) -> None:
        """Exactly these partitions have been read to their ends."""
        self._at_end = set(partitions)

    def now_ms(self) -> int | None:
        """The watermark; None until every partition has had an event or is at its end."""
        reading = [ms for partition, ms in self._highest.items() if partition not in self._at_end]
        if None in reading:
            return self._now_ms
        known = [ms for ms in reading or self._highest.values() if ms is not None]
        if known:
            watermark_ms = min(known) if reading else max(known)
            self._now_ms = watermark_ms if self._now_ms is None else max(watermark_ms, self._now_ms)
        return self._now_ms

    def partitions_ahead(self, lead_ms: int) -> set[P]:
        """Partitions more than `lead_ms` ahead of the slowest partition that has more to read."""
        reading = [ms for partition, ms in self._highest.items() if partition not in self._at_end and ms is not None]
        if not reading:
            return set()
        return {partition for partition, ms in self._highest.items() if ms is not None and ms > min(reading) + lead_ms}


class IdlePartitions(Generic[P]):
    """Partitions that are at their ends and have had no record for `after_s`; these hold no watermark back.

    A joiner that has caught up is at the end of nearly every partition nearly always. Only a pause tells an idle topic
    from one whose records are still to come: rows follow their events by the time that scoring takes.
    """

    def __init__(self, *, after_s: float) -> None:
        self._after_s = after_s
        self._since_s: dict[P, float] = {}

    def update(self, at_end: Iterable[P], read: Iterable[P], now_s: float) -> set[P]:
        """The idle partitions after a poll that had records of `read` and reached the ends of `at_end`."""
        for partition in read:
            self._since_s.pop(partition, None)
        self._since_s = {partition: self._since_s.get(partition, now_s) for partition in at_end}
        return {partition for partition, since_s in self._since_s.items() if now_s - since_s >= self._after_s}
