"""Progress: how far behind each partition is, and whether one stands still although there is something to read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from transport.records import TopicPartition
from worker.ops import metrics


@dataclass(slots=True)
class LagMonitor:
    """Compares positions with ends at each `note`; a partition with lag should move within `stall_s`."""

    stall_s: float
    _last_moved: dict[TopicPartition, tuple[int, float]] = field(
        default_factory=dict
    )  # position, and when it last moved
    stall: str | None = None

    def update(self, positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], now_s: float) -> None:
        stall = None
        for partition in self._last_moved.keys() - ends.keys():
            del self._last_moved[partition]
            metrics.LAG_RECORDS.remove(
                partition.topic, str(partition.partition)
            )  # whoever reads it now tells how far it is
        for partition, end in ends.items():
            position = positions.get(partition, 0)
            metrics.LAG_RECORDS.labels(partition.topic, str(partition.partition)).set(max(0, end - position))
            before, since = self._last_moved.get(partition, (-1, now_s))
            self._last_moved[partition] = (position, since if position == before and position < end else now_s)
            stalled_s = now_s - self._last_moved[partition][1]
            if stalled_s > self.stall_s:
                stall = (
                    f"{partition.topic}/{partition.partition} has stood at {position} of {end} for {stalled_s:.0f} s."
                )
        self.stall = stall
