"""Any topic in chunks of bounded size: all records since the last read may be too many for memory."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from contract.settings.servers import KafkaSettings
from transport.log_reader import LogReader
from transport.records import OffsetRange, Record, TopicPartition

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordChunk:
    """Records, each partition in its order; where to go on; `is_last`: the topic held no more when it was asked."""

    records: list[Record]
    positions: dict[str, int]
    is_last: bool


class ChunkedReader:
    """Reads at most `limit` records of each partition at a time.

    `tail`: a partition without a position is read from that many records before its end, not from its beginning.
    """

    def __init__(self, *, kafka: KafkaSettings, topic: str, limit: int, tail: int | None = None) -> None:
        self._reader = LogReader(kafka=kafka, skips_gaps=True)
        self._topic, self._limit, self._tail = topic, limit, tail

    def read(self, positions: Mapping[str, int]) -> RecordChunk:
        """The next chunk; a position that the topic no longer holds counts as its beginning. Raises `Unavailable`."""
        starts, highs = plan_read(self._reader.fetch_offset_ranges([self._topic]), positions, self._tail)
        ends = {partition: min(highs[partition], start + self._limit) for partition, start in starts.items()}
        records = [record for records in self._reader.read(ends, starts) for record in records]
        return RecordChunk(records, {**positions, **to_positions(ends)}, ends == highs)

    def count_partitions(self) -> int:
        """The number of partitions of the topic; raises `Unavailable`."""
        return len(self._reader.fetch_offset_ranges([self._topic]))

    def close(self) -> None:
        self._reader.close()


def plan_read(
    offset_ranges: Mapping[TopicPartition, OffsetRange], positions: Mapping[str, int], tail: int | None = None
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Start and end offsets of the partitions that hold something after their position.

    A partition without a position starts at its beginning, or `tail` records before its end; one whose position the
    topic no longer holds at its beginning.
    """
    replaced = list[str]()
    starts, ends = dict[TopicPartition, int](), dict[TopicPartition, int]()
    for partition, (low, high) in offset_ranges.items():
        first = low if tail is None else max(low, high - tail)
        start = positions.get(str(partition), first)
        if not low <= start <= high:
            replaced.append(f"{partition.log_text(start)} (it has {low} to {high})")
            start = low
        if start < high:
            starts[partition], ends[partition] = start, high
    if replaced:
        log.warning(
            "Topics should hold what was not read yet. "
            "Found that they were recreated, or lost records; they are read from their beginning: %s.",
            ", ".join(replaced),
        )
    return starts, ends


def to_positions(offsets: Mapping[TopicPartition, int]) -> dict[str, int]:
    """Offsets as checkpoints hold them: by "topic/partition"."""
    return {str(partition): offset for partition, offset in offsets.items()}
