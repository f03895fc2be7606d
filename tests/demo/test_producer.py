"""What the demo sends arrives as it was meant, at the speed that was asked for."""

import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from contract.errors import Unavailable
from contract.settings import KafkaSettings, TopicSettings
from demo.producer import RecordProducer, ReplayClock
from demo.simulator.records import SourceRecord
from demo.simulator.shop import ShopSimulator
from devservers.embedded import PARTITIONS, EmbeddedKafka
from devservers.process import find_free_ports


def read_messages(bootstrap: str, topic: str, count: int) -> list[Message]:
    """The first `count` records of a topic, each partition in its order."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic})
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    messages, deadline = list[Message](), time.monotonic() + 30
    while len(messages) < count and time.monotonic() < deadline:
        messages += [message for message in consumer.consume(count, 0.2) if message.error() is None]
    consumer.close()
    return messages


def test_happenings_arrive_on_the_topic_of_their_kind_in_the_order_of_each_key(
    embedded_kafka: EmbeddedKafka, topic_prefix: str, seed: int
) -> None:
    # Given
    topics = TopicSettings(clicks=f"{topic_prefix}clicks")
    embedded_kafka.create_topics({topics.clicks: PARTITIONS})
    clicks = [h for h in ShopSimulator(seed, users=20, items=40).simulate_history(2) if h.kind == "clicks"]
    sender = RecordProducer(kafka=KafkaSettings(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)

    # When
    for record in clicks:
        sender.send(record)
    sender.flush()

    # Then
    actual = read_messages(embedded_kafka.bootstrap, topics.clicks, len(clicks))
    assert sender.sent_by_kind == {"clicks": len(clicks)}
    assert len(actual) == len(clicks) > 0
    for key in {record.key for record in clicks}:
        sent = [record.value for record in clicks if record.key == key]
        assert [message.value() for message in actual if message.key() == key.encode()] == sent


def test_records_without_a_key_are_spread_over_partitions(embedded_kafka: EmbeddedKafka, topic_prefix: str) -> None:
    # Given
    topics = TopicSettings(orders=f"{topic_prefix}orders")
    embedded_kafka.create_topics({topics.orders: PARTITIONS})
    sender = RecordProducer(kafka=KafkaSettings(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)

    # When
    sender.send(SourceRecord("orders", "", b"{}", 0))
    sender.flush()

    # Then
    (message,) = read_messages(embedded_kafka.bootstrap, topics.orders, 1)
    assert message.key() is None


def test_records_that_do_not_arrive_are_an_error() -> None:
    # Given nobody who listens
    (port,) = find_free_ports(1)
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}", client={"delivery.timeout.ms": 200})
    sender = RecordProducer(kafka=kafka, topics=TopicSettings())

    # When
    sender.send(SourceRecord("orders", "u1", b"{}", 0))

    # Then
    with pytest.raises(Unavailable, match="Every record should arrive"):
        sender.flush()


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr("demo.producer.time", clock)
    return clock


def test_time_runs_as_many_times_as_fast_as_asked_for(clock: FakeTime) -> None:
    # Given
    pace = ReplayClock(60.0)

    # When
    for minute in (5, 6, 6, 15):
        pace.wait_until(minute * 60_000)

    # Then
    assert clock.now_s == 110.0


def test_what_is_late_already_waits_for_nothing(clock: FakeTime) -> None:
    # Given
    pace = ReplayClock(1.0)
    pace.wait_until(0)
    clock.now_s += 5

    # When
    pace.wait_until(3_000)

    # Then
    assert clock.now_s == 105.0


def test_without_a_speed_nothing_is_waited_for(clock: FakeTime) -> None:
    # Given
    pace = ReplayClock(0.0)

    # When
    pace.wait_until(0)
    pace.wait_until(10**12)

    # Then
    assert clock.now_s == 100.0
