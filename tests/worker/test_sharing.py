"""Workers that share partitions: they come, leave, and wait for servers while the group moves on."""

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from devservers.redis_server import RedisServer
from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment
from tests.worker.worker_lifecycle import TIMEOUT_S, InProcessWorker, StepEvent, WorkerThread, raise_killed, wait_until
from worker.kafka.consumer import InstanceFenced
from worker.ops import metrics


def count_order_partitions(stage: WorkerEnvironment, worker: InProcessWorker) -> int:
    """How many partitions of orders a life holds."""
    return sum(partition.topic == stage.topics.orders for partition in list(worker.positions.sources))


def is_decided_once(stage: WorkerEnvironment, sent: set[str]) -> bool:
    return Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)


def describe_progress(stage: WorkerEnvironment, *workers: InProcessWorker) -> str:
    """How far the decisions and each life have come."""
    times = sorted(Counter(decision.event_id for decision in stage.read_decisions()).values())
    return f"{times}, {[(life.positions.folded, life.positions.committed) for life in workers]}, {stage.end_offsets('orders')}"


def test_workers_share_the_partitions_and_one_takes_all_when_the_other_has_left(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given one worker
    stage = apache_stage
    with WorkerThread(InProcessWorker(stage, "steady", instance="a")) as steady:
        sent = stage.send_orders(seed, 20)
        wait_until(lambda: steady.has_processed(stage.end_offsets("orders")))
        # when another one comes
        with WorkerThread(InProcessWorker(stage, "guest", instance="b")) as guest:
            wait_until(lambda: (count_order_partitions(stage, steady), count_order_partitions(stage, guest)) == (2, 2))
            sent |= stage.send_orders(seed, 40, first=20)
            wait_until(lambda: is_decided_once(stage, sent))
        # and leaves, which the group notices by its silence
        sent |= stage.send_orders(seed, 20, first=60)
        wait_until(lambda: count_order_partitions(stage, steady) == 4)
        wait_until(lambda: steady.has_processed(stage.end_offsets("orders")))
    # then
    assert is_decided_once(stage, sent)
    assert {decision.model_version for decision in stage.read_decisions()} == {"steady", "guest"}
    assert stage.find_differences("orders") == []


def test_a_second_worker_under_the_same_name_ends_the_first(apache_stage: WorkerEnvironment, seed: int) -> None:
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
        with pytest.raises(InstanceFenced, match="One process should work under the name of an instance"):
            first.run_until(lambda: False)
        first.abandon()
        wait_until(lambda: second.has_processed(stage.end_offsets("orders")))
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class PausePoint:
    """A place in another thread where it stops until it may go on."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def pause(self) -> None:
        self.reached.set()
        assert self.opened.wait(TIMEOUT_S)


def read_drops() -> float:
    return float(metrics.RECOVERIES.labels("Dropped")._value.get())


def test_a_batch_whose_partitions_move_while_redis_is_away_is_dropped_and_lost_to_nobody(
    apache_kafka: KafkaBroker, own_redis: RedisServer, topic_prefix: str, seed: int
) -> None:
    # given a worker that has orders of every partition in hand when Redis goes away
    stage = WorkerEnvironment(broker=apache_kafka, redis_url=own_redis.url, prefix=topic_prefix, batch_max=100)
    before = read_drops()
    holding, gate = InProcessWorker(stage, "holding", instance="a"), PausePoint()
    with WorkerThread(holding):
        sent = stage.send_orders(seed, 20)
        wait_until(lambda: holding.has_processed(stage.end_offsets("orders")))
        holding.mark.events.append(StepEvent("idle", holding.mark.entry_counts["idle"] + 5, gate.pause))
        wait_until(gate.reached.is_set)
        sent |= stage.send_orders(seed, 20, first=20)
        wait_until(
            lambda: holding.intake.end_offsets() == stage.end_offsets("orders")
        )  # they are fetched and wait for a poll
        own_redis.stop()
        gate.opened.set()
        # when another worker comes and gets some of them
        with WorkerThread(InProcessWorker(stage, "coming", instance="b")) as coming:
            try:
                wait_until(lambda: read_drops() > before)
            finally:
                own_redis.start()  # without it nobody could end
            # then both go on when Redis is back
            wait_until(
                lambda: (count_order_partitions(stage, holding), count_order_partitions(stage, coming)) == (2, 2)
            )
            wait_until(lambda: is_decided_once(stage, sent), lambda: describe_progress(stage, holding, coming))
    assert stage.find_differences("orders") == []
    stage.close()


def test_a_member_that_is_given_nothing_new_waits_for_nobody(
    apache_kafka: KafkaBroker, own_redis: RedisServer, topic_prefix: str
) -> None:
    # given a member while Redis is away, that would have to end where it waits
    stage = WorkerEnvironment(broker=apache_kafka, redis_url=own_redis.url, prefix=topic_prefix)
    with InProcessWorker(stage) as life:
        own_redis.stop()
        life.stop.set()
        # when a rebalance ends that only took partitions from it, then
        assert life.protocol.on_assigned([]) == {}
    stage.close()


def test_a_worker_that_ends_while_partitions_come_in_does_not_take_them_up(apache_stage: WorkerEnvironment) -> None:
    # given a worker that has been given partitions and not yet heard of it
    stage, life = apache_stage, InProcessWorker(apache_stage)
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap})
    group = f"{stage.settings.kafka.group_prefix}-orders"
    wait_until(lambda: admin.describe_consumer_groups([group])[group].result().state == ConsumerGroupState.STABLE)
    # when
    closing = threading.Thread(target=life.protocol.close, daemon=True)
    closing.start()
    # then
    wait_until(lambda: not closing.is_alive())
    assert life.positions.sources == {}
    life.abandon()


def test_a_worker_may_die_before_it_has_any_partition(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 10)
    InProcessWorker(stage, "first", step_events=[StepEvent("recover", 1, raise_killed)]).run_until_killed()
    # when
    with InProcessWorker(stage, "second") as life:
        life.process_all(stage.end_offsets("orders"))
    # then
    assert is_decided_once(stage, sent)
