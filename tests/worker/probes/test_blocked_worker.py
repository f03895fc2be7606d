"""Whole workers on Apache Kafka that stand still, each for another reason: probes, metrics and log name it."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from devservers.apache_kafka import ApacheKafka, make_admin_client
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment
from tests.polling import wait_until
from tests.worker.probes.worker_process import WorkerProcess, count_decisions, delete_topic, send_orders
from worker.records.lanes import LANES

pytestmark = pytest.mark.apache_kafka


@pytest.fixture
def environment(run_environment: RunEnvironment) -> RunEnvironment:
    return run_environment


@pytest.fixture
def worker(environment: RunEnvironment) -> Iterator[WorkerProcess]:
    """A running worker that has answered one order."""
    worker = WorkerProcess(environment)
    worker.start()
    try:
        worker.wait_for(worker.is_ready)
        send_orders(environment, "first")
        worker.wait_for(lambda: count_decisions(environment) == 1)
        worker.wait_for(lambda: worker.lag("orders") == 0)
        yield worker
    finally:
        worker.kill()


def test_an_open_transaction_shows_in_lag_probes_metrics_and_log(
    environment: RunEnvironment, worker: WorkerProcess
) -> None:
    # given a foreign producer that leaves a transaction open, and orders behind it
    topic = environment.topics.orders
    foreign = Producer(
        {
            "bootstrap.servers": environment.kafka.bootstrap,
            "transactional.id": f"{environment.prefix}foreign",
            "transaction.timeout.ms": 900_000,
        }
    )
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(topic, b"order", partition=0)
    assert foreign.flush(30) == 0
    send_orders(environment, *(f"o{n}" for n in range(100)))

    # then the lag counts them, and grows in seconds
    worker.wait_for(lambda: worker.lag("orders") == 101)
    worker.wait_for(lambda: (worker.lag("orders", what="seconds") or 0) > 3)
    # and everything names the transaction, where it is and how to end it
    worker.wait_for(lambda: worker.metric("open_transaction_offset", topic=topic, partition="0") == 1)
    worker.wait_for(lambda: worker.says("/readyz", "open_transaction", f"{topic}[0]", "--start-offset 1"))
    worker.wait_for(lambda: worker.has_logged("open_transaction", f"{topic}[0]", "kafka-transactions.sh", "abort"))
    worker.wait_for(lambda: worker.says("/livez", "open_transaction"))
    assert (worker.metric("blocked_seconds", reason="open_transaction") or 0) > 6

    # when it is aborted
    foreign.abort_transaction(30)

    # then the orders are decided and nothing is blocked
    worker.wait_for(lambda: count_decisions(environment) == 101)
    worker.wait_for(lambda: worker.is_ready() and worker.fetch("/livez")[0] == 200 and worker.lag("orders") == 0)
    assert worker.metric("open_transaction_offset", topic=topic, partition="0") is None


def test_a_missing_dead_letter_topic_is_named_until_it_exists(
    environment: RunEnvironment, worker: WorkerProcess
) -> None:
    # given a record that has to become a dead letter, and no topic for it
    topic = environment.topics.dead_letters
    delete_topic(environment.kafka.bootstrap, topic)
    send_bad_order(environment)

    # then the worker names the topic, the partition that waits and the command
    worker.wait_for(lambda: worker.says("/readyz", "topic_missing", f"`{topic}`", f"--create --topic {topic}"))
    worker.wait_for(lambda: worker.says("/livez", "topic_missing", f"{environment.topics.orders}[0] stands at 1 of 2"))
    assert (worker.lag("orders") or 0) >= 1
    worker.wait_for(lambda: worker.has_logged("topic_missing", topic))

    # when it is created
    environment.create_topics()

    # then the worker goes on
    worker.wait_for(lambda: worker.is_ready() and worker.lag("orders") == 0)


def test_a_dead_letter_that_kafka_does_not_take_is_named(environment: RunEnvironment, worker: WorkerProcess) -> None:
    # given a topic of dead letters that takes transaction markers alone
    topic = environment.topics.dead_letters
    set_topic(environment, topic, "max.message.bytes", "150")
    send_bad_order(environment)

    # then
    place = f"{environment.topics.orders}[0] stands at 1 of 2"
    worker.wait_for(lambda: worker.says("/readyz", "unwritable", place))
    worker.wait_for(lambda: worker.says("/livez", "unwritable", place))
    assert worker.lag("orders") == 1
    worker.wait_for(lambda: worker.has_logged("Blocked (unwritable)", place))

    # when it takes records again
    set_topic(environment, topic, "max.message.bytes", "1000000")
    worker.wait_for(lambda: worker.is_ready() and worker.lag("orders") == 0)


def set_topic(environment: RunEnvironment, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = make_admin_client(environment.kafka.bootstrap)
    for reply in admin.incremental_alter_configs([resource]).values():
        reply.result()


def send_bad_order(environment: RunEnvironment) -> None:
    producer = Producer({"bootstrap.servers": environment.kafka.bootstrap})
    producer.produce(environment.topics.orders, b"{", partition=0)
    assert producer.flush(30) == 0


def test_a_worker_that_waits_for_redis_says_so(
    environment: RunEnvironment, worker: WorkerProcess, redis_server: RedisServer
) -> None:
    # when Redis stops answering
    redis_server.pause()
    try:
        send_orders(environment, *(f"o{n}" for n in range(10)))
        # then
        worker.wait_for(lambda: worker.says("/readyz", "redis: ", f"{environment.topics.orders}[0]"))
        worker.wait_for(lambda: worker.says("/livez", "redis: "))
        worker.wait_for(lambda: worker.lag("orders") == 10 and (worker.lag("orders", what="seconds") or 0) > 2)
        worker.wait_for(lambda: worker.has_logged("Blocked (redis)"))
    finally:
        redis_server.resume()
    worker.wait_for(lambda: worker.is_ready() and count_decisions(environment) == 11)


def test_the_lag_is_not_zero_while_the_broker_does_not_answer(
    environment: RunEnvironment, worker: WorkerProcess, apache_kafka: ApacheKafka
) -> None:
    # when the broker stops answering
    apache_kafka.pause()
    try:
        # then the end of the partition is not known
        worker.wait_for(lambda: worker.says("/readyz", "kafka: "))
        assert (worker.lag("orders") or 0) >= 1
        worker.wait_for(lambda: (worker.lag("orders", what="seconds") or 0) > 6)
        worker.wait_for(lambda: worker.says("/livez", "kafka: "))
        worker.wait_for(lambda: worker.has_logged("Blocked (kafka)"))
    finally:
        apache_kafka.resume()
        apache_kafka.wait_until_steady()
    worker.wait_for(lambda: worker.is_ready() and worker.lag("orders") == 0)


def test_a_rebalance_that_does_not_end_is_named_by_a_worker_without_partitions(
    environment: RunEnvironment,
) -> None:
    # given a member of the group that stays in it, but does not take part in the next rebalance
    foreign = Consumer(
        {
            "bootstrap.servers": environment.kafka.bootstrap,
            "group.id": environment.group_id("orders"),
            "partition.assignment.strategy": "cooperative-sticky",
            "max.poll.interval.ms": 600_000,
            "session.timeout.ms": 60_000,
            "log_level": 0,
        }
    )
    topics = [environment.topics.topic_name(kind) for kind in LANES["orders"].kinds]
    foreign.subscribe(topics, on_revoke=lambda consumer, partitions: consumer.incremental_unassign(partitions))
    worker = WorkerProcess(environment)
    try:
        wait_until(lambda: foreign.poll(0.1) is None and len(foreign.assignment()) == 20)
        # when a worker joins
        worker.start()
        # then
        worker.wait_for(lambda: worker.says("/readyz", "rebalance", environment.group_id("orders")))
        worker.wait_for(lambda: worker.says("/livez", "rebalance"))
        worker.wait_for(lambda: worker.has_logged("Blocked (rebalance)", "kafka-consumer-groups.sh"))
        assert (worker.metric("blocked_seconds", reason="rebalance") or 0) > 6
        # when the member takes part again
        worker.wait_for(lambda: foreign.poll(0.1) is None and worker.is_ready() and worker.fetch("/livez")[0] == 200)
    finally:
        worker.kill()
        foreign.close()


def test_erasures_behind_an_open_transaction_are_named(environment: RunEnvironment, worker: WorkerProcess) -> None:
    # when a transaction stays open on a topic that the worker reads outside its group
    topic = environment.topics.erasures
    foreign = Producer(
        {"bootstrap.servers": environment.kafka.bootstrap, "transactional.id": f"{environment.prefix}foreign"}
    )
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(topic, b"{}", partition=2)
    assert foreign.flush(30) == 0
    # then
    worker.wait_for(lambda: worker.says("/readyz", "open_transaction", f"{topic}[2]"))
    assert worker.lag("erasures", 2) == 1
    # when it ends
    foreign.abort_transaction(30)
    worker.wait_for(worker.is_ready)


def test_a_worker_whose_topic_does_not_exist_is_not_ready_until_it_does(environment: RunEnvironment) -> None:
    # given a misspelt name
    topic = f"{environment.prefix}shop.order"
    worker = WorkerProcess(environment, variables={"SHOPSTREAM_TOPICS__ORDERS": topic})
    worker.start()
    try:
        # then
        create = f"--create --topic {topic} --partitions 4"
        worker.wait_for(lambda: worker.says("/readyz", "topic_missing", f"`{topic}` (topics.orders)", create))
        worker.wait_for(lambda: worker.has_logged("Start check", topic, create))
        assert worker.fetch("/livez")[0] == 200
        # when it is created
        environment.kafka.create_topics({topic: 4})
        worker.wait_for(worker.is_ready)
    finally:
        worker.kill()
