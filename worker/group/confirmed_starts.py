"""Checks that reading begins where a partition was sought, and goes on from there record by record.

Chaos runs showed partitions that went on behind the offset to which they were sought during a rebalance, at once or
after half a second: records were never read. A gap may be right, since markers of transactions and deleted records have
offsets too. So for some time after a start each gap is sought a second time, and counts where the client finds the same
position again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from transport.records import TopicPartition

WATCH_S: Final = 10.0  # after the first record or end of a partition; the client repeats requests after 0.5 s
RIGHT_GAPS_MAX: Final = 3  # of one partition, which then counts as one with markers


class ConfirmedStarts:
    """The next offset of partitions that were sought, and the position that was found in place of it."""

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self.sought: dict[TopicPartition, int] = {}  # nothing is read there yet
        self._next: dict[TopicPartition, int] = {}  # of partitions whose start was confirmed a short time ago
        self._until_s = 0.0
        self._found: dict[TopicPartition, int] = {}
        self._right_gaps = Counter[TopicPartition]()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """The partition is sought."""
        self.forget([partition])
        self.sought[partition] = offset

    def find_skipped(self, partition: TopicPartition, position: int) -> int | None:
        """The offset to seek again where reading begins at another `position` for the first time, else None."""
        sought = self.sought.get(partition)
        if sought is None:
            return None
        if position > sought and self._found.get(partition) != position:
            self._found[partition] = position
            return sought
        self.forget([partition])
        self._next[partition], self._until_s = position, self._clock_s() + WATCH_S
        return None

    def is_watching(self) -> bool:
        """Whether some partition was started a short time ago, so that `find_gap` has to see its records."""
        if self._next and self._clock_s() > self._until_s:
            self._next.clear()
        return bool(self._next)

    def find_gap(self, partition: TopicPartition, position: int) -> int | None:
        """The offset to seek again where the next record has another `position` for the first time, else None."""
        expected = self._next.get(partition)
        if position == expected:
            self._next[partition] = position + 1
            return None
        if expected is None:
            return None
        if position > expected and self._found.get(partition) != position:
            self._found[partition] = position
            return expected
        self._found.pop(partition, None)
        self._next[partition] = position + 1
        self._right_gaps[partition] += 1
        if self._right_gaps[partition] == RIGHT_GAPS_MAX:
            self.forget([partition])
        return None

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These are read from elsewhere, or no more."""
        for partition in partitions:
            self.sought.pop(partition, None)
            self._next.pop(partition, None)
            self._found.pop(partition, None)
            self._right_gaps.pop(partition, None)
