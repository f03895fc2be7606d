"""What is on a topic now: every partition from its beginning to its end, as readers of committed records see it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from worker.intake import Place, Record, as_bytes

FLUSH_S: Final = 30.0


def read(bootstrap: str, *topics: str) -> list[Record]:
    """All records of these topics, partition by partition."""
    with consumer(bootstrap) as reader:
        known = reader.list_topics(timeout=20).topics
        places = [Place(topic, n) for topic in topics if topic in known for n in known[topic].partitions]
        reader.assign([TopicPartition(*place, 0) for place in places])
        found, left = dict[Place, list[Record]]({place: [] for place in places}), set(places)
        while left:
            for message in reader.consume(1_000, 0.02):
                place = Place(message.topic() or "", message.partition() or 0)
                error = message.error()
                if error is None:
                    found[place].append(record_of(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(place)
        return [record for place in sorted(found) for record in found[place]]


@contextmanager
def consumer(bootstrap: str) -> Iterator[Consumer]:
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


def record_of(message: Message) -> Record:
    place, headers = Place(message.topic() or "", message.partition() or 0), list(message.headers() or ())
    key, value = as_bytes(message.key()), as_bytes(message.value())
    return Record(place, message.offset() or 0, key, value, headers, message.timestamp()[1])


class Sender:
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
