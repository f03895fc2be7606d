"""The erasures topic: read from the beginning before any event is folded or answered, then followed."""

import logging
from collections import defaultdict, deque
from typing import Final, NamedTuple

from contract.errors import BadEvent
from contract.events import Erasure, clamp, decode
from contract.profiles.erasures import Erasures
from transport.log_reader import LogReader, TopicTailer
from transport.records import Record, TopicPartition
from worker.ops import metrics
from worker.records.batch import Reject

log = logging.getLogger(__name__)
RECORDS_MAX: Final = 5_000


class ErasureRecord(NamedTuple):
    """One record of the topic: an erasure, or the reason why it is none; neither for a tombstone."""

    topic_partition: TopicPartition
    offset: int
    erasure: Erasure | None = None
    reject: Reject | None = None


class ErasureConsumer:
    """Keeps `erasures` in step with the topic; `is_ready` once everything that the topic held at start is read.

    A tombstone revokes no erasure: it only removes one from the topic that is no longer needed.
    """

    def __init__(self, *, tailer: TopicTailer, erasures: Erasures) -> None:
        self._tailer = tailer
        self.erasures = erasures
        self.last_by_user: dict[str, ErasureRecord] = {}  # the last record by user id
        # In offset order; the confirmer removes records from the left.
        self.unconfirmed = defaultdict[TopicPartition, deque[ErasureRecord]](deque)
        self.read_offsets: dict[TopicPartition, int] = {}  # the offset after the last record read, by partition
        self.is_ready = False

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The offset up to which each partition is read, transaction markers included."""
        return self._tailer.positions

    def open(self) -> None:
        """Query where the topic ends now; raises `Unavailable`."""
        self._tailer.open()

    def poll(self) -> set[str]:
        """Read new records; returns the ids of the users whom they erase."""
        records = [decode_erasure(record) for record in self._tailer.poll(RECORDS_MAX, 0 if self.is_ready else 200)]
        for erasure_record in records:
            self._add(erasure_record)
        if records:
            metrics.ERASED_PEOPLE.set(len(self.erasures))
        if not self.is_ready and not self._tailer.partitions_behind:
            self.is_ready = True
            log.info("Erasures loaded: %d users.", len(self.erasures))
        return {erasure_record.erasure.user_id for erasure_record in records if erasure_record.erasure}

    def close(self) -> None:
        self._tailer.close()

    def _add(self, record: ErasureRecord) -> None:
        self.unconfirmed[record.topic_partition].append(record)
        self.read_offsets[record.topic_partition] = record.offset + 1
        if record.erasure:
            self.erasures.add(record.erasure)
            self.last_by_user[record.erasure.user_id] = record
        elif record.reject:
            log.error(
                "Unreadable erasure %s is not carried out: %s",
                record.topic_partition.log_text(record.offset),
                record.reject.detail,
                extra=record.topic_partition.log_fields(record.offset),
            )
            metrics.BAD_ERASURES.labels(record.reject.reason).inc()


def decode_erasure(record: Record) -> ErasureRecord:
    """The erasure of a record, or why it holds none."""
    topic_partition, offset = record.topic_partition, record.offset
    if record.value is None:
        return ErasureRecord(topic_partition, offset)
    try:
        event, _ = clamp(decode("erasures", record.value), record.kafka_ms)
    except BadEvent as error:
        return ErasureRecord(
            topic_partition, offset, reject=Reject(record, error.reason, type(error).__name__, str(error))
        )
    return ErasureRecord(topic_partition, offset, erasure=event if isinstance(event, Erasure) else None)


def read_erasures(reader: LogReader, topic: str) -> tuple[Erasures, dict[TopicPartition, int]]:
    """The erasures on the topic now, and the end offset of each partition; raises `Unavailable`."""
    offset_ranges = reader.fetch_offset_ranges([topic])
    ends = {
        topic_partition: offset_range.high
        for topic_partition, offset_range in offset_ranges.items()
        if offset_range.high > offset_range.low
    }
    erasure_records = [decode_erasure(record) for records in reader.read(ends) for record in records]
    return Erasures(erasure_record.erasure for erasure_record in erasure_records if erasure_record.erasure), {
        topic_partition: offset_range.high for topic_partition, offset_range in offset_ranges.items()
    }
