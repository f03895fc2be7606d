"""A member that the broker fences joins again, unless another process runs under its name."""

import threading
import time
from collections import Counter
from collections.abc import Mapping

import pytest
from confluent_kafka import Consumer

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from testkit.metrics import read_metric
from tests.conftest import KafkaBroker
from tests.kafka import BlockingProducer
from tests.polling import wait_until
from tests.worker.environment import WorkerEnvironment
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, WorkerThread
from transport.group_offsets import fetch_commits
from transport.records import TopicPartition
from worker.group import instance_name
from worker.group import member as member_module
from worker.group.consumer import GroupConsumer
from worker.group.instance_name import FENCES_MAX, InstanceFenced
from worker.ops import metrics

SESSION_MS = 6_000


class FromCommitted:
    """Starts every partition where the group has committed."""

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {}

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        pass


def make_settings(broker: KafkaBroker, prefix: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap,
        group_prefix=prefix,
        session_timeout_ms=SESSION_MS,
        client={"heartbeat.interval.ms": 300},
    )


def fence(kafka: KafkaSettings, group: str, topic: str, instance: str = "0") -> None:
    """Join in the name of a member and vanish, as its own late request would after an outage."""
    consumer = Consumer(
        {
            **kafka.connection(),
            "group.id": group,
            "group.instance.id": f"{group}-{instance}",
            "session.timeout.ms": kafka.session_timeout_ms,
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    wait_until(lambda: consumer.poll(0.05) is not None or consumer.memberid())
    consumer.close()


class PolledMember:
    """A member in its own thread, until it is stopped or fails."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.consumer = GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance="0")
        self.consumer.subscribe([topic], FromCommitted())
        self.values = list[bytes | None]()
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.consumer.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.values += [record.value for record in self.consumer.poll(10, 20)]
        except InstanceFenced as error:
            self.error = error


def test_a_member_that_the_broker_fenced_joins_again(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given
    topic, kafka = f"{topic_prefix}orders", make_settings(apache_kafka, topic_prefix)
    apache_kafka.create_topics({topic: 4})
    member = PolledMember(kafka, topic)
    wait_until(lambda: len(member.consumer.assignment) == 4)
    # when it is fenced, and once more
    for round_number in range(2):
        rejoins = read_metric(metrics.REJOINS)
        fence(kafka, topic_prefix, topic)
        wait_until(lambda: read_metric(metrics.REJOINS) > rejoins)  # noqa: B023 - called at once
        wait_until(lambda: len(member.consumer.assignment) == 4)
        # then it reads on
        with BlockingProducer(apache_kafka.bootstrap) as producer:
            producer.send(topic, [(None, b"%d" % round_number)])
        wait_until(lambda: b"%d" % round_number in member.values)  # noqa: B023 - called at once
    member.stop()


def test_of_two_living_members_of_one_name_exactly_one_ends(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given
    topic, kafka = f"{topic_prefix}orders", make_settings(apache_kafka, topic_prefix)
    apache_kafka.create_topics({topic: 4})
    members = [PolledMember(kafka, topic)]
    wait_until(lambda: len(members[0].consumer.assignment) == 4)
    # when
    members.append(PolledMember(kafka, topic))
    wait_until(lambda: not all(member.is_alive for member in members))
    # then the other one stays, for longer than a member needs to be sure
    ended, living = sorted(members, key=lambda member: member.is_alive)
    assert ended is members[0]
    wait_until(lambda: len(living.consumer.assignment) == 4)
    until_s = time.monotonic() + 2 * SESSION_MS / 1000
    wait_until(lambda: time.monotonic() > until_s)
    assert living.is_alive
    assert "another one joins" in str(ended.error)
    living.stop()


@pytest.mark.parametrize("step", ["read", "publish", "commit", "merge"])
def test_a_worker_that_is_fenced_in_any_step_decides_each_order_once(
    apache_stage: WorkerEnvironment, seed: int, step: str
) -> None:
    # given
    stage = apache_stage
    kafka = stage.settings.kafka
    sent = stage.send_orders(seed, 30)
    action = StepEvent(step, 2, lambda: fence(kafka, kafka.group("orders"), stage.topics.orders))
    # when
    with InProcessWorker(stage, step_events=[action]) as worker:
        worker.process_all(stage.end_offsets("orders"))
        sent |= stage.send_orders(seed, 20, first=30)
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)
    assert stage.find_differences("orders") == []


@pytest.mark.parametrize("step", ["read", "publish", "commit", "merge"])
def test_a_worker_whose_client_joined_again_without_a_word_decides_each_order_once(
    apache_stage: WorkerEnvironment, seed: int, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given a member that has another id now than when it was assigned its partitions
    stage = apache_stage
    sent = stage.send_orders(seed, 30)
    workers = list[InProcessWorker]()

    def change_member() -> None:
        workers[0].consumer._member._id._assigned = "former"

    # when
    with InProcessWorker(stage, step_events=[StepEvent(step, 2, change_member)]) as worker:
        workers.append(worker)
        worker.process_all(stage.end_offsets("orders"))
        sent |= stage.send_orders(seed, 20, first=30)
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert "the group has removed since" in caplog.text
    assert Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)
    assert stage.find_differences("orders") == []


def test_offsets_are_not_set_back_by_a_member_that_kept_the_partitions_of_a_former_one(
    broker: KafkaBroker, topic: str
) -> None:
    # given a member with partitions that another one has read on since
    kafka = make_settings(broker, topic)
    consumer = GroupConsumer(kafka=kafka, group=topic, instance="0")
    consumer.subscribe([topic], FromCommitted())
    wait_until(lambda: consumer.poll(10, 20) or len(consumer.assignment) == 4)
    consumer.commit({TopicPartition(topic, 0): 7})
    # when
    consumer._member._id._assigned = "former"
    # then it commits nothing, and has no partition until it has joined with a new client
    with pytest.raises(Unavailable, match="member that read the records"):
        consumer.commit({TopicPartition(topic, 0): 3})
    assert not consumer.assignment
    assert fetch_commits(kafka, topic, [TopicPartition(topic, 0)])[TopicPartition(topic, 0)][0] == 7
    wait_until(lambda: consumer.poll(10, 20) or len(consumer.assignment) == 4)
    consumer.commit({TopicPartition(topic, 0): 9})
    consumer.close()


def be_away(broker: ApacheKafka, how: str) -> None:
    """Let a broker be away for longer than a session: paused, or killed and started again."""
    broker.pause() if how == "paused" else broker.kill()
    until_s = time.monotonic() + 1.5 * SESSION_MS / 1000
    wait_until(lambda: time.monotonic() > until_s)
    broker.resume() if how == "paused" else broker.start()


@pytest.mark.apache_kafka
@pytest.mark.parametrize("how", ["paused", "killed"])
def test_a_worker_outlives_a_broker_that_is_away_for_longer_than_a_session(
    own_kafka: ApacheKafka, redis_url: str, topic_prefix: str, seed: int, how: str
) -> None:
    # given
    stage = WorkerEnvironment(broker=own_kafka, redis_url=redis_url, prefix=topic_prefix)
    sent = stage.send_orders(seed, 20)
    with WorkerThread(InProcessWorker(stage)) as worker:
        wait_until(lambda: worker.has_processed(stage.end_offsets("orders")))
        # when
        for number in range(2):
            be_away(own_kafka, how)
            sent |= stage.send_orders(seed, 20, first=20 * (number + 1))
            wait_until(lambda: worker.has_processed(stage.end_offsets("orders")), timeout_s=120)
    # then
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders") == []
    stage.close()


@pytest.mark.apache_kafka
def test_a_lone_member_that_is_fenced_after_each_of_many_outages_joins_again(
    own_kafka: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given outages that are all within one window
    monkeypatch.setattr(instance_name, "WINDOW_S", 600.0)
    topic, kafka = f"{topic_prefix}orders", make_settings(own_kafka, topic_prefix)
    own_kafka.create_topics({topic: 4})
    member = PolledMember(kafka, topic)
    wait_until(lambda: len(member.consumer.assignment) == 4)
    # when
    for _ in range(FENCES_MAX + 1):
        be_away(own_kafka, "paused")
        wait_until(lambda: len(member.consumer.assignment) == 4, timeout_s=120)
        rejoins = read_metric(metrics.REJOINS)
        fence(kafka, topic_prefix, topic)
        # then
        wait_until(lambda: read_metric(metrics.REJOINS) > rejoins or not member.is_alive)  # noqa: B023 - called at once
        wait_until(lambda: len(member.consumer.assignment) == 4 or not member.is_alive, timeout_s=120)
        assert member.error is None
    member.stop()


@pytest.mark.apache_kafka
def test_a_member_whose_client_finds_no_broker_joins_with_a_new_one(
    own_kafka: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    monkeypatch.setattr(member_module, "CLIENT_AWAY_S", 1.0)
    topic, kafka = f"{topic_prefix}orders", make_settings(own_kafka, topic_prefix)
    own_kafka.create_topics({topic: 4})
    member = PolledMember(kafka, topic)
    wait_until(lambda: len(member.consumer.assignment) == 4)
    # when
    own_kafka.kill()
    wait_until(lambda: "no broker answers this client" in caplog.text)
    own_kafka.start()
    # then it reads on
    with BlockingProducer(own_kafka.bootstrap) as producer:
        producer.send(topic, [(None, b"after")])
    wait_until(lambda: b"after" in member.values)
    member.stop()


@pytest.mark.apache_kafka
def test_a_member_without_partitions_whose_client_has_no_broker_joins_with_a_new_one(
    own_kafka: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a client that has forgotten all its brokers, and does not report it
    monkeypatch.setattr(member_module, "CLIENT_AWAY_S", 1.0)
    topic, kafka = f"{topic_prefix}orders", make_settings(own_kafka, topic_prefix)
    own_kafka.create_topics({topic: 4})
    member = GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance="0")
    member._member.client = Consumer(
        {"bootstrap.servers": "127.0.0.1:1", "group.id": topic_prefix, "log_level": 0, "error_cb": lambda error: None}
    )
    member.subscribe([topic], FromCommitted())
    # when, then
    wait_until(lambda: member.poll(10, 20) or len(member.assignment) == 4)
    member.close()
