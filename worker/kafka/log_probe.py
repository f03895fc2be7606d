"""Looks at the brokers from outside the consumer group: ends of logs, times of records, topics, the state of a group.

It has its own clients, so that its answers do not depend on what the worker's consumer and producer wait for.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition

from contract.settings.servers import KafkaSettings
from transport.admin_connection import AdminConnection
from transport.log_consumer import LogConsumer
from transport.log_ends import DENIED, TRANSIENT, UNSUPPORTED, fetch_log_ends
from transport.records import TopicPartition
from transport.topic_watcher import read_topic_id
from worker.group.member_assignment import decode_assignment

TIMEOUT_S: Final = 5.0
RECORD_TIMEOUT_S: Final = 2.0  # there may be only transaction markers
IDLE_GROUP_STATES: Final = ("Empty", "Dead", "")
STABLE: Final = "Stable"
UNTOLD: Final = (*UNSUPPORTED, *DENIED)


class TopicFacts(NamedTuple):
    """What a broker says of topics: which operations the user lacks, by topic, and the ids of those that exist."""

    lacking: dict[str, list[str]]
    ids: dict[str, str]


class LogProbe:
    """Queries of at most `TIMEOUT_S` each; each raises `Unavailable` if Kafka does not answer. Not for two threads."""

    def __init__(self, *, kafka: KafkaSettings) -> None:
        quiet: dict[str, Any] = {"log_level": 0, "error_cb": lambda error: None}
        self._tells_operations = kafka.topic_ids  # the mock cluster knows no users
        self._admin = AdminConnection(kafka=kafka, overrides=quiet)
        self._consumer = LogConsumer(
            kafka=kafka,
            overrides={
                **quiet,
                "isolation.level": "read_uncommitted",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": False,
                "fetch.wait.max.ms": 100,
                # One record of each partition is enough; a broker returns a whole batch all the same.
                "queued.min.messages": 1,
                "fetch.message.max.bytes": 1_024,
            },
        )

    def count_partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """The number of partitions of each of these topics that exists."""
        with self._consumer.request("list its topics") as consumer:
            metadata_by_topic = consumer.list_topics(timeout=TIMEOUT_S).topics
        return {topic: len(metadata_by_topic[topic].partitions) for topic in topics if topic in metadata_by_topic}

    def describe_topics(self, operations: Mapping[str, Sequence[str]]) -> TopicFacts:
        """Which of these operations the user may not do, by topic, and the topics' ids.

        Nothing from brokers that do not say.
        """
        if not self._tells_operations:
            return TopicFacts({}, {})
        with self._admin.request("describe its topics") as client:
            replies = client.describe_topics(
                TopicCollection(list(operations)), include_authorized_operations=True, request_timeout=TIMEOUT_S
            )
            described = {topic: wait_for_description(reply) for topic, reply in replies.items()}
        lacking = {
            topic: missing
            for topic, description in described.items()
            if (names := description.operations) is not None
            and (missing := [name for name in operations[topic] if name not in names])
        }
        return TopicFacts(lacking, {topic: d.topic_id for topic, d in described.items() if d.topic_id})

    def fetch_ends(self, partitions: Iterable[TopicPartition], *, stable: bool = False) -> dict[TopicPartition, int]:
        """The high watermark of each partition; `stable`: its last stable offset, where an open transaction begins.

        Partitions that do not exist, or have no leader for now, are left out.
        """
        return fetch_log_ends(self._admin, partitions, stable=stable, timeout_s=TIMEOUT_S)

    def fetch_times(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The Kafka time (ms) of the first record at or after each position; committed or not.

        A partition without such a record, or whose record has no time, is left out.
        """
        remaining = set(positions)
        times: dict[TopicPartition, int] = {}
        with self._consumer.request("return a record") as consumer:
            consumer.assign([KafkaPartition(*partition, position) for partition, position in positions.items()])
            deadline_s = time.monotonic() + RECORD_TIMEOUT_S
            try:
                while remaining and time.monotonic() < deadline_s:
                    for message in consumer.consume(len(remaining), 0.1):
                        partition = TopicPartition(message.topic() or "", message.partition() or 0)
                        if message.error() is None and partition in remaining:
                            remaining.remove(partition)
                            times[partition] = message.timestamp()[1]
                            consumer.incremental_unassign([KafkaPartition(*partition)])
            finally:
                consumer.unassign()
        return {partition: kafka_ms for partition, kafka_ms in times.items() if kafka_ms >= 0}

    def fetch_assigned(self, group: str) -> set[TopicPartition] | None:
        """The partitions that the members of a group have; empty during a rebalance.

        None for a group without members, and where the broker does not tell.
        """
        # Deprecated for requests to the coordinator, by which librdkafka may end the process where a connection breaks:
        # https://github.com/confluentinc/librdkafka/pull/5397
        with self._admin.request("describe its groups") as client:
            try:
                groups = client.list_groups(group, timeout=TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() not in UNTOLD:
                    raise
                return None
        if not groups or groups[0].error or groups[0].state in IDLE_GROUP_STATES:
            return None
        if groups[0].state != STABLE:
            return set()
        return {partition for member in groups[0].members for partition in decode_assignment(member.assignment)}

    def forget_topics(self) -> None:
        """Read with a new client: the present one may not read a topic that was recreated."""
        self._consumer.replace()

    def close(self) -> None:
        self._consumer.close()


class TopicDescription(NamedTuple):
    """What the user may do with a topic: nothing if it may not see it, None if that is not known. And its id."""

    operations: set[str] | None
    topic_id: str | None = None


def wait_for_description(reply: Any) -> TopicDescription:
    try:
        description = reply.result(2 * TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() in DENIED:
            return TopicDescription(set())
        if error.args[0].code() in (*UNSUPPORTED, *TRANSIENT):
            return TopicDescription(None)
        raise
    operations = {operation.name for operation in description.authorized_operations or ()}
    return TopicDescription(operations or None, read_topic_id(description))
