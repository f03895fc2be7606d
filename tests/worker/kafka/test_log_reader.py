"""Topics read by assignment: all that was there at first, also where a log ends with markers instead of records."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from confluent_kafka import Producer

from contract.errors import Unavailable
from contract.settings import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from tests.conftest import KafkaBroker
from tests.kafka import BlockingProducer
from worker.kafka.consumer import TopicPartition
from worker.kafka.log_reader import LogReader, TopicTailer

TIMEOUT_S = 30.0
T = TypeVar("T")


def make_settings(broker: KafkaBroker) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=broker.bootstrap, group_prefix="follower")


def run_until(condition: Callable[[], bool], step: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "It should be done by now."
        step()


def send(broker: KafkaBroker, topic: str, *values: bytes, partition: int = 0) -> None:
    BlockingProducer(broker.bootstrap).send(topic, [("key", value) for value in values], partition=partition)


def send_in_transaction(broker: KafkaBroker, topic: str, *values: bytes) -> None:
    """Records, and behind them the marker of their transaction."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, "key", partition=0)
    producer.commit_transaction(TIMEOUT_S)


@pytest.fixture
def log(broker: KafkaBroker) -> LogReader:
    return LogReader(kafka=make_settings(broker))


def test_a_log_is_read_up_to_its_ends_and_no_further(broker: KafkaBroker, topic: str, log: LogReader) -> None:
    # given
    send(broker, topic, *(b"%d" % n for n in range(10)), partition=0)
    send(broker, topic, b"a", b"b", partition=1)
    send(broker, topic, b"never", partition=2)
    # when
    read = [
        record for records in log.read({TopicPartition(topic, 0): 7, TopicPartition(topic, 1): 2}) for record in records
    ]
    # then
    assert [r.value for r in read if r.topic_partition.partition == 0] == [b"%d" % n for n in range(7)]
    assert [(r.topic_partition.partition, r.offset, r.value) for r in read if r.topic_partition.partition] == [
        (1, 0, b"a"),
        (1, 1, b"b"),
    ]
    log.close()


def test_nothing_is_read_of_no_partitions(log: LogReader) -> None:
    assert list(log.read({})) == []
    log.close()


def test_extents_are_told_of_topics_that_exist(broker: KafkaBroker, topic: str, log: LogReader) -> None:
    # given
    send(broker, topic, b"a", b"b", partition=1)
    # then
    extents = log.fetch_offset_ranges([topic])
    assert {partition.partition: extent for partition, extent in extents.items()} == {
        0: (0, 0),
        1: (0, 2),
        2: (0, 0),
        3: (0, 0),
    }
    log.close()


def test_a_kafka_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr("worker.kafka.log_reader.TIMEOUT_S", 0.2)
    log = LogReader(kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    # then
    with pytest.raises(Unavailable, match="topics' ends"):
        log.fetch_offset_ranges(["orders"])
    log.close()


def test_a_log_that_falls_silent_before_its_end_is_unavailable(
    broker: KafkaBroker, topic: str, log: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("worker.kafka.log_reader.IDLE_TIMEOUT_S", 0.3)
    send(broker, topic, b"a")
    # then
    with pytest.raises(Unavailable, match="should go on"):
        list(log.read({TopicPartition(topic, 0): 2}))
    log.close()


@pytest.mark.apache_kafka
def test_a_log_that_ends_with_a_marker_is_read_to_its_end(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given two records and the marker of their transaction
    topic = f"{topic_prefix}topic"
    apache_kafka.create_topics({topic: 1})
    send_in_transaction(apache_kafka, topic, b"a", b"b")
    log = LogReader(kafka=make_settings(apache_kafka))
    # when
    extent = log.fetch_offset_ranges([topic])[TopicPartition(topic, 0)]
    read = [record.value for records in log.read({TopicPartition(topic, 0): extent.high}) for record in records]
    # then
    assert extent == (0, 3)
    assert read == [b"a", b"b"]
    log.close()


@pytest.mark.apache_kafka
def test_who_follows_is_at_the_end_where_that_is_a_marker(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given
    topic = f"{topic_prefix}topic"
    apache_kafka.create_topics({topic: 1})
    send_in_transaction(apache_kafka, topic, b"a", b"b")
    follower, actual = TopicTailer(kafka=make_settings(apache_kafka), topics=[topic]), list[bytes | None]()
    follower.open()
    assert follower.partitions_behind == 1
    # when
    run_until(lambda: not follower.partitions_behind, lambda: actual.extend(r.value for r in follower.poll(10, 50)))
    # then
    assert actual == [b"a", b"b"]
    # and it goes on
    send(apache_kafka, topic, b"c")
    run_until(lambda: len(actual) == 3, lambda: actual.extend(r.value for r in follower.poll(10, 50)))
    follower.close()


def test_who_follows_reads_what_comes_later(broker: KafkaBroker, topic: str) -> None:
    # given
    send(broker, topic, b"a")
    follower, actual = TopicTailer(kafka=make_settings(broker), topics=[topic]), list[bytes | None]()
    follower.open()
    run_until(lambda: not follower.partitions_behind, lambda: actual.extend(r.value for r in follower.poll(10, 50)))
    # when
    send(broker, topic, b"b", partition=3)
    # then
    run_until(lambda: actual == [b"a", b"b"], lambda: actual.extend(r.value for r in follower.poll(10, 50)))
    follower.close()
