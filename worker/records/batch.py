"""A batch: records decoded into arrivals, or into rejects, which become dead letters. Decoding counts both."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contract.errors import BadEvent
from contract.events.model import DELETABLE_KINDS, UserEvent, clamp
from contract.events.reading import READERS, EventReader, EventReaders
from contract.mapping.envelopes import describe_framing, is_framed
from contract.messages import DeadLetter
from contract.profiles.entity_updates import Arrival
from contract.profiles.record import source_family
from transport.kafka_times import KafkaTimes
from transport.record_reader import RecordReader, Skipped
from transport.records import Record, TopicPartition
from worker.kafka.outgoing import OutgoingRecord
from worker.ops import metrics
from worker.records.dead_letters import DETAIL_CHARS_MAX, build_dead_letter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that gets no answer, and why; `attempts` is the number of times it was scored or decoded."""

    record: Record
    reason: str
    error: str
    detail: str
    attempts: int = 1

    def to_dead_letter(self, topic: str, model_version: str) -> OutgoingRecord:
        """The dead letter: the original value, key and headers, with the reason in one more header."""
        topic_partition, offset = self.record.topic_partition, self.record.offset
        dead_letter = DeadLetter(
            reason=self.reason,
            error=self.error,
            detail=self.detail[:DETAIL_CHARS_MAX],
            topic=topic_partition.topic,
            partition=topic_partition.partition,
            offset=offset,
            attempts=self.attempts,
            model_version=model_version,
        )
        return build_dead_letter(topic, dead_letter, self.record.key, self.record.value, self.record.headers)


@dataclass(slots=True)
class Batch:
    """The records of one poll. `arrivals` are folded in this order; `watched` events are only reacted to."""

    records: Sequence[Record] = ()
    arrivals: list[Arrival] = field(default_factory=list)
    watched: list[Arrival] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    first_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    end_offsets: dict[TopicPartition, int] = field(default_factory=dict)  # exclusive
    _records_by_position: dict[tuple[str, int, int], Record] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def user_id(self, row: int) -> str:
        """The user of an arrival's event; empty for a product."""
        event = self.arrivals[row].event
        return event.user_id if isinstance(event, UserEvent) else ""

    def find_record(self, arrival: Arrival) -> Record:
        """The record of an event."""
        if not self._records_by_position:  # built on demand, as few batches need it
            self._records_by_position = {(*record.topic_partition, record.offset): record for record in self.records}
        return self._records_by_position[arrival.topic, arrival.partition, arrival.offset]

    def to_reject(self, arrival: Arrival, error: Exception, attempts: int) -> Reject:
        """The reject of an event that is folded but cannot be scored."""
        return Reject(self.find_record(arrival), "cannot_score", type(error).__name__, str(error), attempts)


def decode_records(
    records: Sequence[Record],
    kinds: Mapping[str, str],
    sources: Mapping[TopicPartition, str],
    watched_kinds: Sequence[str],
    inspected_kinds: Sequence[str] = (),
    *,
    kafka_times: KafkaTimes | None = None,
    readers: EventReaders = READERS,
    record_reader: RecordReader | None = None,
) -> Batch:
    """Decode each record by itself. `kinds`: the kind of events by topic. Inspected kinds leave only their rejects.

    `kafka_times`: of the records before, for records without one. `record_reader`: of the topics that maps read.
    """
    kafka_times = kafka_times or KafkaTimes()
    batch, records_by_partition = Batch(records), dict[TopicPartition, list[Record]]()
    for record in records:
        records_by_partition.setdefault(record.topic_partition, []).append(record)
    for partition, partition_records in records_by_partition.items():
        batch.first_offsets[partition] = min(record.offset for record in partition_records)
        batch.end_offsets[partition] = partition_records[-1].offset + 1
        if record_reader and not record_reader.is_plain(partition.topic):
            times_ms = kafka_times.fill(partition, [record.kafka_ms for record in partition_records])
            source = sources.get(partition, "")
            folded_kinds = [source_family(source)] if source else []
            for kind, (arrivals, rejects) in decode_mapped(partition_records, times_ms, record_reader, source).items():
                if kind in (*folded_kinds, *watched_kinds, *inspected_kinds):
                    metrics.EVENTS.labels(kind).inc(len(arrivals) + len(rejects))
                    batch.arrivals += arrivals if kind in folded_kinds else ()
                    batch.watched += arrivals if kind in watched_kinds else ()
                    batch.rejects += rejects if kind not in watched_kinds else ()
            continue
        kind = kinds[partition.topic]
        metrics.EVENTS.labels(kind).inc(len(partition_records))
        if kind in DELETABLE_KINDS:
            partition_records = [record for record in partition_records if record.value is not None or not record.key]
        times_ms = kafka_times.fill(partition, [record.kafka_ms for record in partition_records])
        arrivals, rejects = decode_partition(partition_records, times_ms, readers[kind], sources.get(partition, kind))
        if kind in watched_kinds:
            batch.watched += arrivals
            continue  # the lane that folds this kind writes its dead letters
        if kind not in inspected_kinds:
            batch.arrivals += arrivals
        batch.rejects += rejects
    return batch


