"""Any topic in portions, each record with its place: what lies between two looks may be too much for memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.settings import KafkaSettings
from training.feedback.topic_reader import Record, TopicReader


@dataclass(frozen=True, slots=True)
class RecordChunk:
    """Records, those of one partition in their order; where to go on; and whether these were all that there are."""

    records: list[Record]
    positions: dict[str, int]
    is_last: bool


class ChunkedReader:
    """Reads about `most` records of each partition at a time.

    `behind`: a partition without a position is read from so many records before its end, and not from its beginning.
    """

    def __init__(self, *, kafka: KafkaSettings, topic: str, limit: int, tail: int | None = None) -> None:
        self._topic = TopicReader(kafka=kafka, topic=topic)
        self._limit, self._tail = limit, tail

    def read(self, positions: Mapping[str, int]) -> RecordChunk:
        """What comes next; a position that the topic no longer has is its beginning. Raises `Unavailable`."""
        starts, high_offsets = self._topic.plan_read(positions, self._tail)
        ends = {partition: min(high_offsets[partition], start + self._limit) for partition, start in starts.items()}
        records = list[Record]()
        at_end = self._topic.consume(starts, ends, records.append)
        after = {**positions, **{f"{self._topic.name}/{partition}": offset for partition, offset in starts.items()}}
        return RecordChunk(records, after, all(p in at_end or starts[p] >= high for p, high in high_offsets.items()))

    def count_partitions(self) -> int:
        """How many the topic has; raises `Unavailable`."""
        return len(self._topic.list_partitions())

    def close(self) -> None:
        self._topic.close()
