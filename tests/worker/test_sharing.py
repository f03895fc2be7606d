"""Workers that share partitions: they come, leave, and wait for servers while the group rebalances."""

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from devservers.redis_server import RedisServer
from testkit.metrics import read_metric
from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment
from tests.worker.worker_lifecycle import TIMEOUT_S, InProcessWorker, StepEvent, WorkerThread, raise_killed, wait_until
from transport.records import TopicPartition
from worker.group.instance_name import InstanceFenced
from worker.group.listener import START_PENDING
from worker.ops import metrics


def count_order_partitions(stage: WorkerEnvironment, worker: InProcessWorker) -> int:
    """The number of partitions of orders that a worker has."""
    return sum(partition.topic == stage.topics.orders for partition in list(worker.offsets.sources))


def describe_progress(stage: WorkerEnvironment, *workers: InProcessWorker) -> str:
    """How often each order was decided, and the offsets of each worker."""
    counts = sorted(Counter(decision.event_id for decision in stage.read_decisions()).values())
    offsets = [(worker.offsets.folded, worker.offsets.committed) for worker in workers]
    return f"{counts}, {offsets}, {stage.end_offsets('orders')}"


def test_workers_share_the_partitions_and_one_takes_all_when_the_other_leaves(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given one worker
    stage = apache_stage
    with WorkerThread(InProcessWorker(stage, "steady", instance="a")) as steady:
        sent = stage.send_orders(seed, 20)
        wait_until(lambda: steady.has_processed(stage.end_offsets("orders")))
        # when another one joins
        with WorkerThread(InProcessWorker(stage, "guest", instance="b")) as guest:
            wait_until(lambda: (count_order_partitions(stage, steady), count_order_partitions(stage, guest)) == (2, 2))
            sent |= stage.send_orders(seed, 40, first=20)
            wait_until(lambda: stage.is_decided_once(sent))
        # and leaves, which the group notices by its missing heartbeats
        sent |= stage.send_orders(seed, 20, first=60)
        wait_until(lambda: count_order_partitions(stage, steady) == 4)
        wait_until(lambda: steady.has_processed(stage.end_offsets("orders")))
    # then
    assert stage.is_decided_once(sent)
    assert {decision.model_version for decision in stage.read_decisions()} == {"steady", "guest"}
    assert stage.find_differences("orders") == []


def test_a_second_worker_of_the_same_instance_name_stops_the_first(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 10)
    first = InProcessWorker(stage, "first")
    first.run_until(lambda: first.has_processed(stage.end_offsets("orders")))
    # when
    with WorkerThread(InProcessWorker(stage, "second")) as second:
        wait_until(lambda: count_order_partitions(stage, second) == 4)
        sent |= stage.send_orders(seed, 10, first=10)
        # then
        with pytest.raises(InstanceFenced, match="One process should run under the name of an instance"):
            first.run_until(lambda: False)
        first.abandon()
        wait_until(lambda: second.has_processed(stage.end_offsets("orders")))
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders") == []


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class PausePoint:
    """Stops another thread until the test opens it."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def pause(self) -> None:
        self.reached.set()
        assert self.opened.wait(TIMEOUT_S)


def read_revocations() -> float:
    return read_metric(metrics.RECOVERIES, "Dropped")


def test_a_batch_whose_partitions_move_while_redis_is_away_is_dropped_and_not_lost(
    apache_kafka: KafkaBroker, own_redis: RedisServer, topic_prefix: str, seed: int
) -> None:
    # given a worker with orders of every partition in flight when Redis goes away
    stage = WorkerEnvironment(broker=apache_kafka, redis_url=own_redis.url, prefix=topic_prefix, batch_max=100)
    before = read_revocations()
    first, pause_point = InProcessWorker(stage, "first", instance="a"), PausePoint()
    with WorkerThread(first):
        sent = stage.send_orders(seed, 20)
        wait_until(lambda: first.has_processed(stage.end_offsets("orders")))
        first.step_marker.add("idle", pause_point.pause, occurrence=5)
        wait_until(pause_point.reached.is_set)
        sent |= stage.send_orders(seed, 20, first=20)
        # until they are fetched and wait for a poll
        wait_until(lambda: first.consumer.end_offsets() == stage.end_offsets("orders"))
        own_redis.stop()
        pause_point.opened.set()
        # when another worker joins and gets some of the partitions
        with WorkerThread(InProcessWorker(stage, "second", instance="b")) as second:
            try:
                wait_until(lambda: read_revocations() > before)
            finally:
                own_redis.start()  # without it neither worker could end
            # then both go on when Redis is back
            wait_until(lambda: (count_order_partitions(stage, first), count_order_partitions(stage, second)) == (2, 2))
            wait_until(lambda: stage.is_decided_once(sent), lambda: describe_progress(stage, first, second))
    assert stage.find_differences("orders") == []
    stage.close()


def test_an_assignment_waits_for_no_server(
    apache_kafka: KafkaBroker, own_redis: RedisServer, topic_prefix: str
) -> None:
    # given a member that would stop if it waited for Redis
    stage = WorkerEnvironment(broker=apache_kafka, redis_url=own_redis.url, prefix=topic_prefix)
    with InProcessWorker(stage) as worker:
        own_redis.stop()
        worker.stop.set()
        # when it gets a partition, then its start is found outside the client's callback
        partition = TopicPartition(stage.topics.orders, 0)
        assert worker.pipeline.on_assigned([partition]) == {partition: START_PENDING}
    stage.close()


def test_a_worker_that_closes_during_an_assignment_does_not_start_the_partitions(
    apache_stage: WorkerEnvironment,
) -> None:
    # given a worker that has been assigned partitions but has not polled since
    stage, worker = apache_stage, InProcessWorker(apache_stage)
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap})
    group = f"{stage.settings.kafka.group_prefix}-orders"
    wait_until(lambda: admin.describe_consumer_groups([group])[group].result().state == ConsumerGroupState.STABLE)
    # when
    closing = threading.Thread(target=worker.pipeline.close, daemon=True)
    closing.start()
    # then
    wait_until(lambda: not closing.is_alive())
    assert worker.offsets.sources == {}
    worker.abandon()


def test_a_worker_may_die_before_it_has_any_partition(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 10)
    InProcessWorker(stage, "first", step_events=[StepEvent("recover", 1, raise_killed)]).run_until_killed()
    # when
    with InProcessWorker(stage, "second") as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert stage.is_decided_once(sent)
