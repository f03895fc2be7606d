"""Rows of several partitions in the order of their event times, so that drift alarms follow stream time.

Partitions are read one after the other, each in its own order. A row is released once every partition that had records
in the last chunk has passed its time.
"""

import heapq
from collections.abc import Iterator, Mapping

from contract.messages import ScoredRow
from transport.records import TopicPartition


class TimeMerge:
    """Rows that wait for those of other partitions."""

    def __init__(self) -> None:
        self._heap = list[tuple[int, int, ScoredRow]]()
        self._added = 0

    def add(self, row: ScoredRow) -> None:
        heapq.heappush(self._heap, (row.ts_ms, self._added, row))
        self._added += 1

    def release(self, latest_by_partition: Mapping[TopicPartition, int]) -> Iterator[ScoredRow]:
        """The rows up to the least of these times, in order; all rows if there is none."""
        until_ms = min(latest_by_partition.values()) if latest_by_partition else None
        while self._heap and (until_ms is None or self._heap[0][0] <= until_ms):
            yield heapq.heappop(self._heap)[2]
