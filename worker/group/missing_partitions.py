"""Partitions that a group still assigns although they do not exist any more.

A topic may be recreated with fewer partitions. The group assigns its partitions again once a member finds another
number in its metadata. A static member that restarts at that time gets its former partitions without a rebalance, and
its metadata never change: no member notices, and requests about these partitions fail without end.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Final

from transport.records import TopicPartition

CONFIRM_S: Final = 1.0  # a broker may learn of new partitions later than the one that assigns them
WAITING_S: Final = 2.0  # between two queries while the worker waits for a server
REBALANCE_S: Final = 30.0  # between two rebalances


class MissingPartitions:
    """Knows which partitions of a member are missing, when to query them, and when to ask for a rebalance."""

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.partitions: set[TopicPartition] = set()  # which the group assigns to this member
        self._clock_s = clock_s
        self._suspects: set[TopicPartition] = set()
        self._query_due_s, self._rebalance_due_s = math.inf, 0.0

    def query_within(self, seconds: float) -> None:
        """Query at that time, unless a query is due earlier."""
        self._query_due_s = min(self._query_due_s, self._clock_s() + seconds)

    def take_query(self) -> bool:
        """Whether to query now; where that gets no answer, the next one is due after `WAITING_S`."""
        if (now_s := self._clock_s()) < self._query_due_s:
            return False
        self._query_due_s = now_s + WAITING_S
        return True

    def find(self, assigned: Set[TopicPartition], counts: Mapping[str, int]) -> set[TopicPartition]:
        """Those of the assigned partitions that two queries in a row did not find; `counts`: partitions by topic."""
        unknown = {partition for partition in assigned if partition.partition >= counts.get(partition.topic, 0)}
        missing = unknown & self._suspects
        self._suspects = unknown - missing
        self._query_due_s = self._clock_s() + CONFIRM_S if self._suspects else math.inf
        return missing

    def forget(self, revoked: Iterable[TopicPartition]) -> None:
        """The group does not assign these any more."""
        self.partitions.difference_update(revoked)
        self._suspects.difference_update(revoked)

    def take_rebalance(self) -> bool:
        """Whether to ask for a rebalance now; not again before `REBALANCE_S` have passed."""
        if not self.partitions or (now_s := self._clock_s()) < self._rebalance_due_s:
            return False
        self._rebalance_due_s = now_s + REBALANCE_S
        return True
