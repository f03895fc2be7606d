"""Members of a consumer group on Apache Kafka that leave at random moments."""

import threading
import time
from collections.abc import Callable, Mapping
from random import Random

import pytest
from confluent_kafka import KafkaError, Producer

from contract.errors import StaleState
from contract.settings.servers import KafkaSettings
from tests.conftest import KafkaBroker
from tests.kafka import BlockingProducer
from tests.polling import wait_until
from transport.records import TopicPartition
from worker.group.consumer import GroupConsumer
from worker.group.consumer_client import build_configuration, gather_records
from worker.group.instance_name import InstanceName

MEMBERS = 24
JOINED_AFTER_S = 4.0  # the broker waits three seconds for other members of the group


class StaticAssignment:
    """Starts every partition at offset 0."""

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        pass


def test_a_member_can_leave_at_any_moment_of_joining(apache_kafka: KafkaBroker, topic_prefix: str, seed: int) -> None:
    # given a topic, and each member in a group of its own
    topic = f"{topic_prefix}orders"
    apache_kafka.create_topics({topic: 4})
    rng = Random(seed)
    started_s = time.monotonic()
    leaving: list[threading.Thread] = []
    for moment in sorted(rng.uniform(0, JOINED_AFTER_S) for _ in range(MEMBERS)):
        kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=f"{topic_prefix}{len(leaving)}")
        member = GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance="0")
        member.subscribe([topic], StaticAssignment())
        # when each leaves at its own moment, without having polled
        timer = threading.Timer(max(0.0, started_s + moment - time.monotonic()), member.close)
        timer.daemon = True
        timer.start()
        leaving.append(timer)
    # then
    wait_until(lambda: not any(thread.is_alive() for thread in leaving))


class GapMessage:
    """What the client returns instead of a record that was deleted."""

    def topic(self) -> str:
        return "orders"

    def partition(self) -> int:
        return 0

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._AUTO_OFFSET_RESET)


@pytest.mark.parametrize(
    ("client", "gathering_ms", "expected"),
    [({}, 0, (50, None)), ({}, 20, (20, 65_536)), ({"fetch.min.bytes": 1}, 20, (20, 1))],
)
def test_the_broker_gathers_records_where_the_lane_says_so_unless_the_settings_say_otherwise(
    client: dict[str, str | int | float | bool], gathering_ms: int, expected: tuple[int, int | None]
) -> None:
    # given
    kafka = gather_records(KafkaSettings(bootstrap_servers="127.0.0.1:1", client=client), gathering_ms)
    name = InstanceName(group="shop-browsing", instance="0", session_s=1.0)
    # when
    configuration = build_configuration(kafka, name, skips_gaps=False, strategy="range", on_error=lambda error: None)
    # then
    assert (configuration["fetch.wait.max.ms"], configuration.get("fetch.min.bytes")) == expected


class GapClient:
    """A Kafka client that finds a gap at once, and nothing afterwards."""

    def __init__(self) -> None:
        self.messages = [GapMessage()]

    def poll(self, timeout_s: float) -> GapMessage | None:
        return self.messages.pop() if self.messages else None

    def consume(self, records_max: int, timeout_s: float) -> list[GapMessage]:
        return []

    def close(self) -> None:
        pass


def test_a_gap_that_a_heartbeat_finds_is_raised_by_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a member that waits for a server, perhaps in a recovery
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    member = GroupConsumer(kafka=kafka, group=kafka.group("orders"), instance="0", skips_gaps=False)
    monkeypatch.setattr(member._member, "client", GapClient())
    # when
    member.heartbeat()
    # then it is raised where it can be recovered from, once
    with pytest.raises(StaleState, match="should go on where it was read to"):
        member.poll(10, 1)
    assert member.poll(10, 1) == []


def test_a_partition_behind_an_open_transaction_is_held_back_at_its_last_stable_offset(
    apache_kafka: KafkaBroker, topic_prefix: str
) -> None:
    # given a partition that is read to its end
    topic = TopicPartition(f"{topic_prefix}orders", 0)
    apache_kafka.create_topics({topic.topic: 1})
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix)
    member = GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance="0")
    member.subscribe([topic.topic], StaticAssignment())
    foreign = Producer({"bootstrap.servers": apache_kafka.bootstrap, "transactional.id": topic_prefix, "log_level": 0})
    foreign.init_transactions(30)
    offsets: list[int] = []

    def poll() -> bool:
        offsets.extend(record.offset for record in member.poll(100, 50))
        return True

    with BlockingProducer(apache_kafka.bootstrap) as producer:
        producer.send(topic.topic, [(None, b"order")] * 2)
        wait_until(lambda: poll() and member.at_end == {topic: 2} and not member.held_back)
        # when a transaction stays open there, and others go on writing
        foreign.begin_transaction()
        foreign.produce(topic.topic, b"order")
        assert foreign.flush(30) == 0
        producer.send(topic.topic, [(None, b"order")] * 3)
        # then the end is the high watermark
        wait_until(lambda: poll() and member.held_back == {topic: (2, 6)})
        assert (offsets, member.at_end, member.end_offsets()) == ([0, 1], {topic: 2}, {topic: 6})
        # when it is aborted
        foreign.abort_transaction(30)
        # then everything else is read, up to the marker
        wait_until(lambda: poll() and member.at_end == {topic: 7})
        assert (offsets, member.held_back) == ([0, 1, 3, 4, 5], {})
    member.close()


