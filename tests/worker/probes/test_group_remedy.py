"""A member whose client returns no records joins with a new client, and reads on where the group has committed."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from contract.settings.reading import Settings
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka, unavailable_reason
from tests.kafka import BlockingProducer, recreate_topics
from tests.polling import wait_until
from transport.records import TopicPartition
from worker.group.consumer import GroupConsumer
from worker.ops import metrics
from worker.probes import kafka_observer
from worker.probes.group_remedy import GroupRemedy
from worker.probes.progress import Progress
from worker.probes.watchdog import Watchdog


class PausingClient:
    """A client that pauses each partition before it has fetched anything."""

    def __init__(self, client: Consumer) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, {"resume": "pause"}.get(name, name))


class WatchedMember:
    """A member of a group that a watchdog watches, as a worker without anything to answer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.consumer = GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance="0")
        self.positions: dict[TopicPartition, int] = {}
        self.values: list[bytes | None] = []
        worker = Settings().worker.model_copy(update={"blocked_s": 1.0})
        self._progress = Progress()
        self.watchdog = Watchdog(
            settings=Settings().model_copy(update={"kafka": kafka, "worker": worker}),
            group=kafka.group_prefix,
            topics={"orders": topic},
            group_topics=[topic],
            progress=self._progress,
        )
        self._remedy = GroupRemedy(self.watchdog)
        self.watchdog.start()
        self.consumer.subscribe([topic], self)

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {partition: self.positions.setdefault(partition, 0) for partition in partitions}

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        pass

    def step(self, *, applies_remedy: bool = True) -> list[bytes | None]:
        """One poll; returns all values read so far."""
        for record in self.consumer.poll(10, 20):
            self.values.append(record.value)
            self.positions[record.topic_partition] = record.offset + 1
        self._progress.publish(self.positions | self.consumer.at_end, self.consumer.end_offsets())
        if applies_remedy:
            self._remedy.apply(self.consumer)
        return self.values

    def find_blocked(self) -> str | None:
        """Why the member is not ready after another poll, without a remedy."""
        self.step(applies_remedy=False)
        return self.watchdog.find_unready()

    def close(self) -> None:
        self.watchdog.close()
        self.consumer.close()


@pytest.fixture
def member(apache_kafka: ApacheKafka, topic_prefix: str) -> Iterator[WatchedMember]:
    """A member with one partition that has read one record."""
    topic = f"{topic_prefix}orders"
    apache_kafka.create_topics({topic: 1})
    kafka = KafkaSettings(
        bootstrap_servers=apache_kafka.bootstrap,
        group_prefix=topic_prefix,
        session_timeout_ms=6_000,
        client={"heartbeat.interval.ms": 300},
    )
    member = WatchedMember(kafka, topic)
    with BlockingProducer(apache_kafka.bootstrap) as producer:
        producer.send(topic, [(None, b"first")])
        wait_until(lambda: member.step() == [b"first"])
        # a client that returns nothing from now on: nothing of ours has paused it
        member.consumer._member.client.pause([KafkaPartition(topic, 0)])
        producer.send(topic, [(None, b"second"), (None, b"third")])
    try:
        yield member
    finally:
        member.close()


def test_a_partition_that_the_client_does_not_return_shows_in_the_lag(member: WatchedMember) -> None:
    wait_until(lambda: "unread: " in (member.find_blocked() or ""))
    (partition,) = member.positions
    assert metrics.LAG_RECORDS.labels(partition.topic, "0")._value.get() == 2


def test_a_member_whose_client_returns_no_records_joins_with_a_new_one(
    member: WatchedMember, caplog: pytest.LogCaptureFixture
) -> None:
    # when the remedy may be applied, then each record is read once
    wait_until(lambda: member.step() == [b"first", b"second", b"third"])
    assert "this client returns no records" in caplog.text
    wait_until(lambda: member.step() and member.watchdog.find_unready() is None)


