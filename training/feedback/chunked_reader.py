"""Any topic in chunks of bounded size: all records since the last read may be too many for memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.settings.servers import KafkaSettings
from training.feedback.read_plan import PlannedTopic
from transport.records import Record


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
        self._topic = PlannedTopic(kafka=kafka, topic=topic)
        self._limit, self._tail = limit, tail

    def read(self, positions: Mapping[str, int]) -> RecordChunk:
        """The next chunk; a position that the topic does not hold counts as its beginning. Raises `Unavailable`."""
        plan = self._topic.plan(positions, self._tail)
        ends = {partition: min(plan.ends[partition], start + self._limit) for partition, start in plan.starts.items()}
        records = [record for records in self._topic.reader.read(ends, plan.starts) for record in records]
        self._topic.confirm(plan)
        return RecordChunk(records, plan.advance(positions, ends), ends == plan.ends)

    def count_partitions(self) -> int:
        """The number of partitions of the topic; raises `Unavailable`."""
        return len(self._topic.reader.fetch_offset_ranges([self._topic.name]))

    def close(self) -> None:
        self._topic.close()
