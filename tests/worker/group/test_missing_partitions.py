"""A topic is recreated with fewer partitions: its members go on with those that exist, and the group assigns no others.

A static member that restarts gets its former partitions without a rebalance.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import pytest

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka, make_admin_client
from tests.kafka import BlockingProducer
from tests.polling import wait_until
from transport.records import TopicPartition
from worker.group.consumer import GroupConsumer
from worker.group.missing_partitions import CONFIRM_S, REBALANCE_S, MissingPartitions
from worker.kafka.log_probe import LogProbe

STRATEGIES = ("cooperative-sticky", "range")
Strategy = Literal["cooperative-sticky", "range"]
SESSION_MS = 10_000
pytestmark = pytest.mark.apache_kafka


class Member:
    """A member of a group that reads everything from the beginning of its partitions."""

    def __init__(self, kafka: KafkaSettings, topics: Sequence[str], instance: str, strategy: Strategy) -> None:
        self.consumer = GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance=instance, strategy=strategy)
        self.values = set[bytes | None]()
        self.started = set[TopicPartition]()
        self.consumer.subscribe(topics, self)

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.started.update(partitions)
        return dict.fromkeys(partitions, 0)

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        self.started.difference_update(partitions)

    def step(self) -> None:
        """Poll; then query its offsets, once, as a worker does that recovers."""
        self.values |= {record.value for record in self.consumer.poll(100, 20)}
        try:
            self.consumer.query_offsets(self.consumer.assignment)
        except Unavailable:
            self.consumer.heartbeat()


class Group:
    """Members that read a topic that is recreated, and another one."""

    def __init__(self, broker: ApacheKafka, prefix: str, strategy: Strategy, instances: Sequence[str]) -> None:
        self.broker, self.strategy = broker, strategy
        self.topic, self.other = f"{prefix}searches", f"{prefix}clicks"
        broker.create_topics({self.topic: 5, self.other: 4})
        self.kafka = KafkaSettings(
            bootstrap_servers=broker.bootstrap,
            group_prefix=prefix,
            session_timeout_ms=SESSION_MS,
            client={"heartbeat.interval.ms": 300},
        )
        self.members: dict[str, Member] = {}
        self._probe = LogProbe(kafka=self.kafka)
        for instance in instances:
            self.start(instance)
        wait_until(lambda: self.step() and all(m.consumer.assignment for m in self.members.values()))
        wait_until(lambda: self.step() and self.assigned == self.list_partitions(5))

    def start(self, instance: str) -> None:
        self.members[instance] = Member(self.kafka, [self.topic, self.other], instance, self.strategy)

    def kill(self, instance: str) -> None:
        """End a member; a static one does not leave its group by that."""
        self.members.pop(instance).consumer._member.client.close()
        gc.collect()

    def list_partitions(self, count: int) -> set[TopicPartition]:
        return {TopicPartition(self.topic, n) for n in range(count)} | {TopicPartition(self.other, n) for n in range(4)}

    def recreate_smaller(self) -> None:
        """Delete the topic, and create it with four partitions, which have a record each."""
        admin = make_admin_client(self.broker.bootstrap)
        admin.delete_topics([self.topic])[self.topic].result()
        wait_until(lambda: self.topic not in admin.list_topics(timeout=20).topics)
        self.broker.create_topics({self.topic: 4})
        with BlockingProducer(self.broker.bootstrap) as producer:
            for number in range(4):
                producer.send(self.topic, [(None, b"%d" % number)], partition=number)

    @property
    def assigned(self) -> set[TopicPartition]:
        """What the members go on with; each partition should have one."""
        assigned = [partition for member in self.members.values() for partition in member.consumer.assignment]
        started = [partition for member in self.members.values() for partition in member.started]
        assert sorted(assigned) == sorted(started)
        return set(assigned)

    def step(self) -> bool:
        for member in self.members.values():
            member.step()
        return True

    def is_rebalanced(self) -> bool:
        """Whether the broker assigns exactly the partitions that exist, and the members have them and their records."""
        self.step()
        if any(member.consumer.missing for member in self.members.values()):
            return False
        read = set[bytes | None]().union(*(member.values for member in self.members.values()))
        expected = self.list_partitions(4)
        return (
            self.assigned == expected
            and read >= {b"0", b"1", b"2", b"3"}
            and self._probe.fetch_assigned(self.kafka.group_prefix) == expected
        )

    def close(self) -> None:
        self._probe.close()
        for member in self.members.values():
            member.consumer.close()


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    strategy: Strategy = request.param
    return strategy


@pytest.fixture
def group(
    apache_kafka: ApacheKafka, topic_prefix: str, strategy: Strategy, instances: tuple[str, ...]
) -> Iterator[Group]:
    group = Group(apache_kafka, topic_prefix, strategy, instances)
    yield group
    group.close()


@pytest.mark.parametrize(
    ("instances", "restarted"), [(("0",), ("0",)), (("0", "1"), ("0",)), (("0", "1"), ("1",)), (("0", "1"), ("0", "1"))]
)
def test_members_that_restart_while_a_topic_shrinks_go_on_with_the_partitions_that_exist(
    group: Group, restarted: tuple[str, ...]
) -> None:
    # given members that are down while the topic is recreated
    for instance in restarted:
        group.kill(instance)
    group.recreate_smaller()
    # when they come back, and get their former partitions
    for instance in restarted:
        group.start(instance)
    # then
    wait_until(group.is_rebalanced)


@pytest.mark.parametrize("instances", [("0",), ("0", "1")])
def test_running_members_go_on_with_the_partitions_that_a_smaller_topic_has(group: Group) -> None:
    group.recreate_smaller()
    wait_until(group.is_rebalanced)


@pytest.mark.parametrize("instances", [("0",)])
def test_a_member_whose_group_does_not_rebalance_reads_the_partitions_that_exist(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a group that does not assign its partitions again
    monkeypatch.setattr(GroupConsumer, "request_rebalance", lambda *_: None)
    group.kill("0")
    group.recreate_smaller()
    group.start("0")
    # then the member says which partition is missing, and reads the others
    (member,) = group.members.values()
    wait_until(lambda: group.step() and member.consumer.missing == {TopicPartition(group.topic, 4)})
    wait_until(lambda: group.step() and member.values == {b"0", b"1", b"2", b"3"})
    assert group.assigned == group.list_partitions(4)


class SetClock:
    """A clock that tests set."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_partition_is_missing_once_two_queries_in_a_row_did_not_find_it() -> None:
    # given a query that does not know two partitions
    clock, assigned = SetClock(), {TopicPartition("orders", n) for n in range(4)}
    missing = MissingPartitions(clock_s=clock)
    assert not missing.take_query()
    missing.query_within(0)
    assert [missing.take_query() for _ in range(2)] == [True, False]
    assert missing.find(assigned, {"orders": 2}) == set()
    # when the next one, some time later, knows one of them
    assert not missing.take_query()
    clock.now_s += CONFIRM_S
    assert missing.take_query()
    # then the other one is missing
    assert missing.find(assigned, {"orders": 3}) == {TopicPartition("orders", 3)}
    assert not missing.take_query()


def test_every_partition_of_a_deleted_topic_is_missing() -> None:
    missing, assigned = MissingPartitions(), {TopicPartition("orders", n) for n in range(2)}
    assert [missing.find(assigned, {}) for _ in range(2)] == [set(), assigned]


def test_a_rebalance_is_due_from_time_to_time_as_long_as_a_partition_is_missing() -> None:
    clock, partition = SetClock(), TopicPartition("orders", 3)
    missing = MissingPartitions(clock_s=clock)
    assert not missing.take_rebalance()
    missing.partitions.add(partition)
    assert [missing.take_rebalance() for _ in range(2)] == [True, False]
    clock.now_s += REBALANCE_S
    assert missing.take_rebalance()
    clock.now_s += REBALANCE_S
    missing.forget([partition])
    assert not missing.take_rebalance()
