"""Finds that a reader gets nothing more, although its logs go on."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from transport.records import TopicPartition

STALL_S: Final = 15.0  # a client whose broker is back connects to it within 10 s


class StallDetector:
    """Compares ends of logs, as another client knows them, with positions; told of each one that moves."""

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._since_s: float | None = None  # something is to be read, and nothing was read since

    def compare(self, ends: Mapping[TopicPartition, int], positions: Mapping[TopicPartition, int]) -> None:
        """`ends`: of all partitions that have one; one without a position is not read yet, not even to its end."""
        if all(positions.get(partition, -1) >= end for partition, end in ends.items()):
            self._since_s = None
        elif self._since_s is None:
            self._since_s = self._clock_s()

    def reset(self) -> None:
        """Something was read."""
        self._since_s = None

    def is_stalled(self) -> bool:
        return self._since_s is not None and self._clock_s() - self._since_s >= STALL_S
