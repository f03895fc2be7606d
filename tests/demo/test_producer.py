"""The demo's producer delivers records unchanged; the replay clock keeps the requested speed."""

import pytest

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings, TopicSettings
from contract.units import MINUTE_MS
from demo.producer import RecordProducer, ReplayClock
from demo.simulator.records import SourceRecord
from demo.simulator.shop import ShopSimulator
from devservers.embedded import PARTITIONS, EmbeddedKafka
from devservers.process import find_free_ports
from tests.kafka import read_topics


def test_records_arrive_on_their_topic_in_order_for_each_key(
    embedded_kafka: EmbeddedKafka, topic_prefix: str, seed: int
) -> None:
    # given
    topics = TopicSettings(clicks=f"{topic_prefix}clicks")
    embedded_kafka.create_topics({topics.clicks: PARTITIONS})
    history = ShopSimulator(seed, users=20, items=40).simulate_history(2)
    clicks = [record for record in history if record.kind == "clicks"]
    producer = RecordProducer(kafka=KafkaSettings(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)

    # when
    for record in clicks:
        producer.send(record)
    producer.flush()

    # then
    actual = read_topics(embedded_kafka.bootstrap, topics.clicks)
    assert producer.sent_by_kind == {"clicks": len(clicks)}
    assert len(actual) == len(clicks) > 0
    for key in {record.key for record in clicks}:
        sent = [record.value for record in clicks if record.key == key]
        assert [record.value for record in actual if record.key == key.encode()] == sent


def test_a_record_without_a_key_is_sent_without_one(embedded_kafka: EmbeddedKafka, topic_prefix: str) -> None:
    # given
    topics = TopicSettings(orders=f"{topic_prefix}orders")
    embedded_kafka.create_topics({topics.orders: PARTITIONS})
    producer = RecordProducer(kafka=KafkaSettings(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)

    # when
    producer.send(SourceRecord("orders", "", b"{}", 0))
    producer.flush()

    # then
    (record,) = read_topics(embedded_kafka.bootstrap, topics.orders)
    assert record.key is None


def test_an_undelivered_record_raises_unavailable() -> None:
    # given a port without a server
    (port,) = find_free_ports(1)
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}", client={"delivery.timeout.ms": 200})
    producer = RecordProducer(kafka=kafka, topics=TopicSettings())

    # when
    producer.send(SourceRecord("orders", "u1", b"{}", 0))

    # then
    with pytest.raises(Unavailable, match="Every record should be delivered"):
        producer.flush()


class FakeTime:
    """A clock that advances only by `sleep`."""

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


def test_the_clock_runs_at_the_requested_speed(clock: FakeTime) -> None:
    # given
    replay_clock = ReplayClock(60.0)

    # when
    for minute in (5, 6, 6, 15):
        replay_clock.wait_until(minute * MINUTE_MS)

    # then
    assert clock.now_s == 110.0


def test_a_late_record_does_not_wait(clock: FakeTime) -> None:
    # given
    replay_clock = ReplayClock(1.0)
    replay_clock.wait_until(0)
    clock.now_s += 5

    # when
    replay_clock.wait_until(3_000)

    # then
    assert clock.now_s == 105.0


def test_a_speed_of_zero_never_waits(clock: FakeTime) -> None:
    # given
    replay_clock = ReplayClock(0.0)

    # when
    replay_clock.wait_until(0)
    replay_clock.wait_until(10**12)

    # then
    assert clock.now_s == 100.0
