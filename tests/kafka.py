"""What is on a topic now: every partition from its beginning to its end, as readers of committed records see it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from transport.records import Record, TopicPartition, as_bytes

FLUSH_S: Final = 30.0


def read_topics(bootstrap: str, *topics: str) -> list[Record]:
    """All records of these topics, partition by partition."""
    with open_consumer(bootstrap) as reader:
        metadata = reader.list_topics(timeout=20).topics
        partitions = [
            TopicPartition(topic, n) for topic in topics if topic in metadata for n in metadata[topic].partitions
        ]
        reader.assign([KafkaPartition(*partition, 0) for partition in partitions])
        records_by_partition, unfinished = (
            dict[TopicPartition, list[Record]]({partition: [] for partition in partitions}),
            set(partitions),
        )
        while unfinished:
            for message in reader.consume(1_000, 0.02):
                partition = TopicPartition(message.topic() or "", message.partition() or 0)
                error = message.error()
                if error is None:
                    records_by_partition[partition].append(to_record(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(partition)
        return [record for partition in sorted(records_by_partition) for record in records_by_partition[partition]]


@contextmanager
def open_consumer(bootstrap: str) -> Iterator[Consumer]:
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": "reads-by-assignment",
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",  # where the first records are gone
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 10,  # else a broker keeps the answer that nothing more is there for half a second
        "enable.auto.commit": False,
        "log_level": 0,
    }
    made = Consumer(settings)
    try:
        yield made
    finally:
        made.close()


def to_record(message: Message) -> Record:
    partition, headers = TopicPartition(message.topic() or "", message.partition() or 0), list(message.headers() or ())
    key, value = as_bytes(message.key()), as_bytes(message.value())
    return Record(partition, message.offset() or 0, key, value, headers, message.timestamp()[1])


class BlockingProducer:
    """Writes records to topics, and knows that they are there when it says so."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "log_level": 0})

    def send(
        self,
        topic: str,
        values: list[tuple[str, bytes]],
        *,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int = -1,
    ) -> None:
        """Append keys and values to a topic; returns when the broker has them."""
        for key, value in values:
            self._producer.produce(topic, value, key, headers=list(headers or ()), partition=partition)
        assert self._producer.flush(FLUSH_S) == 0
