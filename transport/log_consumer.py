"""A consumer outside any group that is replaced once it gets no answer; what it returns, as records and positions."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import LostLog
from contract.settings.servers import KafkaSettings
from transport.client_errors import translate_errors
from transport.client_log import create_client
from transport.headers import decode_headers
from transport.records import OffsetRange, Record, TopicPartition, as_bytes

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0
LEADER_POLL_S: Final = 0.1
MISSING_POLL_S: Final = 2.0
# Of a partition or topic that does not exist.
MISSING: Final = (KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART)
# A partition of a topic that was just created, or whose broker went away, has no leader for a moment.
LEADER_CHANGES: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._UNKNOWN_PARTITION,
)


class LogConsumer:
    """Owns a consumer; a request that no broker answers is the last one of its client."""

    def __init__(self, *, kafka: KafkaSettings, overrides: Mapping[str, Any] | None = None) -> None:
        self._kafka, self._overrides = kafka, overrides
        self.client = create_consumer(kafka, overrides)

    @contextmanager
    def request(self, action: str) -> Iterator[Consumer]:
        """Query with the client; raises `Unavailable`: "Kafka should `action`"."""
        with translate_errors(action, self.replace):
            yield self.client

    def replace(self) -> None:
        """Use a new client from now on, which reads no partition yet."""
        self.client.close()
        self.client = create_consumer(self._kafka, self._overrides)

    def restart(self, partition: TopicPartition) -> None:
        """Read an assigned partition from its beginning again."""
        self.client.incremental_unassign([KafkaPartition(*partition)])
        self.client.incremental_assign([KafkaPartition(*partition, OFFSET_BEGINNING)])

    def fetch_offset_ranges(self, topics: Iterable[str]) -> dict[TopicPartition, OffsetRange]:
        """The present range of each partition of those topics that exist; raises `Unavailable`."""
        with self.request("return the ends of topics") as consumer:
            metadata_by_topic = consumer.list_topics(timeout=TIMEOUT_S).topics
            partitions = [
                TopicPartition(topic, number)
                for topic in topics
                if topic in metadata_by_topic
                for number in metadata_by_topic[topic].partitions
            ]
            return {partition: fetch_offset_range(consumer, partition) for partition in partitions}

    def find_missing(self, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Those of the partitions that do not exist; none if no broker answers."""
        try:
            topics = self.client.list_topics(timeout=1).topics
        except KafkaException:
            return set()
        return {p for p in partitions if p.topic not in topics or p.partition not in topics[p.topic].partitions}

    def close(self) -> None:
        self.client.close()


class MissingDetector:
    """Finds out whether partitions return no record because they were deleted, while they are read."""

    def __init__(self, consumer: LogConsumer) -> None:
        self._consumer, self._suspects = consumer, set[TopicPartition]()
        self._due_s = 0.0
        self.reset()

    def reset(self) -> None:
        """A record has arrived."""
        self._due_s = time.monotonic() + MISSING_POLL_S

    def find(self, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Those that two queries in a row do not find; there is one at most every `MISSING_POLL_S` without records."""
        if time.monotonic() < self._due_s:
            return set()
        self.reset()
        unknown = self._consumer.find_missing(partitions)
        missing, self._suspects = unknown & self._suspects, unknown
        return missing


def create_consumer(kafka: KafkaSettings, overrides: Mapping[str, Any] | None = None) -> Consumer:
    """A consumer of committed records that belongs to no group and reports the end of a partition."""
    configuration: dict[str, Any] = {
        "isolation.level": "read_committed",
        **kafka.connection(),
        "group.id": f"{kafka.group_prefix}-unused",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": 3,
        "error_cb": lambda error: None,  # an unreachable broker is reported by the request that fails
        **(overrides or {}),
    }
    return create_client(Consumer, configuration)


def fetch_offset_range(consumer: Consumer, partition: TopicPartition) -> OffsetRange:
    """The first and the next offset of a partition; while its leader changes, ask again for up to `TIMEOUT_S`.

    librdkafka refreshes its metadata after such an error, but does not repeat this request. Raises TimeoutError where
    it still knows no leader: it may have lost its brokers.
    """
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return OffsetRange(*consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=TIMEOUT_S))
        except KafkaException as error:
            if error.args[0].code() not in LEADER_CHANGES:
                raise
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{partition.log_text()}: {error.args[0].str()}") from error
        time.sleep(LEADER_POLL_S)


def has_no_offset(message: Message) -> bool:
    """Whether the log lacks the next offset, or the request for its first offset failed: the client reads no further.

    Both have one code.
    """
    error = message.error()
    return error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET


def raise_if_truncated(message: Message, partition: TopicPartition) -> None:
    """Raise `LostLog` where retention deleted the record that should be read next."""
    error = message.error()
    if error is not None and has_no_offset(message):
        raise LostLog(f"{partition} should hold every record to its end. Found: {error.str()}")


def position_after(message: Message) -> tuple[TopicPartition, int]:
    """The offset (exclusive) up to which a partition is read with this message; -1 for an error.

    The last offsets of a partition may be transaction markers, which are no records; only its end event covers them.
    """
    partition = TopicPartition(message.topic() or "", message.partition() or 0)
    error = message.error()
    if error is None:
        return partition, (message.offset() or 0) + 1
    if error.code() == KafkaError._PARTITION_EOF:
        return partition, message.offset() or 0
    log.warning(
        "No record of %s for now, the client retries: %s",
        partition.log_text(),
        error.str(),
        extra=partition.log_fields(),
    )
    return partition, -1


def to_record(message: Message) -> Record:
    partition = TopicPartition(message.topic() or "", message.partition() or 0)
    key, value = as_bytes(message.key()), as_bytes(message.value())
    return Record(partition, message.offset() or 0, key, value, decode_headers(message), message.timestamp()[1])
