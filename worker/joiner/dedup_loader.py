"""Reading back what earlier lives of the joiner have said, from the topics that it writes.

Positions lag behind what waits, so a new life reads much again, and would say it again. What its records can have led
to was written after the earliest of them: from there on the joiner's own topics tell what was said already.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from contract.settings import Settings
from transport.log_reader import LogReader
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.joiner.dedup import PublishedOutputs, example_key, judgement_key

log = logging.getLogger(__name__)
# Kafka's times of what is read may lie ahead of those of what is written: by default a broker takes records up to an
# hour ahead of its clock, and clocks differ by minutes.
TIMESTAMP_LEAD_MS: Final = 70 * 60 * 1000


class ExampleIdentity(Struct, frozen=True, gc=False):
    """What of an example tells which one it is."""

    example_id: str
    revision: int
    item_id: str = ""


class JudgementIdentity(Struct, frozen=True, gc=False):
    """What of a judgement tells which one it is."""

    judged_event_id: str
    event_id: str
    task: str


decode_example: Final = msgspec.msgpack.Decoder(ExampleIdentity).decode
decode_judgement: Final = msgspec.json.Decoder(JudgementIdentity).decode


class DedupLoader:
    """Reads what was said. `meanwhile` is called after each chunk of records."""

    def __init__(self, *, settings: Settings, on_chunk: Callable[[], None]) -> None:
        self._topics = (settings.topics.feedback, settings.topics.judgements)
        self._kafka, self._limit, self._on_chunk = settings.kafka, settings.feedback.said_max, on_chunk

    def load(self, offsets: Mapping[TopicPartition, PartitionOffsets]) -> PublishedOutputs:
        """What was said of records from the group's positions on; raises `Unavailable`.

        Nobody may write to the topics any more under the name of this joiner but this one.
        """
        published, reader = PublishedOutputs(limit=self._limit), LogReader(kafka=self._kafka)
        try:
            first_ms = reader.earliest_timestamp_ms(
                {partition: start_offset(partition_offsets) for partition, partition_offsets in offsets.items()}
            )
            if first_ms is not None:
                for records in self._read_outputs(reader, first_ms - TIMESTAMP_LEAD_MS):
                    self._add(published, records)
                    self._on_chunk()
        finally:
            reader.close()
        published.freeze()
        log.info(
            "What is read again had led to at most %d examples and judgements; none is published twice.", len(published)
        )
        return published

    def _read_outputs(self, reader: LogReader, begin_ms: int) -> Iterable[list[Record]]:
        ends = {
            partition: offset_range.high for partition, offset_range in reader.fetch_offset_ranges(self._topics).items()
        }
        return reader.read(ends, reader.offsets_for_time(ends, max(0, begin_ms)))

    def _add(self, published: PublishedOutputs, records: Iterable[Record]) -> None:
        keys, rows = list[str](), list[str]()
        for record in records:
            try:
                if record.topic_partition.topic == self._topics[0]:
                    example = decode_example(record.value or b"")
                    keys.append(example_key(example.example_id, example.revision))
                    rows += [] if example.item_id else [example.example_id]
                else:
                    judgement = decode_judgement(record.value or b"")
                    keys.append(judgement_key(judgement.judged_event_id, judgement.event_id, judgement.task))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # whoever wrote it, it was no joiner
        published.add(keys, rows)


def start_offset(offsets: PartitionOffsets) -> int:
    """Where the group goes on in a partition."""
    return offsets.low if offsets.committed is None else max(offsets.low, offsets.committed)