class UnreadWatchdog:
    """Finds a partition unread again `blocked_s` after each new client has joined, until `helps` is set."""

    def __init__(self, blocked_s: float) -> None:
        self.now_s, self.joined_s, self.helps, self.blocked_s = 0.0, list[float](), False, blocked_s

    def note_denial(self, error: str) -> None:
        pass

    def find_recreated(self, since_s: float) -> dict[str, float]:
        return {}

    def find_unread(self) -> str | None:
        due_s = self.joined_s[-1] + JOIN_S + self.blocked_s if self.joined_s else 0
        return "stands" if not self.helps and self.now_s >= due_s else None

    # as a consumer
    denial = ""

    def replace_client(self, reason: str) -> None:
        self.joined_s.append(self.now_s)

    def run(self, remedy: GroupRemedy, until_s: float) -> list[float]:
        """Apply the remedy each second; returns the times between two new clients."""
        while self.now_s < until_s:
            remedy.apply(self)  # type: ignore[arg-type]
            self.now_s += 1
        return [later - earlier for earlier, later in pairwise(self.joined_s)]


JOIN_S = 2.0


@pytest.mark.parametrize(
    ("blocked_s", "expected_s"), [(30, [32, 60, 120, 240, 480, 480]), (95, [97, 97, 120, 240, 480, 480])]
)
def test_a_new_client_that_does_not_help_is_replaced_more_and_more_seldom(
    blocked_s: float, expected_s: list[float]
) -> None:
    unread = UnreadWatchdog(blocked_s)
    remedy = GroupRemedy(unread, asks_for_rebalance=False, clock_s=lambda: unread.now_s)  # type: ignore[arg-type]
    assert unread.run(remedy, 2_000)[:6] == expected_s
    # and after one that has helped, the next is not delayed
    unread.helps = True
    unread.run(remedy, 3_000)
    unread.helps = False
    assert unread.run(remedy, 3_000 + 1.5 * (blocked_s + JOIN_S))[-1] == blocked_s + JOIN_S


def test_a_partition_that_was_never_fetched_has_an_end(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given a member whose partition has records, and a client that does not fetch them
    topic = f"{topic_prefix}orders"
    apache_kafka.create_topics({topic: 1})
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix, session_timeout_ms=6_000)
    with BlockingProducer(apache_kafka.bootstrap) as producer:
        producer.send(topic, [(None, b"first")] * 3)
    member = WatchedMember(kafka, topic)
    member.consumer._member.client = PausingClient(member.consumer._member.client)  # type: ignore[assignment]
    try:
        # then
        wait_until(member.find_blocked)
        assert "stands at 0 of 3" in (member.watchdog.find_unready() or "")
    finally:
        member.close()


@pytest.mark.apache_kafka
def test_a_topic_is_read_that_was_recreated_after_its_leader_had_changed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a member that has read more of the former topic than the new one has, so that it does not lag
    if reason := unavailable_reason():
        pytest.skip(reason)
    monkeypatch.setattr(kafka_observer, "TOPICS_S", 0.5)
    with ApacheKafka() as kafka, BlockingProducer(kafka.bootstrap) as producer:
        kafka.create_topics({"orders": 1, "clicks": 1})
        producer.send("orders", [(None, b"former")] * 3)
        kafka.kill()
        kafka.start()
        kafka.wait_until_steady()
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, group_prefix="g", session_timeout_ms=6_000)
        member = WatchedMember(settings, "orders")
        try:
            wait_until(lambda: len(member.step()) == 3)
            wait_until(lambda: member.step() and member.watchdog.find_unready() is None)
            # when
            recreate_topics(kafka, {"orders": 1})
            producer.send("orders", [(None, b"new")])
            member.positions.clear()  # as recovery does, by the id of the topic
            # then
            wait_until(lambda: member.step()[3:] == [b"new"])
            assert "recreated since it joined: `orders`" in caplog.text
        finally:
            member.close()