def decode_partition(
    records: Sequence[Record], times_ms: Sequence[int], reader: EventReader, source: str
) -> tuple[list[Arrival], list[Reject]]:
    """The events of one partition's records, clamped by these times, and its bad records."""
    arrivals, rejects, clamped = list[Arrival](), list[Reject](), 0
    for (topic_partition, offset, _, value, _, _), kafka_ms in zip(records, times_ms, strict=True):
        try:
            event, was_clamped = clamp(reader.read(value), kafka_ms)
        except BadEvent as error:
            detail = describe_framing(value) if value and is_framed(value) else str(error)
            rejects.append(Reject(records[len(arrivals) + len(rejects)], error.reason, type(error).__name__, detail))
            continue
        clamped += was_clamped
        arrivals.append(Arrival(source, offset, event, topic_partition.topic, topic_partition.partition))
    metrics.CLAMPED_TIMESTAMPS.inc(clamped)
    return arrivals, rejects


def decode_mapped(
    records: Sequence[Record], times_ms: Sequence[int], reader: RecordReader, source: str
) -> dict[str, tuple[list[Arrival], list[Reject]]]:
    """By kind, the events of one partition of a map's topic, and its bad records.

    A record whose kind cannot be read counts as one of the topic's first kind, so that one lane writes its dead letter.
    """
    by_kind, clamped = defaultdict[str, tuple[list[Arrival], list[Reject]]](lambda: ([], [])), 0
    topic, partition = records[0].topic_partition
    first_kind = reader.first_kind(topic)
    for record, kafka_ms in zip(records, times_ms, strict=True):
        if record.value is None and reader.is_tombstone(record):
            continue
        kind = first_kind
        try:
            if (typed := reader.read_typed(record)) is not None:
                kind, event = typed
            else:
                kind, document = reader.find_kind(record)
                event = reader.readers[kind].read_document(document)
            event, was_clamped = clamp(event, kafka_ms)
        except Skipped:
            metrics.SKIPPED_RECORDS.labels(topic).inc()
            continue
        except BadEvent as error:
            by_kind[kind][1].append(Reject(record, error.reason, type(error).__name__, str(error)))
            continue
        clamped += was_clamped
        by_kind[kind][0].append(Arrival(source, record.offset, event, topic, partition))
    metrics.CLAMPED_TIMESTAMPS.inc(clamped)
    return by_kind


def report_rejects(rejects: Sequence[Reject]) -> None:
    """Count and log published dead letters."""
    for reject in rejects:
        metrics.DEAD_LETTERS.labels(reject.reason).inc()
    if rejects:
        first = rejects[0].record
        log.warning(
            "Published %d dead letters, the first of %s: %s",
            len(rejects),
            first.topic_partition.log_text(first.offset),
            rejects[0].detail,
            extra=first.topic_partition.log_fields(first.offset),
        )
