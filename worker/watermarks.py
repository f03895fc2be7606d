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
        self._ended: set[P] = set()
        self._now_ms: int | None = None

    def follow(self, places: Iterable[P]) -> None:
        """Wait for these partitions from now on."""
        for place in places:
            self._highest.setdefault(place, None)

    def see(self, place: P, ts_ms: int) -> None:
        """A record of that event time was read."""
        highest = self._highest.get(place)
        if highest is None or ts_ms > highest:
            self._highest[place] = ts_ms

    def end(self, places: Iterable[P]) -> None:
        """Exactly these partitions have been read to their ends."""
        self._ended = set(places)

    def now_ms(self) -> int | None:
        """The watermark; None until every partition has been heard of."""
        reading = [ms for place, ms in self._highest.items() if place not in self._ended]
        if None in reading:
            return self._now_ms
        known = [ms for ms in reading or self._highest.values() if ms is not None]
        if known:
            found = min(known) if reading else max(known)
            self._now_ms = found if self._now_ms is None else max(found, self._now_ms)
        return self._now_ms

    def ahead(self, lead_ms: int) -> set[P]:
        """Partitions that are further ahead of the slowest one with more to read than `lead_ms`."""
        reading = [ms for place, ms in self._highest.items() if place not in self._ended and ms is not None]
        if not reading:
            return set()
        return {place for place, ms in self._highest.items() if ms is not None and ms > min(reading) + lead_ms}
