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
        self._sought: dict[TopicPartition, int] = {}  # nothing is read there yet
        self._watched: dict[TopicPartition, int] = {}  # the next offset
        self._watched_until_s = 0.0
        self._found: dict[TopicPartition, int] = {}
        self._right_gaps = Counter[TopicPartition]()

    def __bool__(self) -> bool:
        """Whether the offsets of any partition have to be checked."""
        if self._watched and self._clock_s() > self._watched_until_s:
            self._watched.clear()
        return bool(self._sought or self._watched)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """The partition is sought."""
        self.forget([partition])
        self._sought[partition] = offset

    def find_skipped(self, partition: TopicPartition, position: int, *, is_end: bool = False) -> int | None:
        """The offset to seek again where the client is at another `position` for the first time, else None.

        `is_end`: the position is that of the partition's end, and not of a record.
        """
        expected = self._sought.get(partition, self._watched.get(partition))
        if expected is None:
            return None
        if position <= expected or self._found.get(partition) == position:
            if self._sought.pop(partition, None) is not None:
                self._watched_until_s = self._clock_s() + WATCH_S
            self._found.pop(partition, None)
            self._watched[partition] = position if is_end else position + 1
            self._right_gaps[partition] += position > expected
            if self._right_gaps[partition] == RIGHT_GAPS_MAX:
                self.forget([partition])
            return None
        self._found[partition] = position
        return expected

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These are read from elsewhere, or no more."""
        for partition in partitions:
            self._sought.pop(partition, None)
            self._watched.pop(partition, None)
            self._found.pop(partition, None)
            self._right_gaps.pop(partition, None)
