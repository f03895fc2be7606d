"""The door through which training reads any topic in portions: each record with its place, to be found again.

The feedback of the learner has a door of its own (`training.feed`); here what lies between two looks may be more than
should be in memory at once.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from contract.errors import Unavailable
from contract.settings import Kafka

TIMEOUT_S: Final = 10.0
SILENCE_MAX_S: Final = 30.0
RECORDS_MAX: Final = 1_000
WAIT_S: Final = 0.1


class Record(NamedTuple):
    """One committed record; `ms`: when Kafka was given it."""

    partition: int
    offset: int
    value: bytes
    ms: int


@dataclass(frozen=True, slots=True)
class Portion:
    """Records, those of one partition in their order; where to go on; and whether these were all that there are."""

    records: list[Record]
    positions: dict[str, int]
    is_last: bool


class Portions:
    """Reads committed records of one topic by assignment, outside any group, about `most` of each partition at a time.

    `behind`: a partition without a position is read from so many records before its end, and not from its beginning.
    """

    def __init__(self, *, kafka: Kafka, topic: str, most: int, behind: int | None = None) -> None:
        configuration: dict[str, Any] = {
            "isolation.level": "read_committed",
            **kafka.connection(),
            "group.id": f"{kafka.group_prefix}-unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 3,
            "error_cb": lambda error: None,  # what cannot be reached is told once, by the question that fails
        }
        self._consumer = Consumer(configuration)
        self._topic, self._most, self._behind = topic, most, behind

    def read(self, positions: Mapping[str, int]) -> Portion:
        """What comes next; a position that the topic no longer has is its beginning. Raises `Unavailable`."""
        try:
            starts, highs = self._ask(positions)
            ends = {partition: min(highs[partition], start + self._most) for partition, start in starts.items()}
            self._consumer.assign([TopicPartition(self._topic, *start) for start in starts.items()])
            records = self._collect(starts, ends, highs)
            self._consumer.unassign()
        except KafkaException as error:
            raise Unavailable(f"Kafka should let `{self._topic}` be read. Found: {error.args[0].str()}") from error
        after = {**positions, **{f"{self._topic}/{partition}": at for partition, at in starts.items()}}
        return Portion(records, after, all(starts[partition] >= high for partition, high in highs.items()))

    def partitions(self) -> int:
        """How many the topic has; raises `Unavailable`."""
        try:
            return len(self._consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic].partitions)
        except KafkaException as error:
            raise Unavailable(f"Kafka should tell of `{self._topic}`. Found: {error.args[0].str()}") from error

    def close(self) -> None:
        self._consumer.close()

    def _ask(self, positions: Mapping[str, int]) -> tuple[dict[int, int], dict[int, int]]:
        """Where to start in each partition that has something new, and where it ends now."""
        found = self._consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic]
        starts, highs = dict[int, int](), dict[int, int]()
        for partition in found.partitions:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=TIMEOUT_S)
            first = low if self._behind is None else max(low, high - self._behind)
            start = positions.get(f"{self._topic}/{partition}", first)
            start = start if low <= start <= high else low
            if start < high:
                starts[partition], highs[partition] = start, high
        return starts, highs

    def _collect(self, starts: dict[int, int], ends: dict[int, int], highs: dict[int, int]) -> list[Record]:
        """Read until every partition has come to its end, moving `starts` along."""
        records, heard_s = list[Record](), time.monotonic()
        while ends:
            messages = self._consumer.consume(RECORDS_MAX, WAIT_S)
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > SILENCE_MAX_S:
                raise Unavailable(f"`{self._topic}` should be read to its end. Found silence for {SILENCE_MAX_S:g} s.")
            for message in messages:
                partition, error = message.partition() or 0, message.error()
                if error is None:
                    value, offset = message.value(), message.offset() or 0
                    records.append(
                        Record(partition, offset, value if isinstance(value, bytes) else b"", message.timestamp()[1])
                    )
                    starts[partition] = offset + 1
                if is_end(error):
                    highs[partition] = starts[partition]  # markers of transactions take places that hold no record
                if is_end(error) or starts[partition] >= ends.get(partition, 0):
                    ends.pop(partition, None)
        return records


def is_end(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError._PARTITION_EOF
