"""Looks at the brokers from outside the consumer group: ends of logs, times of records, topics, the state of a group.

It has its own clients, so that its answers do not depend on what the worker's consumer and producer wait for.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from transport.records import TopicPartition

TIMEOUT_S: Final = 5.0
LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
RECORD_TIMEOUT_S: Final = 2.0  # there may be only transaction markers
# Of a partition whose topic is being created or deleted, or whose leader changes.
TRANSIENT: Final = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
)
UNSUPPORTED: Final = (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION)
DENIED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
IDLE_GROUP_STATES: Final = ("EMPTY", "DEAD", "UNKNOWN")


class LogProbe:
    """Queries of at most `TIMEOUT_S` each; each raises `Unavailable` if Kafka does not answer. Not for two threads.

    After an error it should be replaced: its admin client keeps leaders of partitions that changed in an outage.
    """

    def __init__(self, *, kafka: KafkaSettings) -> None:
        quiet: dict[str, Any] = {**kafka.connection(), "log_level": 0, "error_cb": lambda error: None}
        self._admin = AdminClient(quiet)
        self._consumer_configuration: dict[str, Any] = {
            **quiet,
            "group.id": f"{kafka.group_prefix}-unused",
            "isolation.level": "read_uncommitted",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            # One record of each partition is enough; a broker returns a whole batch all the same.
            "queued.min.messages": 1,
            "fetch.message.max.bytes": 1_024,
        }
        self._consumer: Consumer | None = None

    def count_partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """The number of partitions of each of these topics that exists."""
        try:
            metadata_by_topic = self._open_consumer().list_topics(timeout=TIMEOUT_S).topics
        except KafkaException as error:
            raise Unavailable(f"Kafka should list its topics. Found: {error.args[0].str()}") from error
        return {topic: len(metadata_by_topic[topic].partitions) for topic in topics if topic in metadata_by_topic}

    def fetch_ends(self, partitions: Iterable[TopicPartition], *, stable: bool = False) -> dict[TopicPartition, int]:
        """The high watermark of each partition; `stable`: its last stable offset, where an open transaction begins.

        Partitions that do not exist, or have no leader for now, are left out.
        """
        requests = {KafkaPartition(*partition): LATEST for partition in partitions}
        if not requests:
            return {}
        level = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        replies = self._admin.list_offsets(requests, isolation_level=level, request_timeout=TIMEOUT_S)
        ends = {TopicPartition(tp.topic, tp.partition): wait_for(reply) for tp, reply in replies.items()}
        offsets = {partition: end.offset for partition, end in ends.items() if end is not None}
        if unknown := [partition.log_text() for partition, offset in offsets.items() if offset < 0]:
            raise Unavailable(f"Kafka should return the ends of partitions. Found none of {', '.join(unknown)}.")
        return offsets

    def fetch_times(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The Kafka time (ms) of the first record at or after each position; committed or not.

        A partition without such a record, or whose record has no time, is left out.
        """
        consumer, remaining = self._open_consumer(), set(positions)
        times: dict[TopicPartition, int] = {}
        consumer.assign([KafkaPartition(*partition, position) for partition, position in positions.items()])
        try:
            deadline_s = time.monotonic() + RECORD_TIMEOUT_S
            while remaining and time.monotonic() < deadline_s:
                for message in consumer.consume(len(remaining), 0.1):
                    partition = TopicPartition(message.topic() or "", message.partition() or 0)
                    if message.error() is None and partition in remaining:
                        remaining.remove(partition)
                        times[partition] = message.timestamp()[1]
                        consumer.incremental_unassign([KafkaPartition(*partition)])
        except KafkaException as error:
            raise Unavailable(f"Kafka should return a record. Found: {error.args[0].str()}") from error
        finally:
            consumer.unassign()
        return {partition: kafka_ms for partition, kafka_ms in times.items() if kafka_ms >= 0}

    def fetch_assigned(self, group: str) -> set[TopicPartition] | None:
        """The partitions that the members of a group have; empty during a rebalance.

        None for a group without members, and where the broker does not tell.
        """
        (reply,) = self._admin.describe_consumer_groups([group], request_timeout=TIMEOUT_S).values()
        description = wait_for(reply)
        if description is None or description.state.name in IDLE_GROUP_STATES:
            return None
        if description.state.name != "STABLE":
            return set()
        return {
            TopicPartition(tp.topic, tp.partition)
            for member in description.members
            for tp in member.assignment.topic_partitions
        }

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def _open_consumer(self) -> Consumer:
        self._consumer = self._consumer or Consumer(self._consumer_configuration)
        return self._consumer


def wait_for(reply: "Future[Any]") -> Any:
    """The result; None where there is none for now, or this client may not know it. Raises `Unavailable`."""
    try:
        return reply.result(2 * TIMEOUT_S)
    except KafkaException as error:
        code = error.args[0].code()
        if code in TRANSIENT or code in UNSUPPORTED or code in DENIED:
            return None
        raise Unavailable(f"Kafka should describe its logs. Found: {error.args[0].str()}") from error
    except TimeoutError as error:
        raise Unavailable(f"Kafka should describe its logs. Found no answer for {2 * TIMEOUT_S:g} s.") from error
