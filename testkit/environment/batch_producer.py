"""Produces a whole set of records and waits until all of them are acknowledged."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from confluent_kafka import Producer

FLUSH_TIMEOUT_S: Final = 120.0
FULL_QUEUE_POLL_S: Final = 0.1
ANY_PARTITION: Final = -1


class OutgoingRecord(NamedTuple):
    """A record to produce; without `partition`, its key decides."""

    topic: str
    key: str | None
    value: bytes | None
    partition: int = ANY_PARTITION


def produce_all(producer: Producer, records: Iterable[OutgoingRecord]) -> None:
    """Produce in the given order; raises RuntimeError if Kafka does not acknowledge everything in time."""
    for record in records:
        produce_when_queue_has_room(producer, record)
    if waiting := producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"Kafka should take every record. Found {waiting} waiting.")


def produce_when_queue_has_room(producer: Producer, record: OutgoingRecord) -> None:
    while True:
        try:
            producer.produce(record.topic, record.value, record.key, record.partition)
            return
        except BufferError:
            producer.poll(FULL_QUEUE_POLL_S)
