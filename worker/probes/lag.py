"""The lag of each partition in records and in seconds, and since when it stands: does not advance although it lags."""

from dataclasses import dataclass, field
from typing import NamedTuple

from transport.records import TopicPartition
from worker.ops import metrics
from worker.probes.progress import NO_POSITIONS, Positions


class RecordAge(NamedTuple):
    """The age of the record at a position, as of `at_s`."""

    position: int
    age_s: float
    at_s: float


@dataclass(slots=True)
class PartitionLag:
    """A partition's position and end, and since when (monotonic) it is there or had nothing to read."""

    position: int
    end: int
    since_s: float
    mark: tuple[int, int] = (-1, -1)  # changes as long as the partition advances
    age: RecordAge | None = None
    is_end_known: bool = True

    @property
    def records(self) -> int:
        """Records to the end; at least 1 while the end is not known, since 0 would say that there is none."""
        return max(0 if self.is_end_known else 1, self.end - self.position)

    def seconds(self, now_s: float) -> float:
        """The age of the next record, else the time since the position moved; 0 without lag.

        While the position moves, the age is as of the last measurement.
        """
        if not self.records:
            return 0.0
        if self.age is None:
            return now_s - self.since_s
        if self.age.position == self.position:
            return max(0.0, self.age.age_s + now_s - self.age.at_s)
        return max(0.0, self.age.age_s)


@dataclass(slots=True)
class LagMonitor:
    """Compares positions with ends at each `update`, and shows the lag as metrics."""

    partitions: dict[TopicPartition, PartitionLag] = field(default_factory=dict)

    def update(
        self,
        positions: Positions,
        ends: Positions,
        now_s: float,
        *,
        are_ends_known: bool = True,
        folded: Positions = NO_POSITIONS,
        worked_s: float = 0.0,
    ) -> None:
        """Compare the positions of exactly the partitions in `ends` with their ends.

        A partition also advances while what is `folded` does, as after a loss of state. `worked_s`: when the worker
        last showed that it advances.
        """
        for partition in self.partitions.keys() - ends.keys():
            del self.partitions[partition]
            for gauge in (metrics.LAG_RECORDS, metrics.LAG_SECONDS):
                gauge.remove(partition.topic, str(partition.partition))  # its new owner reports it
        for partition, end in ends.items():
            position = positions.get(partition, 0)
            lag = self.partitions.setdefault(partition, PartitionLag(position, end, now_s))
            mark = position, folded.get(partition, 0)
            if mark != lag.mark or (are_ends_known and position >= end):
                lag.since_s = now_s
            lag.since_s = max(lag.since_s, worked_s)
            lag.mark, lag.position, lag.end, lag.is_end_known = mark, position, end, are_ends_known
            if not lag.records:
                lag.age = None
            labels = partition.topic, str(partition.partition)
            metrics.LAG_RECORDS.labels(*labels).set(lag.records)
            metrics.LAG_SECONDS.labels(*labels).set(lag.seconds(now_s))

    def record_ages(self, kafka_ms: Positions, positions: Positions, now_ms: int, now_s: float) -> None:
        """Keep the ages of the records at these positions, by their Kafka times."""
        for partition, position in positions.items():
            lag = self.partitions.get(partition)
            if lag is not None and partition in kafka_ms:
                lag.age = RecordAge(position, (now_ms - kafka_ms[partition]) / 1000, now_s)

    def lagging(self) -> dict[TopicPartition, int]:
        """The positions of the partitions that lag."""
        return {partition: lag.position for partition, lag in list(self.partitions.items()) if lag.records}
