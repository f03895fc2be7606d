"""Decodes the joiner's records, and finds out what each says about event time."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from contract.errors import BadEvent
from contract.events.model import AHEAD_MS_MAX, Event, clamp
from contract.events.reading import READERS, EventReaders
from contract.messages import ScoredRow, read_scored_row
from contract.units import DAY_MS, HOUR_MS, MINUTE_MS
from transport.kafka_times import read_clock_ms
from transport.record_reader import RecordReader, Skipped
from transport.records import Record, TopicPartition
from worker.joiner.watermarks import RecordTime
from worker.ops import metrics

JOINED_EVENTS: Final = ("impressions", "clicks", "orders", "labels")
log = logging.getLogger(__name__)
# By default a broker accepts records up to an hour ahead of its clock, and clocks differ by minutes.
CLOCK_LEAD_MS: Final = 70 * MINUTE_MS
# A row was written after its event, whose Kafka time may be an hour ahead of the row's.
ROW_AHEAD_MS_MAX: Final = HOUR_MS + 2 * AHEAD_MS_MAX


class RecordDecoder:
    """Decodes records of `kinds_by_topic`; remembers the highest Kafka time of each partition.

    Kafka's time of a record is not trusted where it is missing, ahead of this machine's clock, or a day behind records
    before it in its partition. Then the highest time of the partition so far takes its place, or the present time if
    there is none.
    """

    def __init__(
        self,
        *,
        kinds_by_topic: Mapping[str, str],
        clock_ms: Callable[[], int] = read_clock_ms,
        readers: EventReaders = READERS,
        record_reader: RecordReader | None = None,
    ) -> None:
        """`record_reader`: of the topics that maps read; the kind by topic is then the first of them."""
        self._readers = readers
        self.kinds_by_topic = kinds_by_topic
        self._record_reader = record_reader
        self._clock_ms = clock_ms
        self._highest_ms: dict[TopicPartition, int] = {}
        self._reported: set[TopicPartition] = set()
        self._has_misplaced = False

    def decode(self, record: Record) -> tuple[ScoredRow | Event | None, RecordTime | None]:
        """The message of a record, None if it is unreadable; and its time, None if that says nothing.

        The score worker writes the dead letters.
        """
        kind = self.kinds_by_topic[record.topic_partition.topic]
        now_ms = self._clock_ms()
        reference_ms, is_trusted = self._find_reference(record, now_ms)
        try:
            message, was_clamped = self._decode(kind, record, reference_ms)
        except Skipped:
            return None, None
        except (BadEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.warning(
                "Skipping unreadable record %s: %s",
                record.topic_partition.log_text(record.offset),
                error,
                extra=record.topic_partition.log_fields(record.offset),
            )
            metrics.UNREADABLE_RECORDS.labels(kind).inc()
            return None, None
        if was_clamped and not is_trusted:
            self._report(kind, record)
            return message, None
        confirming_ms = record.kafka_ms if is_trusted and not was_clamped else None
        return message, RecordTime(min(message.ts_ms, now_ms + AHEAD_MS_MAX), confirming_ms)

    def _find_reference(self, record: Record, now_ms: int) -> tuple[int, bool]:
        """The time that the record's own may not be ahead of, and whether it is the record's trusted Kafka time."""
        highest_ms = self._highest_ms.get(record.topic_partition)
        kafka_ms = record.kafka_ms
        if 0 <= kafka_ms <= now_ms + CLOCK_LEAD_MS and (highest_ms is None or kafka_ms >= highest_ms - DAY_MS):
            if highest_ms is None or kafka_ms > highest_ms:
                self._highest_ms[record.topic_partition] = kafka_ms
            return kafka_ms, True
        return (now_ms if highest_ms is None else highest_ms), False

    def _decode(self, kind: str, record: Record, reference_ms: int) -> tuple[ScoredRow | Event, bool]:
        if kind != "scored":
            event, was_clamped = clamp(self._read_event(kind, record), reference_ms)
            metrics.CLAMPED_TIMESTAMPS.inc(was_clamped)
            return event, was_clamped
        row = read_scored_row(record.value or b"")
        if row.topic in self.kinds_by_topic and row.partition != record.topic_partition.partition:
            self._report_misplaced(record)
        if row.ts_ms <= reference_ms + ROW_AHEAD_MS_MAX:
            return row, False
        metrics.CLAMPED_TIMESTAMPS.inc()
        return replace(row, ts_ms=reference_ms), True

    def _read_event(self, kind: str, record: Record) -> Event:
        if self._record_reader is None or self._record_reader.is_plain(record.topic_partition.topic):
            return self._readers[kind].read(record.value)
        if self._record_reader.is_tombstone(record):
            raise Skipped("The record deletes what its key names.")
        kind, event = self._record_reader.read(record)
        if kind not in JOINED_EVENTS:
            raise Skipped(f"{kind} are not joined.")
        return event

    def _report_misplaced(self, record: Record) -> None:
        metrics.MISPLACED_ROWS.inc()
        if not self._has_misplaced:
            self._has_misplaced = True
            log.warning(
                "%s should have the partition number of its event. Found another one: labels of its user may not be "
                "joined. The topics that are joined need as many partitions, and their producers one partitioner.",
                record.topic_partition.log_text(record.offset),
                extra=record.topic_partition.log_fields(record.offset),
            )

    def _report(self, kind: str, record: Record) -> None:
        metrics.UNTRUSTED_TIMES.labels(kind).inc()
        partition = record.topic_partition
        if partition not in self._reported:
            self._reported.add(partition)
            log.warning(
                "%s is dated in the future, and its Kafka time cannot confirm that: it is joined at the time of the "
                "records before it and does not advance the stream time. Further ones of this partition are counted.",
                partition.log_text(record.offset),
                extra=partition.log_fields(record.offset),
            )
