"""The erasures topic: read from the beginning before any event is folded or answered, then followed."""

import logging
from bisect import bisect_left
from collections import defaultdict
from typing import Final, NamedTuple

from contract.errors import BadEvent
from contract.events.model import Erasure, clamp
from contract.events.reading import READERS, EventReader
from contract.profiles.erasures import Erasures
from transport.kafka_times import KafkaTimes
from transport.log_reader import LogReader, TopicTailer
from transport.records import Record, TopicPartition
from worker.erasure.surviving import SurvivingErasures, is_copy
from worker.ops import metrics
from worker.records.batch import Reject

log = logging.getLogger(__name__)
RECORDS_MAX: Final = 5_000


class ErasureRecord(NamedTuple):
    """One record of the topic: an erasure, or the reason why it is none.

    `is_copy`: the confirmer wrote it, it is no request. `displaced_user`: the user whose earlier record on the topic
    compaction may remove because of this one.
    """

    topic_partition: TopicPartition
    offset: int
    erasure: Erasure | None = None
    reject: Reject | None = None
    is_copy: bool = False
    displaced_user: str | None = None

    @property
    def requested_erasure(self) -> Erasure | None:
        """The erasure, if the record is a request."""
        return None if self.is_copy else self.erasure


class ErasureConsumer:
    """Keeps `erasures` in step with the topic; `is_ready` once everything that the topic held at start is read.

    No record revokes an erasure, and neither does a topic that is recreated: it is read from its beginning again.
    """

    def __init__(self, *, tailer: TopicTailer, erasures: Erasures, reader: EventReader = READERS["erasures"]) -> None:
        self._tailer, self._reader = tailer, reader
        self.erasures = erasures
        self.is_ready = False
        self.topics_read = 1  # one more for each time that the topic was recreated
        self._clear()

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The offset up to which each partition is read, transaction markers included."""
        return self._tailer.positions

    def open(self) -> None:
        """Query where the topic ends now; raises `Unavailable`."""
        self._tailer.open()

    def poll(self) -> set[str]:
        """Read new records; returns the ids of the users of whom they erase more than is known."""
        records = self._tailer.poll(RECORDS_MAX, 0 if self.is_ready else 200)
        if self._tailer.take_restarted():
            self.topics_read += 1
            self._clear()
        users = {user for record in records if (user := self._add(record)) is not None}
        if records:
            metrics.ERASED_PEOPLE.set(len(self.erasures))
        if not self.is_ready and not self._tailer.partitions_behind:
            self.is_ready = True
            log.info("Erasures loaded: %d users.", len(self.erasures))
        return users

    def records_since(self, topic_partition: TopicPartition, offset: int, records_max: int) -> list[ErasureRecord]:
        """The first records of a partition from this offset on."""
        records = self._records[topic_partition]
        first = bisect_left(records, offset, key=lambda record: record.offset)
        return records[first : first + records_max]

    @property
    def topic(self) -> str:
        """The name of the topic."""
        (topic,) = self._tailer.topics
        return topic

    @property
    def topic_id(self) -> str | None:
        """The id of the topic that is read now; None if it is not known yet, or the broker has no topic ids."""
        return self._tailer.topic_id(self.topic)

    def has_partition(self, topic_partition: TopicPartition) -> bool:
        """Whether the topic that is read now has this partition."""
        return self._tailer.has_partition(topic_partition)

    def close(self) -> None:
        self._tailer.close()

    def _clear(self) -> None:
        """Forget offsets and records of the topic, but no erasure."""
        self.last_by_user: dict[str, ErasureRecord] = {}  # the last record by user id
        self.surviving, self._kafka_times = SurvivingErasures(), KafkaTimes()
        self._records = defaultdict[TopicPartition, list[ErasureRecord]](list)  # in offset order
        self.read_offsets: dict[TopicPartition, int] = {}  # the offset after the last record read, by partition

    def _add(self, record: Record) -> str | None:
        """Add the next record of its partition; returns the user if it erases more than is known."""
        erasure_record = decode_erasure(record, self._kafka_times, self._reader)
        erasure, reject = erasure_record.erasure, erasure_record.reject
        erasure_record = erasure_record._replace(displaced_user=self.surviving.add(record, erasure))
        self._records[record.topic_partition].append(erasure_record)
        self.read_offsets[record.topic_partition] = record.offset + 1
        if erasure:
            self.last_by_user[erasure.user_id] = erasure_record
            return erasure.user_id if self.erasures.add(erasure) else None
        if reject:
            log.error(
                "Record %s is no erasure, and revokes none: %s",
                record.topic_partition.log_text(record.offset),
                reject.detail,
                extra=record.topic_partition.log_fields(record.offset),
            )
            metrics.BAD_ERASURES.labels(reject.reason).inc()
        return None


def decode_erasure(
    record: Record, kafka_times: KafkaTimes | None = None, reader: EventReader = READERS["erasures"]
) -> ErasureRecord:
    """The erasure of a record, or why it holds none; `kafka_times` of the records before it."""
    topic_partition, offset = record.topic_partition, record.offset
    try:
        (kafka_ms,) = (kafka_times or KafkaTimes()).fill(topic_partition, [record.kafka_ms])
        event, _ = clamp(reader.read(record.value), kafka_ms)
    except BadEvent as error:
        return ErasureRecord(
            topic_partition, offset, reject=Reject(record, error.reason, type(error).__name__, str(error))
        )
    erasure = event if isinstance(event, Erasure) else None
    return ErasureRecord(topic_partition, offset, erasure=erasure, is_copy=is_copy(record.headers))


def read_erasures(
    reader: LogReader, topic: str, event_reader: EventReader = READERS["erasures"]
) -> tuple[Erasures, dict[TopicPartition, int]]:
    """The erasures on the topic now, and the end offset of each partition; raises `Unavailable`."""
    offset_ranges = reader.fetch_offset_ranges([topic])
    ends = {
        topic_partition: offset_range.high
        for topic_partition, offset_range in offset_ranges.items()
        if offset_range.high > offset_range.low
    }
    kafka_times = KafkaTimes()
    erasure_records = [
        decode_erasure(record, kafka_times, event_reader) for records in reader.read(ends) for record in records
    ]
    return Erasures(erasure_record.erasure for erasure_record in erasure_records if erasure_record.erasure), {
        topic_partition: offset_range.high for topic_partition, offset_range in offset_ranges.items()
    }
