"""Reading begins where a partition was sought, also if the client goes on elsewhere."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition

from contract.settings.servers import KafkaSettings
from tests.conftest import KafkaBroker
from tests.polling import wait_until
from tests.worker.group.test_consumer import StaticAssignment
from transport.records import TopicPartition
from worker.group.confirmed_starts import WATCH_S, ConfirmedStarts
from worker.group.consumer import GroupConsumer
from worker.group.listener import START_PENDING

PARTITION = TopicPartition("orders", 0)
FLUSH_S = 60.0


class SkippingClient:
    """A client of which every other seek goes to a later offset."""

    def __init__(self, client: Any) -> None:
        self._client, self.seeks = client, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def seek(self, partition: KafkaPartition) -> None:
        self.seeks += 1
        skipped = 3 if self.seeks % 2 else 0
        self._client.seek(KafkaPartition(partition.topic, partition.partition, partition.offset + skipped))


@pytest.fixture
def consumer(apache_kafka: KafkaBroker, topic_prefix: str) -> Iterator[GroupConsumer]:
    """A member that has read ten records of one partition."""
    topic = f"{topic_prefix}orders"
    apache_kafka.create_topics({topic: 1})
    produce(apache_kafka, topic, [range(10)])
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix)
    consumer = GroupConsumer(kafka=kafka, group=topic_prefix, instance="0")
    consumer.subscribe([topic], StaticAssignment())
    assert read_values(consumer, 10) == list(range(10))
    yield consumer
    consumer.close()


def produce(broker: KafkaBroker, topic: str, transactions: list[range]) -> None:
    """Numbers, each range in a transaction of its own."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"{topic}-numbers"})
    producer.init_transactions(FLUSH_S)
    for numbers in transactions:
        producer.begin_transaction()
        for number in numbers:
            producer.produce(topic, str(number).encode())
        producer.commit_transaction(FLUSH_S)


def read_values(consumer: GroupConsumer, count: int) -> list[int]:
    values: list[int] = []

    def has_read() -> bool:
        values.extend(int(record.value or b"") for record in consumer.poll(100, 20))
        return len(values) >= count

    wait_until(has_read)
    return values


def test_records_that_a_client_skips_after_a_seek_are_read(
    consumer: GroupConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    client = SkippingClient(consumer._member.client)
    monkeypatch.setattr(consumer._member, "client", client)
    (partition,) = consumer.assignment
    # when
    consumer.seek({partition: 4})
    # then
    assert read_values(consumer, 6) == list(range(4, 10))
    assert client.seeks == 2


def test_a_start_at_the_marker_of_a_transaction_counts_at_the_next_record(
    consumer: GroupConsumer, apache_kafka: KafkaBroker
) -> None:
    # given: the marker of the first transaction is at offset 10
    (partition,) = consumer.assignment
    produce(apache_kafka, partition.topic, [range(10, 12)])
    # when
    consumer.seek({partition: 10})
    # then
    assert read_values(consumer, 2) == [10, 11]


def test_a_start_counts_where_it_was_sought_or_at_the_second_same_position() -> None:
    starts = ConfirmedStarts()
    starts.seek(PARTITION, 5)

    assert starts.find_skipped(PARTITION, 8) == 5
    assert starts.find_skipped(PARTITION, 9) == 5
    assert starts.find_skipped(PARTITION, 9) is None
    assert not starts.sought

    starts.seek(PARTITION, 5)
    assert starts.find_skipped(PARTITION, 5) is None
    assert not starts.sought


def test_a_gap_is_sought_again_for_some_time_after_a_start() -> None:
    now_s = 0.0
    starts = ConfirmedStarts(clock_s=lambda: now_s)
    starts.seek(PARTITION, 5)
    assert starts.find_skipped(PARTITION, 5) is None
    assert starts.find_gap(PARTITION, 5) is None
    # a gap, as of the records of half a second
    assert starts.find_gap(PARTITION, 30) == 6
    assert starts.find_gap(PARTITION, 6) is None
    # and one that is right, as of a marker
    assert starts.find_gap(PARTITION, 8) == 7
    assert starts.find_gap(PARTITION, 8) is None
    assert starts.is_watching()
    # until the time has passed
    now_s = WATCH_S + 1
    assert not starts.is_watching()
    assert starts.find_gap(PARTITION, 99) is None


def test_a_partition_with_markers_is_no_longer_checked_after_some_of_them() -> None:
    starts = ConfirmedStarts()
    starts.seek(PARTITION, 0)
    assert starts.find_skipped(PARTITION, 0) is None
    for position in (1, 3, 5):
        assert starts.find_gap(PARTITION, position) == position - 1
        assert starts.find_gap(PARTITION, position) is None
    assert not starts.is_watching()


def test_a_partition_without_any_record_is_checked_until_it_has_one() -> None:
    now_s = 0.0
    starts = ConfirmedStarts(clock_s=lambda: now_s)
    starts.seek(PARTITION, 5)
    now_s = 100 * WATCH_S
    assert starts.find_skipped(PARTITION, 8) == 5


def test_the_start_of_a_partition_that_was_revoked_is_forgotten() -> None:
    starts = ConfirmedStarts()
    starts.seek(PARTITION, 5)
    starts.forget([PARTITION])

    assert not starts.sought
    assert starts.find_skipped(PARTITION, 8) is None


class PendingStart:
    """Leaves the start of each partition to a seek, as the score worker does."""

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, START_PENDING)

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        pass


def read_offsets(consumer: GroupConsumer, seconds: float) -> dict[int, list[int]]:
    """The offsets that are read in some time, by the number of their partition."""
    offsets, until_s = defaultdict[int, list[int]](list), time.monotonic() + seconds
    while time.monotonic() < until_s:
        for record in consumer.poll(100, 20):
            offsets[record.topic_partition.partition].append(record.offset)
    return offsets


@contextmanager
def write_all_the_time(broker: KafkaBroker, topic: str) -> Iterator[None]:
    """400 records at once, and further ones every 5 ms."""
    stop, producer = threading.Event(), Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 1})

    def produce_until_stopped() -> None:
        for number in count():
            producer.produce(topic, b"value", partition=number % 4)
            producer.poll(0)
            if number >= 400 and stop.wait(0.005):
                break
        producer.flush(FLUSH_S)

    thread = threading.Thread(target=produce_until_stopped)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_partitions_that_are_sought_right_after_they_were_assigned_lose_no_record(
    apache_kafka: KafkaBroker, topic_prefix: str
) -> None:
    # given a member of a topic that is written to all the time
    topic = f"{topic_prefix}orders"
    apache_kafka.create_topics({topic: 4})
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix)
    consumer = GroupConsumer(kafka=kafka, group=topic_prefix, instance="0", skips_gaps=False)
    with write_all_the_time(apache_kafka, topic), closing(consumer):
        consumer.subscribe([topic], PendingStart())
        wait_until(lambda: consumer.poll(100, 20) or len(consumer.assignment) == 4)
        partitions = sorted(consumer.assignment)
        consumer.seek(dict.fromkeys(partitions, 0))
        assert read_offsets(consumer, 1.0)
        for number in range(8):
            # when they are lost, assigned again, and sought while the client prepares to read them
            consumer._forget(partitions)
            consumer._member.client.incremental_unassign([KafkaPartition(*partition) for partition in partitions])
            consumer._on_assigned(partitions)
            time.sleep(number % 3 * 0.0005)
            consumer.seek(dict.fromkeys(partitions, 50))
            # then
            for offsets in read_offsets(consumer, 1.2).values():
                assert offsets == list(range(50, 50 + len(offsets)))