class RecordedAssignment:
    """Starts every partition at its committed offset, and remembers what is assigned."""

    def __init__(self) -> None:
        self.assigned: list[set[TopicPartition]] = []

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.assigned.append(set(partitions))
        return {}

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        pass


def open_members(kafka: KafkaSettings, count: int) -> list[GroupConsumer]:
    return [
        GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance=str(n), strategy="range") for n in range(count)
    ]


def numbers_by_topic(member: GroupConsumer, topics: list[str]) -> list[set[int]]:
    return [{p.partition for p in member.assignment if p.topic == topic} for topic in topics]


def poll_until(members: list[GroupConsumer], condition: Callable[[], bool]) -> None:
    def is_reached() -> bool:
        for member in members:
            member.poll(10, 1)
        return condition()

    wait_until(is_reached)


class KilledInRevocation(StaticAssignment):
    """Interrupts its member when partitions leave it, before the group hears of that."""

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        raise InterruptedError


def test_partitions_that_a_restart_left_without_a_member_are_assigned_by_another_rebalance(
    apache_kafka: KafkaBroker, topic_prefix: str
) -> None:
    # given a member with all partitions
    topics = [f"{topic_prefix}{kind}" for kind in ("orders", "labels")]
    apache_kafka.create_topics(dict.fromkeys(topics, 4))
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix)
    killed, second = (GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance=name) for name in ("0", "1"))
    killed.subscribe(topics, KilledInRevocation())
    poll_until([killed], lambda: len(killed.assignment) == 8)
    # when it should give some to a second one, and is killed and restarted in between
    second.subscribe(topics, StaticAssignment())
    with pytest.raises(InterruptedError):
        poll_until([killed, second], lambda: False)
    first = GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance="0")
    first.subscribe(topics, StaticAssignment())
    poll_until([first, second], lambda: bool(first.assignment))
    # then both ask for another rebalance, and share all partitions; without it some may stay without a member
    for member in (first, second):
        member.request_rebalance("some of its partitions have no member.")
    poll_until([first, second], lambda: len(first.assignment | second.assignment) == 8)
    first.close()
    second.close()


def test_the_range_strategy_gives_a_member_the_same_partitions_of_each_topic(
    apache_kafka: KafkaBroker, topic_prefix: str
) -> None:
    # given topics with as many partitions, and three members
    topics = [f"{topic_prefix}{kind}" for kind in ("scored", "clicks", "orders", "labels")]
    apache_kafka.create_topics(dict.fromkeys(topics, 7))
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix, session_timeout_ms=6_000)
    members = open_members(kafka, 3)
    for member in members:
        member.subscribe(topics, RecordedAssignment())

    def is_shared(group: list[GroupConsumer]) -> bool:
        numbers = [numbers_by_topic(member, topics) for member in group]
        # The leader of the group may not know of a topic yet that was just created, and then assigns none of it.
        known = [[of_topic for of_topic in of_member if of_topic] for of_member in numbers]
        assert all(of_topic == of_member[0] for of_member in known for of_topic in of_member), numbers
        shares = [of_member[0] for of_member in numbers]
        is_equal = all(shares) and numbers == [[share] * len(topics) for share in shares]
        return is_equal and sorted(n for share in shares for n in share) == list(range(7))

    # when they share them, one leaves, and comes back
    poll_until(members, lambda: is_shared(members))
    members.pop().close()
    poll_until(members, lambda: is_shared(members))
    third = GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance="2", strategy="range")
    third.subscribe(topics, RecordedAssignment())
    members.append(third)
    # then each has the same numbers of every topic
    poll_until(members, lambda: is_shared(members))
    for member in members:
        member.close()


def test_a_range_member_goes_on_where_the_listener_says_and_may_seek(
    apache_kafka: KafkaBroker, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}orders"
    apache_kafka.create_topics({topic: 1})
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix)
    with BlockingProducer(apache_kafka.bootstrap) as producer:
        producer.send(topic, [(None, str(n).encode()) for n in range(5)])
    (member,) = open_members(kafka, 1)
    member.subscribe([topic], StaticAssignment())
    values: list[bytes | None] = []

    def has_read(count: int) -> bool:
        values.extend(record.value for record in member.poll(10, 10))
        return len(values) >= count

    wait_until(lambda: has_read(5))
    member.seek({TopicPartition(topic, 0): 3})
    wait_until(lambda: has_read(7))
    member.close()

    assert values == [b"0", b"1", b"2", b"3", b"4", b"3", b"4"]
