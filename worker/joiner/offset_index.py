"""An index from event time to offset: where to start reading so that all events since a given time recur. Pure."""

from dataclasses import dataclass
from typing import Final

from msgspec import Struct

ENTRIES_MAX: Final = 4_096


@dataclass(slots=True)
class OffsetEntry:
    """Records at or after `offset` have event times from `first_ms` to `highest_ms`, later than all earlier entries."""

    first_ms: int
    highest_ms: int
    offset: int


class OffsetIndexState(Struct, frozen=True):
    """An index as it is stored; `entries`: first_ms, highest_ms and offset of each."""

    entries: list[tuple[int, int, int]]
    width_ms: int
    highest_ms: int
    next_offset: int


class TimeOffsetIndex:
    """The index of one partition: at most `entries_max` entries, which grow coarser with the time that they span."""

    def __init__(self, state: OffsetIndexState | None = None, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._entries = [OffsetEntry(*entry) for entry in state.entries] if state else []
        self._width_ms = state.width_ms if state else 1
        self.highest_ms = state.highest_ms if state else 0
        # The offset after the last record that was read, 0 before the first.
        self.next_offset = state.next_offset if state else 0

    def state(self) -> OffsetIndexState:
        entries = [(entry.first_ms, entry.highest_ms, entry.offset) for entry in self._entries]
        return OffsetIndexState(entries, self._width_ms, self.highest_ms, self.next_offset)

    def observe(self, offset: int, ts_ms: int) -> None:
        """Record that an event of that time was read."""
        self.next_offset = offset + 1
        if not self._entries or ts_ms > self.highest_ms:
            self.highest_ms = max(self.highest_ms, ts_ms)
            self._add(OffsetEntry(self.highest_ms, self.highest_ms, offset))
            while len(self._entries) > self._entries_max:
                self._coarsen()

    def skip(self, offset: int) -> None:
        """Record that a record without an event was read."""
        self.next_offset = offset + 1

    def safe_offset(self, oldest_ms: int | None) -> int:
        """The offset before which every event is earlier than `oldest_ms` (None: no event is needed again).

        Entries before it are dropped, so the offset never goes back.
        """
        expired = 0
        for entry in self._entries:
            if oldest_ms is not None and entry.highest_ms >= oldest_ms:
                break
            expired += 1
        del self._entries[:expired]
        return self._entries[0].offset if self._entries else self.next_offset

    def _add(self, entry: OffsetEntry) -> None:
        """Append an entry, or widen the last one to include it."""
        if self._entries and entry.highest_ms < self._entries[-1].first_ms + self._width_ms:
            self._entries[-1].highest_ms = entry.highest_ms
        else:
            self._entries.append(entry)

    def _coarsen(self) -> None:
        self._width_ms *= 2
        entries = self._entries
        self._entries = []
        for entry in entries:
            self._add(entry)
