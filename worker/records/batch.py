"""A batch: records decoded into arrivals, or into rejects, which become dead letters. Decoding counts both."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contract.errors import BadEvent
from contract.events import DELETABLE_KINDS, READERS, EventReader, EventReaders, UserEvent, clamp
from contract.messages import DeadLetter
from contract.profiles.entity_updates import Arrival
from transport.kafka_times import KafkaTimes
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
) -> Batch:
    """Decode each record by itself. `kinds`: the kind of events by topic. Inspected kinds leave only their rejects.

    `kafka_times`: of the records before, for records without one.
    """
    kafka_times = kafka_times or KafkaTimes()
    batch, records_by_partition = Batch(records), dict[TopicPartition, list[Record]]()
    for record in records:
        records_by_partition.setdefault(record.topic_partition, []).append(record)
    for partition, partition_records in records_by_partition.items():
        kind = kinds[partition.topic]
        metrics.EVENTS.labels(kind).inc(len(partition_records))
        batch.first_offsets[partition] = min(record.offset for record in partition_records)
        batch.end_offsets[partition] = partition_records[-1].offset + 1
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
            rejects.append(
                Reject(records[len(arrivals) + len(rejects)], error.reason, type(error).__name__, str(error))
            )
            continue
        clamped += was_clamped
        arrivals.append(Arrival(source, offset, event, topic_partition.topic, topic_partition.partition))
    metrics.CLAMPED_TIMESTAMPS.inc(clamped)
    return arrivals, rejects


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
