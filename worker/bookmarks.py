"""Bookmarks: from where a partition is read again so that all events since a given time come again. Pure."""

from dataclasses import dataclass
from typing import Final

MARKS_MAX: Final = 4_096


@dataclass(slots=True)
class Mark:
    """From `offset` on there are events later than those of the marks before: of `first_ms` to `highest_ms`."""

    first_ms: int
    highest_ms: int
    offset: int


class Bookmarks:
    """What one partition has told so far: a bounded number of marks, the coarser the longer the time they span."""

    def __init__(self, *, marks_max: int = MARKS_MAX) -> None:
        self._marks_max = marks_max
        self._marks: list[Mark] = []
        self._width_ms = 1
        self.highest_ms = 0
        self.position_read = 0  # the offset after the last record that was read

    def note(self, offset: int, ts_ms: int) -> None:
        """An event of that time was read."""
        self.position_read = offset + 1
        if not self._marks or ts_ms > self.highest_ms:
            self.highest_ms = max(self.highest_ms, ts_ms)
            self._add(Mark(self.highest_ms, self.highest_ms, offset))
            while len(self._marks) > self._marks_max:
                self._coarsen()

    def skip(self, offset: int) -> None:
        """A record without an event was read."""
        self.position_read = offset + 1

    def position(self, oldest_ms: int | None) -> int:
        """The offset before which no event lies at `oldest_ms` or later (None: nothing is needed again).

        Marks before it are dropped: what is asked for later may lie earlier only if it was noted later.
        """
        passed = 0
        for mark in self._marks:
            if oldest_ms is not None and mark.highest_ms >= oldest_ms:
                break
            passed += 1
        del self._marks[:passed]
        return self._marks[0].offset if self._marks else self.position_read

    def _add(self, mark: Mark) -> None:
        """Add a mark, or widen the last one to hold it."""
        if self._marks and mark.highest_ms < self._marks[-1].first_ms + self._width_ms:
            self._marks[-1].highest_ms = mark.highest_ms
        else:
            self._marks.append(mark)

    def _coarsen(self) -> None:
        self._width_ms *= 2
        marks, self._marks = self._marks, []
        for mark in marks:
            self._add(mark)
