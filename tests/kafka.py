"""Kafka clients for tests: they print nothing, and are closed before their broker stops."""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka, make_admin_client
from devservers.librdkafka import SILENT
from testkit.environment.run_environment import KafkaServer
from testkit.environment.steady_producer import SteadyProducer
from tests.polling import POLL_S, wait_until
from transport.log_reader import LogReader
from transport.records import OffsetRange, Record, TopicPartition

FLUSH_S: Final = 60.0
METADATA_S: Final = 20.0
MARKERS_S: Final = 5.0  # within this time a transaction that was committed a moment ago becomes visible
CHANGES: Final = itertools.count()


def read_topics(bootstrap: str, *topics: str) -> list[Record]:
    """All committed records of these topics, from beginning to end, partition by partition."""
    with closing(LogReader(kafka=KafkaSettings(bootstrap_servers=bootstrap), skips_gaps=True)) as reader:
        ends = _fetch_settled_ends(reader, topics)
        records = [record for chunk in reader.read(ends) for record in chunk]
    return sorted(records, key=lambda record: (record.topic_partition, record.offset))


def _fetch_settled_ends(reader: LogReader, topics: Sequence[str]) -> dict[TopicPartition, int]:
    """The ends of what is committed, with the transactions that were committed before this call.

    A commit returns before its markers are in every partition. A transaction that is open is not waited for longer.
    """
    give_up_s, written = time.monotonic() + MARKERS_S, dict[TopicPartition, int]()
    while True:
        ranges = _fetch_offset_ranges(reader, topics)
        ends = {partition: offsets.high for partition, offsets in ranges.items()}
        written = written or reader.fetch_written_ends(topics)
        if time.monotonic() > give_up_s or all(ends.get(partition, end) >= end for partition, end in written.items()):
            return ends
        time.sleep(POLL_S)


def _fetch_offset_ranges(reader: LogReader, topics: Sequence[str]) -> dict[TopicPartition, OffsetRange]:
    """Ask twice: the first client may have lost a broker that was away a moment ago."""
    try:
        return reader.fetch_offset_ranges(topics)
    except Unavailable:
        return reader.fetch_offset_ranges(topics)


def set_topic_option(bootstrap: str, topic: str, name: str, value: object) -> None:
    """Change one setting of a topic, such as `max.message.bytes`; it is in effect on return.

    A broker describes a setting shortly before it obeys it, and changes one after the other: a second change that is
    described proves the first.
    """
    admin = make_admin_client(bootstrap)
    for option, setting in ((name, str(value)), ("file.delete.delay.ms", str(60_000 + next(CHANGES)))):
        entry = ConfigEntry(option, setting, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        (changed,) = admin.incremental_alter_configs([resource]).values()
        changed.result()
        wait_until(lambda: _describe_option(admin, topic, option) == setting)  # noqa: B023 - called at once


def _describe_option(admin: AdminClient, topic: str, option: str) -> str | None:
    """The value of an option; None while the broker does not know of the topic yet."""
    (described,) = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
    try:
        value: str = described.result()[option].value
    except KafkaException as error:
        if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise
        return None
    return value


@contextmanager
def open_consumer(bootstrap: str, group: str = "reads-by-assignment") -> Iterator[Consumer]:
    """A consumer that starts at the beginning of a topic and commits nothing; closed at the end of the block."""
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",  # if the first records were deleted
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 10,  # by default a broker delays the answer at the end of a partition by 0.5 s
        "enable.auto.commit": False,
        **SILENT,
    }
    consumer = Consumer(settings)
    try:
        yield consumer
    finally:
        consumer.close()


def list_partitions(consumer: Consumer, topics: Iterable[str]) -> list[TopicPartition]:
    """The partitions of those of the topics that exist."""
    metadata = consumer.list_topics(timeout=METADATA_S).topics
    return [TopicPartition(topic, n) for topic in topics if topic in metadata for n in metadata[topic].partitions]


class BlockingProducer:
    """Writes records to topics; `send` returns once the broker has them."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = SteadyProducer(bootstrap=bootstrap)

    def send(
        self,
        topic: str,
        values: Iterable[tuple[str | None, bytes | None]],
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = -1,
        timestamp_ms: int = 0,
    ) -> None:
        """Append keys and values to a topic. `partition` -1: by key; `timestamp_ms` 0: the current time."""
        for key, value in values:
            self._producer.produce(topic, value, key, headers=headers, partition=partition, timestamp_ms=timestamp_ms)
        assert (self._producer.flush(FLUSH_S), self._producer.errors) == (0, [])

    def close(self) -> None:
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def recreate_topics(broker: KafkaServer, partitions: Mapping[str, int]) -> None:
    """Delete these topics, wait until they are gone, and create them with these numbers of partitions."""
    admin = make_admin_client(broker.bootstrap)
    for deleted in admin.delete_topics(list(partitions), operation_timeout=30).values():
        deleted.result()
    wait_until(lambda: not partitions.keys() & admin.list_topics(timeout=20).topics.keys())
    broker.create_topics(partitions)


def make_settings(broker: KafkaServer, group_prefix: str = "shopstream") -> KafkaSettings:
    """Settings of a client of this broker; the mock cluster has no topic ids."""
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap, group_prefix=group_prefix, topic_ids=isinstance(broker, ApacheKafka)
    )
