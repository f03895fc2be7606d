"""The feedback topic, read from given positions to where it ended when asked."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contract.settings import KafkaSettings
from training.feedback.topic_reader import Record, RecordHandler, TopicReader


@dataclass(frozen=True, slots=True)
class FeedbackBatch:
    """The values of records, those of one partition in their order, and where to go on: "topic/partition" -> offset.

    `newest_ms`: the latest time that Kafka has of these records, 0 if none. `more`: there was more than was asked for.
    """

    values: list[bytes]
    positions: dict[str, int]
    newest_ms: int = 0
    has_more: bool = False


class FeedbackReader:
    """Positions are kept by who asks."""

    def __init__(self, *, kafka: KafkaSettings, topic: str) -> None:
        self._topic = TopicReader(kafka=kafka, topic=topic)

    def read(self, positions: Mapping[str, int], records_max: int = sys.maxsize) -> FeedbackBatch:
        """What lies between `positions` (a partition without one: its beginning) and the present ends.

        At most so many records; the rest is for the next time. A position that the topic no longer has is taken as its
        beginning. Raises `Unavailable`.
        """
        records = list[Record]()
        positions_after, has_more = self._read(positions, records.append, records_max)
        return FeedbackBatch(
            [record.value for record in records],
            positions_after,
            max((record.timestamp_ms for record in records), default=0),
            has_more,
        )

    def for_each(self, positions: Mapping[str, int], handle: Callable[[bytes], None]) -> dict[str, int]:
        """The same, each value given to `take` as it comes and none kept; returns where to go on."""
        return self._read(positions, lambda record: handle(record.value), sys.maxsize)[0]

    def offsets_for_time(self, timestamp_ms: int) -> dict[str, int]:
        """Where the first record of that time or later lies, its end where there is none; raises `Unavailable`."""
        return self._topic.offsets_for_time(timestamp_ms)

    def close(self) -> None:
        self._topic.close()

    def _read(self, positions: Mapping[str, int], handle: RecordHandler, limit: int) -> tuple[dict[str, int], bool]:
        """Give records to `take`; returns where to go on, and whether there were more than `most`."""
        starts, ends = self._topic.plan_read(positions)
        self._topic.consume(starts, ends, handle, limit)
        return {**positions, **{f"{self._topic.name}/{p}": offset for p, offset in starts.items()}}, bool(ends)
