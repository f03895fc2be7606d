"""Reads topics whole, as readers of committed records see them, and asks how far a group has come."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from bench.guarantee import Place

TIMEOUT_S: Final = 20.0
RETRY_S: Final = 0.1
NO_COORDINATOR: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
CONSUME_S: Final = 0.05  # `consume` waits that long for the rest of a portion, even after the end was told


class Logged(NamedTuple):
    """One record of a topic; `kafka_ms` is its own timestamp."""

    place: Place
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    kafka_ms: int


class KafkaLog:
    """A reader of one cluster, member of no group."""

    def __init__(self, *, bootstrap: str) -> None:
        self._settings = {"bootstrap.servers": bootstrap, "enable.auto.commit": False, "log_level": 3}

    def read(self, topic: str) -> Iterator[Logged]:
        """Every committed record of a topic from its beginning to its present end, each partition in order."""
        consumer = Consumer({**self._settings, "group.id": "reader", "enable.partition.eof": True})
        try:
            partitions = self._partitions(consumer, topic)
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
            yield from self._until_ends(consumer, len(partitions))
        finally:
            consumer.close()

    def ends(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The next offset of each partition."""
        consumer = Consumer({**self._settings, "group.id": "reader"})
        try:
            return {
                (topic, partition): consumer.get_watermark_offsets(TopicPartition(topic, partition), TIMEOUT_S)[1]
                for topic in topics
                for partition in self._partitions(consumer, topic)
            }
        finally:
            consumer.close()

    def committed(self, group: str, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """How far a group has committed each partition; -1001: never."""
        consumer = Consumer({**self._settings, "group.id": group})
        try:
            asked = [TopicPartition(*place) for place in places]
            return {(tp.topic, tp.partition): tp.offset for tp in committed(consumer, asked)}
        finally:
            consumer.close()

    @staticmethod
    def _partitions(consumer: Consumer, topic: str) -> list[int]:
        return sorted(consumer.list_topics(topic, TIMEOUT_S).topics[topic].partitions)

    @staticmethod
    def _until_ends(consumer: Consumer, partitions: int) -> Iterator[Logged]:
        heard_s = time.monotonic()
        while partitions and time.monotonic() - heard_s < TIMEOUT_S:
            for message in consumer.consume(1_000, CONSUME_S):
                heard_s = time.monotonic()
                error = message.error()
                if error is None:
                    yield logged(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    partitions -= 1
                else:
                    raise RuntimeError(f"A topic should be readable. Found: {error.str()}")
        if partitions:
            raise RuntimeError(f"A topic should be read to its end. Found nothing for {TIMEOUT_S} s.")


def committed(consumer: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    """The group's offsets; a coordinator that has only just been chosen is asked again."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return consumer.committed(asked, TIMEOUT_S)
        except KafkaException as failure:
            if failure.args[0].code() not in NO_COORDINATOR or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def logged(message: Message) -> Logged:
    """A message as a value; what a client without deserialisers gives is bytes, its types allow more."""
    place = Place(message.topic() or "", message.partition() or 0, message.offset() or 0)
    pairs: list[Any] = list(message.headers() or [])
    return Logged(place, message.key(), message.value(), dict(pairs), message.timestamp()[1])
