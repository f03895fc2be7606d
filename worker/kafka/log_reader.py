"""The door for topics that are read by assignment, from their beginning, outside any group: to follow or to recount."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import LostLog, Unavailable
from contract.settings import KafkaSettings
from worker.kafka.consumer import Record, TopicPartition, as_bytes

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 60.0  # how long a log that should go on may give nothing
CHUNK_RECORDS: Final = 2_000


class TopicTailer:
    """Reads all partitions of some topics from their beginning, and knows when it has read what was there at first."""

    def __init__(self, *, kafka: KafkaSettings, topics: Sequence[str]) -> None:
        self._consumer = create_consumer(kafka)
        self._topics = topics
        self._end_offsets: dict[TopicPartition, int] = {}
        self._has_all_topics = False

    def open(self) -> None:
        """Begin at the beginning; raises `Unavailable`. A topic that does not exist yet is followed once it does."""
        offset_ranges = fetch_offset_ranges(self._consumer, self._topics)
        self._end_offsets = {
            partition: offset_range.high
            for partition, offset_range in offset_ranges.items()
            if offset_range.high > offset_range.low
        }
        self._consumer.assign([KafkaPartition(*partition, OFFSET_BEGINNING) for partition in offset_ranges])
        self._has_all_topics = len({partition.topic for partition in offset_ranges}) == len(self._topics)

    @property
    def partitions_behind(self) -> int:
        """In how many partitions something that was there at first is still unread."""
        return len(self._end_offsets)

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        """What has come since; asks anew for topics that did not exist."""
        if not self._has_all_topics:
            self.open()
        records = []
        for message in self._consumer.consume(records_max, wait_ms / 1000):
            partition, position = position_after(message)
            if message.error() is None:
                records.append(to_record(message))
            if position >= self._end_offsets.get(partition, position + 1):
                del self._end_offsets[partition]
        return records

    def close(self) -> None:
        self._consumer.close()


class OffsetRange(NamedTuple):
    """The first offset that a partition still holds, and its next one."""

    low: int
    high: int


class LogReader:
    """Reads partitions from their beginning to given ends, once."""

    def __init__(self, *, kafka: KafkaSettings) -> None:
        # A broker that has nothing more says so at once: the end behind a transaction is told by an answer alone.
        self._consumer = create_consumer(kafka, {"auto.offset.reset": "error", "fetch.wait.max.ms": 10})

    def fetch_offset_ranges(self, topics: Iterable[str]) -> dict[TopicPartition, OffsetRange]:
        """What there is now in each partition of those topics that exist; raises `Unavailable`."""
        return fetch_offset_ranges(self._consumer, topics)

    def offsets_for_time(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """The first offset in each partition whose record Kafka was given at `ms` or later; else its end."""
        requested = [KafkaPartition(*partition, timestamp_ms) for partition in partitions]
        if not requested:
            return {}
        try:
            offsets = {
                TopicPartition(tp.topic, tp.partition): tp.offset
                for tp in self._consumer.offsets_for_times(requested, TIMEOUT_S)
            }
            ends = fetch_offset_ranges(
                self._consumer, {partition.topic for partition, offset in offsets.items() if offset < 0}
            )
        except KafkaException as error:
            raise Unavailable(f"Kafka should tell where a time begins. Found: {error.args[0].str()}") from error
        return {partition: offset if offset >= 0 else ends[partition].high for partition, offset in offsets.items()}

    def earliest_timestamp_ms(self, starts: Mapping[TopicPartition, int]) -> int | None:
        """Kafka's time of the first record at or after these offsets, the earliest one of all partitions.

        0 where a record has no time; None where there is no record. Raises `Unavailable`.
        """
        offset_ranges = self.fetch_offset_ranges({partition.topic for partition in starts})
        remaining = {
            p: max(start, offset_ranges[p].low)
            for p, start in starts.items()
            if p in offset_ranges and offset_ranges[p].high > start
        }
        self._consumer.assign([KafkaPartition(*partition, start) for partition, start in remaining.items()])
        timestamps_ms, last_message_s = list[int](), time.monotonic()
        while remaining:
            for message in self._consumer.consume(CHUNK_RECORDS, 0.05):
                partition, position = position_after(message)
                if position >= remaining.get(partition, position + 1):
                    if message.error() is None:
                        timestamps_ms.append(max(0, message.timestamp()[1]))
                    del remaining[partition]
                    self._consumer.incremental_unassign([KafkaPartition(*partition)])
                last_message_s = time.monotonic()
            if time.monotonic() > last_message_s + IDLE_TIMEOUT_S:
                raise Unavailable(
                    f"Kafka should give a record of {sorted(remaining)}. Found {IDLE_TIMEOUT_S:g} s of none."
                )
        return min(timestamps_ms, default=None)

    def read(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int] | None = None
    ) -> Iterator[list[Record]]:
        """Every record below `ends` (exclusive), in chunks, each partition in its order; raises `Unavailable`.

        `starts`: where to begin in a partition, if not at its first record.
        """
        start_offsets = starts or {}
        remaining = {partition: end for partition, end in ends.items() if end > start_offsets.get(partition, 0)}
        self._consumer.assign(
            [KafkaPartition(*partition, start_offsets.get(partition, OFFSET_BEGINNING)) for partition in remaining]
        )
        last_message_s = time.monotonic()
        while remaining:
            records, messages = list[Record](), self._consumer.consume(CHUNK_RECORDS, 0.05)
            for message in messages:
                partition, position = position_after(message)
                raise_if_truncated(message, partition)
                if message.error() is None and position <= remaining.get(partition, 0):
                    records.append(to_record(message))
                if position >= remaining.get(partition, position + 1):
                    del remaining[partition]
                    self._consumer.incremental_unassign([KafkaPartition(*partition)])
            if messages:
                last_message_s = time.monotonic()
            elif time.monotonic() > last_message_s + IDLE_TIMEOUT_S:
                raise Unavailable(
                    f"Kafka should go on giving records of {sorted(remaining)}. Found {IDLE_TIMEOUT_S:g} s of none."
                )
            if records:
                yield records

    def close(self) -> None:
        self._consumer.close()


def raise_if_truncated(message: Message, partition: TopicPartition) -> None:
    """Raise `LostLog` where the record that should be read next is no more."""
    error = message.error()
    if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise LostLog(
            f"{partition.topic}/{partition.partition} should hold every record to its end. Found: {error.str()}"
        )


def create_consumer(kafka: KafkaSettings, overrides: Mapping[str, Any] | None = None) -> Consumer:
    """A reader of committed records that belongs to no group and tells when it has come to a partition's end."""
    configuration: dict[str, Any] = {
        "isolation.level": "read_committed",
        **kafka.connection(),
        "group.id": f"{kafka.group_prefix}-unused",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": 3,
        "error_cb": lambda error: None,  # the intake tells of brokers that are away, once
        **(overrides or {}),
    }
    return Consumer(configuration)


