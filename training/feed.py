"""The feedback topic, read from given positions to where it ended when asked."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contract.settings import Kafka
from training.topic import Record, Take, Topic


@dataclass(frozen=True, slots=True)
class Fed:
    """The values of records, those of one partition in their order, and where to go on: "topic/partition" -> offset.

    `newest_ms`: the latest time that Kafka has of these records, 0 if none. `more`: there was more than was asked for.
    """

    values: list[bytes]
    positions: dict[str, int]
    newest_ms: int = 0
    more: bool = False


class Feed:
    """Positions are kept by who asks."""

    def __init__(self, *, kafka: Kafka, topic: str) -> None:
        self._topic = Topic(kafka=kafka, topic=topic)

    def read(self, positions: Mapping[str, int], records_max: int = sys.maxsize) -> Fed:
        """What lies between `positions` (a partition without one: its beginning) and the present ends.

        At most so many records; the rest is for the next time. A position that the topic no longer has is taken as its
        beginning. Raises `Unavailable`.
        """
        records = list[Record]()
        found, more = self._read(positions, records.append, records_max)
        return Fed([record.value for record in records], found, max((one.ms for one in records), default=0), more)

    def each(self, positions: Mapping[str, int], take: Callable[[bytes], None]) -> dict[str, int]:
        """The same, each value given to `take` as it comes and none kept; returns where to go on."""
        return self._read(positions, lambda record: take(record.value), sys.maxsize)[0]

    def positions_at(self, ms: int) -> dict[str, int]:
        """Where the first record of that time or later lies, its end where there is none; raises `Unavailable`."""
        return self._topic.positions_at(ms)

    def close(self) -> None:
        self._topic.close()

    def _read(self, positions: Mapping[str, int], take: Take, most: int) -> tuple[dict[str, int], bool]:
        """Give records to `take`; returns where to go on, and whether there were more than `most`."""
        starts, ends = self._topic.starts(positions)
        self._topic.collect(starts, ends, take, most)
        return {**positions, **{f"{self._topic.name}/{p}": at for p, at in starts.items()}}, bool(ends)
