"""Topics read by assignment, to their end even where it is a transaction marker instead of a record."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from tests.conftest import KafkaBroker
from tests.kafka import BlockingProducer
from transport.log_reader import LogReader, TopicTailer, fetch_offset_range
from transport.records import OffsetRange, TopicPartition

TIMEOUT_S = 30.0
T = TypeVar("T")


def make_settings(broker: KafkaBroker) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=broker.bootstrap, group_prefix="tailer")


def run_until(condition: Callable[[], bool], step: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "It should be done by now."
        step()


def send(broker: KafkaBroker, topic: str, *values: bytes, partition: int = 0) -> None:
    BlockingProducer(broker.bootstrap).send(topic, [("key", value) for value in values], partition=partition)


def send_in_transaction(broker: KafkaBroker, topic: str, *values: bytes) -> None:
    """Write records, followed by the marker of their transaction."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, "key", partition=0)
    producer.commit_transaction(TIMEOUT_S)


@pytest.fixture
def reader(broker: KafkaBroker) -> Iterator[LogReader]:
    reader = LogReader(kafka=make_settings(broker))
    yield reader
    reader.close()


def test_partitions_are_read_to_the_given_ends_only(broker: KafkaBroker, topic: str, reader: LogReader) -> None:
    # given
    send(broker, topic, *(b"%d" % n for n in range(10)), partition=0)
    send(broker, topic, b"a", b"b", partition=1)
    send(broker, topic, b"never", partition=2)
    # when
    read = [
        record
        for records in reader.read({TopicPartition(topic, 0): 7, TopicPartition(topic, 1): 2})
        for record in records
    ]
    # then
    assert [r.value for r in read if r.topic_partition.partition == 0] == [b"%d" % n for n in range(7)]
    assert [(r.topic_partition.partition, r.offset, r.value) for r in read if r.topic_partition.partition] == [
        (1, 0, b"a"),
        (1, 1, b"b"),
    ]


def test_reading_no_partitions_returns_no_records(reader: LogReader) -> None:
    assert list(reader.read({})) == []


def test_offset_ranges_cover_every_partition_of_a_topic(broker: KafkaBroker, topic: str, reader: LogReader) -> None:
    # given
    send(broker, topic, b"a", b"b", partition=1)
    # then
    ranges = reader.fetch_offset_ranges([topic])
    assert {partition.partition: offset_range for partition, offset_range in ranges.items()} == {
        0: (0, 0),
        1: (0, 2),
        2: (0, 0),
        3: (0, 0),
    }


def test_an_unreachable_broker_raises_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr("transport.log_reader.TIMEOUT_S", 0.2)
    reader = LogReader(kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    # then
    with pytest.raises(Unavailable, match="ends of topics"):
        reader.fetch_offset_ranges(["orders"])
    reader.close()


def test_a_partition_without_further_records_raises_unavailable(
    broker: KafkaBroker, topic: str, reader: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("transport.log_reader.IDLE_TIMEOUT_S", 0.3)
    send(broker, topic, b"a")
    # then
    with pytest.raises(Unavailable, match="should return records"):
        list(reader.read({TopicPartition(topic, 0): 2}))


@pytest.mark.apache_kafka
def test_a_partition_that_ends_with_a_marker_is_read_to_its_end(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given two records and the marker of their transaction
    topic = f"{topic_prefix}topic"
    apache_kafka.create_topics({topic: 1})
    send_in_transaction(apache_kafka, topic, b"a", b"b")
    reader = LogReader(kafka=make_settings(apache_kafka))
    # when
    offset_range = reader.fetch_offset_ranges([topic])[TopicPartition(topic, 0)]
    read = [
        record.value for records in reader.read({TopicPartition(topic, 0): offset_range.high}) for record in records
    ]
    # then
    assert offset_range == (0, 3)
    assert read == [b"a", b"b"]
    reader.close()


@pytest.mark.apache_kafka
def test_a_tailer_reaches_an_end_that_is_a_marker(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given
    topic = f"{topic_prefix}topic"
    apache_kafka.create_topics({topic: 1})
    send_in_transaction(apache_kafka, topic, b"a", b"b")
    tailer, actual = TopicTailer(kafka=make_settings(apache_kafka), topics=[topic]), list[bytes | None]()
    tailer.open()
    assert tailer.partitions_behind == 1
    # when
    run_until(lambda: not tailer.partitions_behind, lambda: actual.extend(r.value for r in tailer.poll(10, 50)))
    # then
    assert actual == [b"a", b"b"]
    # and it goes on
    send(apache_kafka, topic, b"c")
    run_until(lambda: len(actual) == 3, lambda: actual.extend(r.value for r in tailer.poll(10, 50)))
    tailer.close()


def test_a_tailer_returns_records_written_after_it_was_opened(broker: KafkaBroker, topic: str) -> None:
    # given
    send(broker, topic, b"a")
    tailer, actual = TopicTailer(kafka=make_settings(broker), topics=[topic]), list[bytes | None]()
    tailer.open()
    run_until(lambda: not tailer.partitions_behind, lambda: actual.extend(r.value for r in tailer.poll(10, 50)))
    # when
    send(broker, topic, b"b", partition=3)
    # then
    run_until(lambda: actual == [b"a", b"b"], lambda: actual.extend(r.value for r in tailer.poll(10, 50)))
    tailer.close()


class ChangingLeader:
    """Answers a request for offsets as a broker does that is not the leader yet, `failures` times."""

    def __init__(self, failures: int, code: int) -> None:
        self.failures, self.code = failures, code

    def get_watermark_offsets(self, partition: object, timeout: float) -> tuple[int, int]:
        if self.failures:
            self.failures -= 1
            raise KafkaException(KafkaError(self.code))
        return 3, 9


def test_a_partition_whose_leader_changes_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transport.log_reader.LEADER_POLL_S", 0.0)
    consumer: Any = ChangingLeader(2, KafkaError.NOT_LEADER_FOR_PARTITION)

    assert fetch_offset_range(consumer, TopicPartition("orders", 0)) == OffsetRange(3, 9)


def test_another_error_than_a_change_of_leader_is_not_repeated() -> None:
    consumer: Any = ChangingLeader(1, KafkaError.TOPIC_AUTHORIZATION_FAILED)

    with pytest.raises(KafkaException):
        fetch_offset_range(consumer, TopicPartition("orders", 0))