def fetch_offset_ranges(consumer: Consumer, topics: Iterable[str]) -> dict[TopicPartition, OffsetRange]:
    try:
        metadata_by_topic = consumer.list_topics(timeout=TIMEOUT_S).topics
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            if topic in metadata_by_topic
            for number in metadata_by_topic[topic].partitions
        ]
        offset_ranges = {}
        for partition in partitions:
            low, high = consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=TIMEOUT_S)
            offset_ranges[partition] = OffsetRange(low, high)
    except KafkaException as error:
        raise Unavailable(f"Kafka should tell its topics' ends. Found: {error.args[0].str()}") from error
    return offset_ranges


def position_after(message: Message) -> tuple[TopicPartition, int]:
    """Up to where (exclusive) a partition is read with this message; -1 if it says nothing of it.

    The last offsets of a partition may be markers of transactions, which are no records: its end says so.
    """
    partition, error = TopicPartition(message.topic() or "", message.partition() or 0), message.error()
    if error is None:
        return partition, (message.offset() or 0) + 1
    if error.code() == KafkaError._PARTITION_EOF:
        return partition, message.offset() or 0
    log.warning("Kafka has no record now, reading goes on by itself: %s", error.str())
    return partition, -1


def to_record(message: Message) -> Record:
    """The record in a message, without its headers: nobody here asks for them."""
    partition, value = TopicPartition(message.topic() or "", message.partition() or 0), as_bytes(message.value())
    return Record(partition, message.offset() or 0, as_bytes(message.key()), value, [], message.timestamp()[1])
