"""Any topic in portions, each record with its place: what lies between two looks may be too much for memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.settings import Kafka
from training.topic import Record, Topic


@dataclass(frozen=True, slots=True)
class Portion:
    """Records, those of one partition in their order; where to go on; and whether these were all that there are."""

    records: list[Record]
    positions: dict[str, int]
    is_last: bool


class Portions:
    """Reads about `most` records of each partition at a time.

    `behind`: a partition without a position is read from so many records before its end, and not from its beginning.
    """

    def __init__(self, *, kafka: Kafka, topic: str, most: int, behind: int | None = None) -> None:
        self._topic = Topic(kafka=kafka, topic=topic)
        self._most, self._behind = most, behind

    def read(self, positions: Mapping[str, int]) -> Portion:
        """What comes next; a position that the topic no longer has is its beginning. Raises `Unavailable`."""
        starts, highs = self._topic.starts(positions, self._behind)
        ends = {partition: min(highs[partition], start + self._most) for partition, start in starts.items()}
        records = list[Record]()
        exhausted = self._topic.collect(starts, ends, records.append)
        after = {**positions, **{f"{self._topic.name}/{partition}": at for partition, at in starts.items()}}
        return Portion(records, after, all(p in exhausted or starts[p] >= high for p, high in highs.items()))

    def partitions(self) -> int:
        """How many the topic has; raises `Unavailable`."""
        return len(self._topic.partitions())

    def close(self) -> None:
        self._topic.close()
