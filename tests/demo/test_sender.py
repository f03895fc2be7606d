"""What the demo sends arrives as it was meant, at the speed that was asked for."""

import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from contract.errors import Unavailable
from contract.settings import Kafka, Topics
from demo.happenings import Happening
from demo.sender import Pace, Sender
from demo.servers.child import free_ports
from demo.servers.embedded import PARTITIONS, EmbeddedKafka
from demo.shop import Shop


def read(bootstrap: str, topic: str, count: int) -> list[Message]:
    """The first `count` records of a topic, each partition in its order."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic})
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    found, deadline = list[Message](), time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        found += [message for message in consumer.consume(count, 0.2) if message.error() is None]
    consumer.close()
    return found


def test_happenings_arrive_on_the_topic_of_their_kind_in_the_order_of_each_key(
    embedded_kafka: EmbeddedKafka, topic_prefix: str, seed: int
) -> None:
    # Given
    topics = Topics(clicks=f"{topic_prefix}clicks")
    embedded_kafka.create_topics({topics.clicks: PARTITIONS})
    clicks = [h for h in Shop(seed, people=20, items=40).history(2) if h.kind == "clicks"]
    sender = Sender(kafka=Kafka(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)

    # When
    for happening in clicks:
        sender.send(happening)
    sender.flush()

    # Then
    found = read(embedded_kafka.bootstrap, topics.clicks, len(clicks))
    assert sender.sent == {"clicks": len(clicks)}
    assert len(found) == len(clicks) > 0
    for key in {happening.key for happening in clicks}:
        sent = [happening.value for happening in clicks if happening.key == key]
        assert [message.value() for message in found if message.key() == key.encode()] == sent


def test_records_without_a_key_are_spread_over_partitions(embedded_kafka: EmbeddedKafka, topic_prefix: str) -> None:
    # Given
    topics = Topics(orders=f"{topic_prefix}orders")
    embedded_kafka.create_topics({topics.orders: PARTITIONS})
    sender = Sender(kafka=Kafka(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)

    # When
    sender.send(Happening("orders", "", b"{}", 0))
    sender.flush()

    # Then
    (message,) = read(embedded_kafka.bootstrap, topics.orders, 1)
    assert message.key() is None


def test_records_that_do_not_arrive_are_an_error() -> None:
    # Given nobody who listens
    (port,) = free_ports(1)
    kafka = Kafka(bootstrap_servers=f"127.0.0.1:{port}", client={"delivery.timeout.ms": 200})
    sender = Sender(kafka=kafka, topics=Topics())

    # When
    sender.send(Happening("orders", "u1", b"{}", 0))

    # Then
    with pytest.raises(Unavailable, match="Every record should arrive"):
        sender.flush()


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("demo.sender.time", clock)
    return clock


def test_time_runs_as_many_times_as_fast_as_asked_for(clock: Clock) -> None:
    # Given
    pace = Pace(60.0)

    # When
    for minute in (5, 6, 6, 15):
        pace.wait(minute * 60_000)

    # Then
    assert clock.now_s == 110.0


def test_what_is_late_already_waits_for_nothing(clock: Clock) -> None:
    # Given
    pace = Pace(1.0)
    pace.wait(0)
    clock.now_s += 5

    # When
    pace.wait(3_000)

    # Then
    assert clock.now_s == 105.0


def test_without_a_speed_nothing_is_waited_for(clock: Clock) -> None:
    # Given
    pace = Pace(0.0)

    # When
    pace.wait(0)
    pace.wait(10**12)

    # Then
    assert clock.now_s == 100.0
