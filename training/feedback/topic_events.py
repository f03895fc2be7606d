"""The records and events of a kind's topic, from its beginning to its present end."""

from collections.abc import Iterator
from typing import Final

from contract.errors import BadEvent
from contract.events.model import clamp
from contract.events.reading import EventReader
from contract.settings.reading import Settings
from training.feedback.chunked_reader import ChunkedReader
from transport.kafka_times import KafkaTimes
from transport.records import Record

CHUNK_RECORDS: Final = 20_000


def read_records(settings: Settings, kind: str) -> Iterator[Record]:
    """Every record of a kind's topic from its beginning to its current end."""
    reader = ChunkedReader(kafka=settings.kafka, topic=settings.topics.topic_name(kind), limit=CHUNK_RECORDS)
    try:
        positions, is_last = dict[str, int](), False
        while not is_last:
            chunk = reader.read(positions)
            yield from chunk.records
            positions, is_last = chunk.positions, chunk.is_last
    finally:
        reader.close()


def decode_event(reader: EventReader, record: Record, kafka_times: KafkaTimes) -> object:
    """The event as a worker decodes it; None for a dead letter."""
    try:
        (kafka_ms,) = kafka_times.fill(record.topic_partition, [record.kafka_ms])
        event, _ = clamp(reader.read(record.value), kafka_ms)
    except BadEvent:
        return None
    return event
