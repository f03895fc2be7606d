"""Topics read by assignment, to their end even where it is a transaction marker instead of a record."""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka, make_admin_client, unavailable_reason
from tests.conftest import KafkaBroker
from tests.kafka import BlockingProducer, recreate_topics
from transport import topic_watcher
from transport.client_errors import translate_errors
from transport.log_consumer import fetch_offset_range
from transport.log_reader import LogReader, TopicTailer
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
    monkeypatch.setattr("transport.log_consumer.TIMEOUT_S", 0.2)
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


def open_tailer(broker: KafkaBroker, *topics: str, has_topic_ids: bool = True) -> TopicTailer:
    settings = make_settings(broker).model_copy(
        update={"topic_ids": has_topic_ids, "client": {"topic.metadata.refresh.interval.ms": 50}}
    )
    tailer = TopicTailer(kafka=settings, topics=topics)
    tailer.open()
    return tailer


def read_into(actual: list[bytes | None], tailer: TopicTailer, count: int) -> None:
    """Poll until there are `count` values."""
    run_until(lambda: len(actual) >= count, lambda: actual.extend(r.value for r in tailer.poll(10, 20)))


@pytest.mark.apache_kafka
def test_added_partitions_are_read_from_their_beginning(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given
    topic, actual = f"{topic_prefix}topic", list[bytes | None]()
    apache_kafka.create_topics({topic: 1})
    send(apache_kafka, topic, b"a")
    tailer = open_tailer(apache_kafka, topic)
    read_into(actual, tailer, 1)
    # when
    admin = make_admin_client(apache_kafka.bootstrap)
    for future in admin.create_partitions([NewPartitions(topic, 3)], operation_timeout=30).values():
        future.result()
    send(apache_kafka, topic, b"b", b"c", partition=2)
    # then
    read_into(actual, tailer, 3)
    assert sorted(actual, key=str) == [b"a", b"b", b"c"]
    assert tailer.take_restarted() == set()
    tailer.close()


@pytest.mark.apache_kafka
@pytest.mark.parametrize("has_topic_ids", [True, False])
@pytest.mark.parametrize("records", [1, 5], ids=["shorter", "longer"])
def test_a_recreated_topic_is_read_from_its_beginning(
    apache_kafka: ApacheKafka,
    topic_prefix: str,
    caplog: pytest.LogCaptureFixture,
    has_topic_ids: bool,
    records: int,
) -> None:
    # given
    topic, actual = f"{topic_prefix}topic", list[bytes | None]()
    apache_kafka.create_topics({topic: 2})
    send(apache_kafka, topic, b"a", b"b", b"c")
    tailer = open_tailer(apache_kafka, topic, has_topic_ids=has_topic_ids)
    read_into(actual, tailer, 3)
    run_until(lambda: not has_topic_ids or tailer.topic_id(topic) is not None, lambda: tailer.poll(10, 20))
    # when
    recreate_topics(apache_kafka, {topic: 1})
    expected = [b"%d" % n for n in range(records)]
    send(apache_kafka, topic, *expected)
    actual.clear()
    restarted = set[str]()

    def poll() -> None:
        polled = tailer.poll(10, 20)
        restarted.update(tailer.take_restarted())
        if restarted:
            actual.extend(record.value for record in polled)

    run_until(lambda: len(actual) >= records and not tailer.partitions_behind, poll)
    # then
    assert actual == expected
    assert restarted == {topic}
    assert caplog.messages.count(f"{topic} was deleted and recreated: it is read from its beginning again.") == 1
    # and it goes on
    send(apache_kafka, topic, b"next")
    read_into(actual, tailer, records + 1)
    assert actual == [*expected, b"next"]
    tailer.close()


@pytest.mark.apache_kafka
@pytest.mark.apache_kafka
def test_a_topic_is_read_that_was_recreated_after_its_leader_had_changed() -> None:
    # given a client that knows higher leader epochs than the new topic has
    if reason := unavailable_reason():
        pytest.skip(reason)
    with (
        ApacheKafka() as kafka,
        closing(TopicTailer(kafka=make_settings(kafka), topics=["erasures", "products"])) as tailer,
    ):
        kafka.create_topics({"erasures": 1, "products": 1})
        send(kafka, "erasures", b"first", b"second")
        kafka.kill()
        kafka.start()
        kafka.wait_until_steady()
        values: list[bytes | None] = []
        run_until(lambda: len(values) == 2, lambda: values.extend(r.value for r in tailer.poll(10, 20)))
        # when
        recreate_topics(kafka, {"erasures": 1})
        send(kafka, "erasures", b"third")

        def read_both() -> None:
            send(kafka, "products", b"product")  # the client does return records
            values.extend(record.value for record in tailer.poll(10, 20))

        # then
        run_until(lambda: b"third" in values, read_both)


def test_an_empty_recreated_topic_is_at_its_end(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given
    topic, actual = f"{topic_prefix}topic", list[bytes | None]()
    apache_kafka.create_topics({topic: 1})
    send(apache_kafka, topic, b"a")
    tailer = open_tailer(apache_kafka, topic)
    read_into(actual, tailer, 1)
    run_until(lambda: tailer.topic_id(topic) is not None, lambda: tailer.poll(10, 20))
    # when
    recreate_topics(apache_kafka, {topic: 1})
    restarted = set[str]()

    def poll() -> None:
        tailer.poll(10, 20)
        restarted.update(tailer.take_restarted())

    run_until(lambda: bool(restarted), poll)
    # then
    run_until(lambda: not tailer.partitions_behind, lambda: tailer.poll(10, 20))
    tailer.close()


@pytest.mark.apache_kafka
def test_a_missing_topic_does_not_make_others_be_read_again(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given two topics of which one does not exist
    present, later, actual = f"{topic_prefix}present", f"{topic_prefix}later", list[bytes | None]()
    apache_kafka.create_topics({present: 1})
    send(apache_kafka, present, b"a")
    tailer = open_tailer(apache_kafka, present, later)
    # when
    read_into(actual, tailer, 1)
    send(apache_kafka, present, b"b")
    read_into(actual, tailer, 2)
    apache_kafka.create_topics({later: 2})
    send(apache_kafka, later, b"c", partition=1)
    read_into(actual, tailer, 3)
    # then
    assert actual == [b"a", b"b", b"c"]
    tailer.close()


def test_topics_are_described_outside_the_polling_thread(
    broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    tailer, threads = open_tailer(broker, topic, has_topic_ids=False), list[str]()
    fetch = topic_watcher.fetch_topic_states

    def record_thread(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return fetch(*arguments, **options)

    monkeypatch.setattr(topic_watcher, "fetch_topic_states", record_thread)
    # then
    run_until(lambda: len(threads) >= 2, lambda: tailer.poll(10, 0))
    assert set(threads) == {"topic-watcher"}
    tailer.close()


@pytest.mark.apache_kafka
@pytest.mark.parametrize("moment", ["before the read", "during the read"])
def test_a_read_ends_soon_where_a_topic_was_recreated_with_fewer_partitions(
    apache_kafka: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    # given a reader that knows two partitions
    monkeypatch.setattr("transport.log_consumer.MISSING_POLL_S", 0.2)
    topic, kept, removed = (
        f"{topic_prefix}orders",
        f"{topic_prefix}orders/0",
        TopicPartition(f"{topic_prefix}orders", 1),
    )
    apache_kafka.create_topics({topic: 2})
    recreations = iter([lambda: recreate_topics(apache_kafka, {topic: 1})])

    def recreate_once() -> None:
        next(recreations, lambda: None)()

    reader = LogReader(kafka=make_settings(apache_kafka), on_poll=recreate_once)
    assert len(reader.fetch_offset_ranges([topic])) == 2
    # when the topic loses one of them before their first offset is known, or while their records are awaited
    if moment == "before the read":
        recreate_once()
    # then the read ends, and can be planned again
    with pytest.raises(Unavailable, match=f"Found none named {re.escape(removed.log_text())}"):
        list(reader.read({TopicPartition(topic, 0): 1, removed: 1}))
    assert [str(partition) for partition in reader.fetch_offset_ranges([topic])] == [kept]
    assert removed not in reader.offsets_for_time([removed, TopicPartition(topic, 0)], 0)
    reader.close()


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
    monkeypatch.setattr("transport.log_consumer.LEADER_POLL_S", 0.0)
    consumer: Any = ChangingLeader(2, KafkaError.NOT_LEADER_FOR_PARTITION)

    assert fetch_offset_range(consumer, TopicPartition("orders", 0)) == OffsetRange(3, 9)


def test_another_error_than_a_change_of_leader_is_not_repeated() -> None:
    consumer: Any = ChangingLeader(1, KafkaError.TOPIC_AUTHORIZATION_FAILED)

    with pytest.raises(KafkaException):
        fetch_offset_range(consumer, TopicPartition("orders", 0))


@pytest.mark.parametrize("code", [KafkaError._UNKNOWN_PARTITION, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_a_client_that_knows_no_leader_for_long_is_replaced(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    # given a client that lost its brokers after it learned of the partition
    monkeypatch.setattr("transport.log_consumer.LEADER_POLL_S", 0.0)
    monkeypatch.setattr("transport.log_consumer.TIMEOUT_S", 0.1)
    consumer: Any = ChangingLeader(sys.maxsize, code)
    replaced = list[bool]()
    # when
    with (
        pytest.raises(Unavailable, match=r"no answer in time \(.*orders"),
        translate_errors("return the ends of topics", lambda: replaced.append(True)),
    ):
        fetch_offset_range(consumer, TopicPartition("orders", 0))
    # then
    assert replaced == [True]
