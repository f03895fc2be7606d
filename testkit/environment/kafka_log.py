"""Reads topics from beginning to end with read-committed isolation, and queries the offsets of consumer groups."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

TIMEOUT_S: Final = 20.0
RETRY_S: Final = 0.1
POLL_S: Final = 0.1
NO_COORDINATOR: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
CONSUME_S: Final = 0.05  # `consume` waits that long for a full batch, even after the end of a partition was reported
Offsets = dict[tuple[str, int], int]  # (topic, partition) -> offset


class RecordPosition(NamedTuple):
    """Topic, partition and offset of a record."""

    topic: str
    partition: int
    offset: int


class LoggedRecord(NamedTuple):
    """One record of a topic; `kafka_ms` is the record's own timestamp."""

    position: RecordPosition
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    kafka_ms: int


class KafkaLog:
    """A reader of one cluster, without membership in a group."""

    def __init__(self, *, bootstrap: str) -> None:
        self._settings = {"bootstrap.servers": bootstrap, "enable.auto.commit": False, "log_level": 3}

    def read(self, topic: str) -> Iterator[LoggedRecord]:
        """Every committed record of a topic from its beginning to its present end, each partition in order."""
        consumer = Consumer({**self._settings, "group.id": "reader", "enable.partition.eof": True})
        try:
            partitions = self._list_partitions(consumer, topic)
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
            yield from self._read_to_ends(consumer, len(partitions))
        finally:
            consumer.close()

    def read_end_offsets(self, topics: Iterable[str]) -> Offsets:
        """The next offset of each partition."""
        consumer = Consumer({**self._settings, "group.id": "reader"})
        try:
            return {
                (topic, partition): consumer.get_watermark_offsets(TopicPartition(topic, partition), TIMEOUT_S)[1]
                for topic in topics
                for partition in self._list_partitions(consumer, topic)
            }
        finally:
            consumer.close()

    def read_committed_offsets(self, group: str, partitions: Iterable[tuple[str, int]]) -> Offsets:
        """The committed offset of each partition; -1001 where the group has committed none."""
        consumer = Consumer({**self._settings, "group.id": group})
        try:
            requested = [TopicPartition(*partition) for partition in partitions]
            return {(tp.topic, tp.partition): tp.offset for tp in query_committed(consumer, requested)}
        finally:
            consumer.close()

    def find_uncommitted(self, group: str, ends: Mapping[tuple[str, int], int]) -> Offsets:
        """The committed offsets of those partitions that the group has not committed to their ends."""
        committed = self.read_committed_offsets(group, ends)
        return {partition: committed[partition] for partition, end in ends.items() if committed[partition] < end > 0}

    def wait_until_committed(self, group: str, topics: Iterable[str], timeout_s: float) -> None:
        """Return when the group has committed the present ends; raises RuntimeError after `timeout_s`."""
        ends, deadline = self.read_end_offsets(topics), time.monotonic() + timeout_s
        while uncommitted := self.find_uncommitted(group, ends):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{group} should commit everything in {timeout_s:g} s. Found {uncommitted} of {ends}."
                )
            time.sleep(POLL_S)

    @staticmethod
    def _list_partitions(consumer: Consumer, topic: str) -> list[int]:
        return sorted(consumer.list_topics(topic, TIMEOUT_S).topics[topic].partitions)

    @staticmethod
    def _read_to_ends(consumer: Consumer, unfinished: int) -> Iterator[LoggedRecord]:
        last_message_s = time.monotonic()
        while unfinished and time.monotonic() - last_message_s < TIMEOUT_S:
            for message in consumer.consume(1_000, CONSUME_S):
                last_message_s = time.monotonic()
                error = message.error()
                if error is None:
                    yield to_logged_record(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished -= 1
                else:
                    raise RuntimeError(f"A topic should be readable. Found: {error.str()}")
        if unfinished:
            raise RuntimeError(f"A topic should be read to its end. Found nothing for {TIMEOUT_S} s.")


def query_committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """The group's committed offsets; retries while the group's coordinator is being elected."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return consumer.committed(partitions, TIMEOUT_S)
        except KafkaException as failure:
            if failure.args[0].code() not in NO_COORDINATOR or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def to_logged_record(message: Message) -> LoggedRecord:
    """Convert a message; a client without deserialisers returns bytes, although its types allow more."""
    position = RecordPosition(message.topic() or "", message.partition() or 0, message.offset() or 0)
    headers: list[Any] = list(message.headers() or [])
    return LoggedRecord(position, message.key(), message.value(), dict(headers), message.timestamp()[1])
