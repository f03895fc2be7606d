"""Sorts more lines than fit in memory: sorted runs on disk, merged as they are read."""

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

RUN_BYTES: Final = 128 * 2**20  # of lines in memory; their Python objects take about as much again
ENTRY_BYTES: Final = 120  # what an entry takes in addition to its line
KEY_BYTES: Final = 16
LENGTH_BYTES: Final = 4
BUFFER_BYTES: Final = 2**20
RANK_BITS, NUMBER_BITS = 4, 48
Entry = tuple[int, bytes]  # key and line


def make_key(ts_ms: int, rank: int, number: int) -> int:
    """A key that sorts by time, then by the rank of the kind, then by the number of the record."""
    return (((ts_ms << RANK_BITS) | rank) << NUMBER_BITS) | number


def split_key(key: int) -> tuple[int, int, int]:
    """Time, rank and number of a key."""
    number, head = key & ((1 << NUMBER_BITS) - 1), key >> NUMBER_BITS
    return head >> RANK_BITS, head & ((1 << RANK_BITS) - 1), number


class SortedRuns:
    """Entries are added in any order with distinct keys, and read once in the order of their keys."""

    def __init__(self, folder: Path, *, run_bytes: int = RUN_BYTES) -> None:
        self._folder, self._run_bytes = folder, run_bytes
        self._entries: list[Entry] = []
        self._bytes = 0
        self._runs: list[Path] = []

    def add(self, key: int, line: bytes) -> None:
        self._entries.append((key, line))
        self._bytes += len(line) + ENTRY_BYTES
        if self._bytes >= self._run_bytes:
            self._spill()

    def read(self) -> Iterator[Entry]:
        """All entries by key."""
        self._entries.sort()
        return heapq.merge(*map(read_run, self._runs), self._entries)

    def _spill(self) -> None:
        self._entries.sort()
        path = self._folder / f"run-{len(self._runs):05}"
        with path.open("wb", buffering=BUFFER_BYTES) as file:
            for key, line in self._entries:
                file.write(key.to_bytes(KEY_BYTES, "big") + len(line).to_bytes(LENGTH_BYTES, "big"))
                file.write(line)
        self._runs.append(path)
        self._entries, self._bytes = [], 0


def read_run(path: Path) -> Iterator[Entry]:
    with path.open("rb", buffering=BUFFER_BYTES) as file:
        while header := file.read(KEY_BYTES + LENGTH_BYTES):
            yield (
                int.from_bytes(header[:KEY_BYTES], "big"),
                read_exactly(file, int.from_bytes(header[KEY_BYTES:], "big")),
            )


def read_exactly(file: BinaryIO, length: int) -> bytes:
    line = file.read(length)
    assert len(line) == length, "a run is written as a whole before it is read"
    return line
