"""Kafka clients for tests: they print nothing, and are closed before their broker stops."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from devservers.librdkafka import SILENT
from transport.records import Record, TopicPartition, as_bytes

FLUSH_S: Final = 30.0
METADATA_S: Final = 20.0


def read_topics(bootstrap: str, *topics: str) -> list[Record]:
    """All committed records of these topics, from beginning to end, partition by partition."""
    with open_consumer(bootstrap) as consumer:
        partitions = list_partitions(consumer, topics)
        consumer.assign([KafkaPartition(*partition, 0) for partition in partitions])
        records_by_partition: dict[TopicPartition, list[Record]] = {partition: [] for partition in partitions}
        unfinished = set(partitions)
        while unfinished:
            for message in consumer.consume(1_000, 0.02):
                partition = TopicPartition(message.topic() or "", message.partition() or 0)
                error = message.error()
                if error is None:
                    records_by_partition[partition].append(to_record(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(partition)
        return [record for partition in sorted(partitions) for record in records_by_partition[partition]]


@contextmanager
def open_consumer(bootstrap: str, group: str = "reads-by-assignment") -> Iterator[Consumer]:
    """A consumer that starts at the beginning of a topic and commits nothing; closed at the end of the block."""
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",  # if the first records were deleted
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 10,  # by default a broker delays the answer at the end of a partition by 0.5 s
        "enable.auto.commit": False,
        **SILENT,
    }
    consumer = Consumer(settings)
    try:
        yield consumer
    finally:
        consumer.close()


def list_partitions(consumer: Consumer, topics: Iterable[str]) -> list[TopicPartition]:
    """The partitions of those of the topics that exist."""
    metadata = consumer.list_topics(timeout=METADATA_S).topics
    return [TopicPartition(topic, n) for topic in topics if topic in metadata for n in metadata[topic].partitions]


def to_record(message: Message) -> Record:
    partition = TopicPartition(message.topic() or "", message.partition() or 0)
    key, value, headers = as_bytes(message.key()), as_bytes(message.value()), list(message.headers() or ())
    return Record(partition, message.offset() or 0, key, value, headers, message.timestamp()[1])


class BlockingProducer:
    """Writes records to topics; `send` returns once the broker has them."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, **SILENT})

    def send(
        self,
        topic: str,
        values: Iterable[tuple[str | None, bytes | None]],
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = -1,
        timestamp_ms: int = 0,
    ) -> None:
        """Append keys and values to a topic. `partition` -1: by key; `timestamp_ms` 0: the current time."""
        for key, value in values:
            self._producer.produce(
                topic, value, key, headers=list(headers), partition=partition, timestamp=timestamp_ms
            )
        assert self._producer.flush(FLUSH_S) == 0

    def close(self) -> None:
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
