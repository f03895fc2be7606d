"""The lag of each partition, and whether one stalls: it does not advance although there is something to read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from transport.records import TopicPartition
from worker.ops import metrics


class LastMove(NamedTuple):
    """A partition's position, and since when it is there or has nothing to read."""

    position: int
    since_s: float


@dataclass(slots=True)
class LagMonitor:
    """Compares positions with ends at each `update`; a partition with lag should advance within `stall_s`."""

    stall_s: float
    stall: str | None = None  # the stalled partition in words
    _last_moves: dict[TopicPartition, LastMove] = field(default_factory=dict)

    def update(self, positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], now_s: float) -> None:
        """Compare the positions of the partitions that this member holds now with their ends."""
        for partition in self._last_moves.keys() - ends.keys():
            del self._last_moves[partition]
            metrics.LAG_RECORDS.remove(partition.topic, str(partition.partition))  # its new owner reports it
        self.stall = None
        for partition, end in ends.items():
            position = positions.get(partition, 0)
            metrics.LAG_RECORDS.labels(partition.topic, str(partition.partition)).set(max(0, end - position))
            last_move = self._last_moves.get(partition)
            if last_move is None or position != last_move.position or position >= end:
                last_move = LastMove(position, now_s)
            self._last_moves[partition] = last_move
            stalled_s = now_s - last_move.since_s
            if stalled_s > self.stall_s:
                self.stall = (
                    f"{partition.topic}/{partition.partition} has stood at {position} of {end} for {stalled_s:.0f} s."
                )
