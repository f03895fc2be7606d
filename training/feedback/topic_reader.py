"""The door to Kafka in training: committed records of one topic, by assignment, outside any group.

Positions are "topic/partition" -> offset, and kept by who asks: inside a checkpoint, or nowhere.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from contract.errors import Unavailable
from contract.settings import KafkaSettings

TIMEOUT_S: Final = 10.0
SILENCE_MAX_S: Final = 30.0
RECORDS_MAX: Final = 1_000
WAIT_S: Final = 0.1  # a batch that does not fill is waited for so long


class Record(NamedTuple):
    """One committed record; `ms`: when Kafka was given it."""

    partition: int
    offset: int
    value: bytes
    timestamp_ms: int


RecordHandler = Callable[[Record], None]


class TopicReader:
    """Everything raises `Unavailable` where Kafka does not answer."""

    def __init__(self, *, kafka: KafkaSettings, topic: str) -> None:
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
        self.name = topic

    def list_partitions(self) -> list[int]:
        """The numbers of its partitions."""
        with self._rename_errors("tell of"):
            return sorted(self._consumer.list_topics(self.name, timeout=TIMEOUT_S).topics[self.name].partitions)

    def query_bounds(self) -> dict[int, tuple[int, int]]:
        """Where each partition begins and ends now."""
        with self._rename_errors("tell of"):
            return {
                partition: self._consumer.get_watermark_offsets(TopicPartition(self.name, partition), TIMEOUT_S)
                for partition in self.list_partitions()
            }

    def plan_read(self, positions: Mapping[str, int], tail: int | None = None) -> tuple[dict[int, int], dict[int, int]]:
        """Where to start in each partition that has something new, and where it ends now.

        A partition without a position starts at its beginning, or `behind` before its end; one whose position the topic
        no longer has at its beginning.
        """
        starts, ends = dict[int, int](), dict[int, int]()
        for partition, (low, high) in self.query_bounds().items():
            first = low if tail is None else max(low, high - tail)
            start = positions.get(f"{self.name}/{partition}", first)
            start = start if low <= start <= high else low
            if start < high:
                starts[partition], ends[partition] = start, high
        return starts, ends

    def offsets_for_time(self, timestamp_ms: int) -> dict[str, int]:
        """Where the first record of that time or later lies; its end where there is none."""
        ends = {partition: high for partition, (_, high) in self.query_bounds().items()}
        with self._rename_errors("tell of"):
            requests = [TopicPartition(self.name, partition, timestamp_ms) for partition in ends]
            offsets = self._consumer.offsets_for_times(requests, TIMEOUT_S)
        return {f"{self.name}/{p.partition}": p.offset if p.offset >= 0 else ends[p.partition] for p in offsets}

    def consume(
        self, starts: dict[int, int], ends: dict[int, int], handle: RecordHandler, limit: int = sys.maxsize
    ) -> set[int]:
        """Give records to `take` until every partition has come to its end, or there is enough.

        Moves `starts` along and takes from `ends` what was read to it; returns the partitions that have no more now, at
        whatever offset: markers of transactions take places that hold no record.
        """
        with self._rename_errors("give records of"):
            self._consumer.assign([TopicPartition(self.name, *start) for start in starts.items()])
            at_end = self._consume(starts, ends, handle, limit)
            self._consumer.unassign()
        return at_end

    def close(self) -> None:
        self._consumer.close()

    def _consume(self, starts: dict[int, int], ends: dict[int, int], handle: RecordHandler, limit: int) -> set[int]:
        at_end, count, last_message_s = set[int](), 0, time.monotonic()
        while ends and count < limit:
            messages = self._consumer.consume(min(RECORDS_MAX, limit - count), WAIT_S)
            if messages:
                last_message_s = time.monotonic()
            elif time.monotonic() - last_message_s > SILENCE_MAX_S:
                raise Unavailable(f"`{self.name}` should be read to its end. Found silence for {SILENCE_MAX_S:g} s.")
            for message in messages:
                partition = message.partition() or 0
                if is_partition_end(message.error()):
                    at_end.add(partition)
                elif message.error() is None:
                    handle(to_record(message))
                    count, starts[partition] = count + 1, (message.offset() or 0) + 1
                if partition in at_end or starts[partition] >= ends.get(partition, 0):
                    ends.pop(partition, None)
        return at_end

    @contextmanager
    def _rename_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise Unavailable(f"Kafka should {action} `{self.name}`. Found: {error.args[0].str()}") from error


def to_record(message: Message) -> Record:
    value = message.value()
    return Record(
        message.partition() or 0,
        message.offset() or 0,
        value if isinstance(value, bytes) else b"",
        max(message.timestamp()[1], 0),
    )


def is_partition_end(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError._PARTITION_EOF
