"""Workers that share partitions: they come, leave, and wait for servers while the group moves on."""

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from demo.servers.redis_server import RedisServer
from tests.conftest import Broker
from tests.worker.lives import WITHIN_S, Fate, Life, Running, die, eventually
from tests.worker.stage import Stage
from worker import metrics
from worker.intake import Replaced


def orders_of(stage: Stage, life: Life) -> int:
    """How many partitions of orders a life holds."""
    return sum(place.topic == stage.topics.orders for place in list(life.positions.sources))


def decided_once(stage: Stage, sent: set[str]) -> bool:
    return Counter(decision.event_id for decision in stage.decisions()) == Counter(sent)


def reading_of(stage: Stage, *lives: Life) -> str:
    """How far the decisions and each life have come."""
    times = sorted(Counter(decision.event_id for decision in stage.decisions()).values())
    return f"{times}, {[(life.positions.folded, life.positions.committed) for life in lives]}, {stage.ends('orders')}"


def test_workers_share_the_partitions_and_one_takes_all_when_the_other_has_left(apache_stage: Stage, seed: int) -> None:
    # given one worker
    stage = apache_stage
    with Running(Life(stage, "steady", instance="a")) as steady:
        sent = stage.send_orders(seed, 20)
        eventually(lambda: steady.has_read(stage.ends("orders")))
        # when another one comes
        with Running(Life(stage, "guest", instance="b")) as guest:
            eventually(lambda: (orders_of(stage, steady), orders_of(stage, guest)) == (2, 2))
            sent |= stage.send_orders(seed, 40, first=20)
            eventually(lambda: decided_once(stage, sent))
        # and leaves, which the group notices by its silence
        sent |= stage.send_orders(seed, 20, first=60)
        eventually(lambda: orders_of(stage, steady) == 4)
        eventually(lambda: steady.has_read(stage.ends("orders")))
    # then
    assert decided_once(stage, sent)
    assert {decision.model_version for decision in stage.decisions()} == {"steady", "guest"}
    assert stage.differences("orders") == []


def test_a_second_worker_under_the_same_name_ends_the_first(apache_stage: Stage, seed: int) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 10)
    first = Life(stage, "first")
    first.work_until(lambda: first.has_read(stage.ends("orders")))
    # when
    with Running(Life(stage, "second")) as second:
        eventually(lambda: orders_of(stage, second) == 4)
        sent |= stage.send_orders(seed, 10, first=10)
        # then
        with pytest.raises(Replaced, match="One process should work under the name of an instance"):
            first.work_until(lambda: False)
        first.vanish()
        eventually(lambda: second.has_read(stage.ends("orders")))
    assert decided_once(stage, sent)
    assert stage.differences("orders") == []


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class Gate:
    """A place in another thread where it stops until it may go on."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self.opened.wait(WITHIN_S)


def drops() -> float:
    return float(metrics.RECOVERIES.labels("Dropped")._value.get())


def test_a_batch_whose_partitions_move_while_redis_is_away_is_dropped_and_lost_to_nobody(
    apache_kafka: Broker, own_redis: RedisServer, topic_prefix: str, seed: int
) -> None:
    # given a worker that has orders of every partition in hand when Redis goes away
    stage = Stage(broker=apache_kafka, redis_url=own_redis.url, prefix=topic_prefix, batch_max=100)
    before = drops()
    holding, gate = Life(stage, "holding", instance="a"), Gate()
    with Running(holding):
        sent = stage.send_orders(seed, 20)
        eventually(lambda: holding.has_read(stage.ends("orders")))
        holding.mark.fates.append(Fate("idle", holding.mark.entered["idle"] + 5, gate.pass_through))
        eventually(gate.reached.is_set)
        sent |= stage.send_orders(seed, 20, first=20)
        eventually(lambda: holding.intake.ends() == stage.ends("orders"))  # they are fetched and wait for a poll
        own_redis.stop()
        gate.opened.set()
        # when another worker comes and gets some of them
        with Running(Life(stage, "coming", instance="b")) as coming:
            try:
                eventually(lambda: drops() > before)
            finally:
                own_redis.start()  # without it nobody could end
            # then both go on when Redis is back
            eventually(lambda: (orders_of(stage, holding), orders_of(stage, coming)) == (2, 2))
            eventually(lambda: decided_once(stage, sent), lambda: reading_of(stage, holding, coming))
    assert stage.differences("orders") == []
    stage.close()


def test_a_member_that_is_given_nothing_new_waits_for_nobody(
    apache_kafka: Broker, own_redis: RedisServer, topic_prefix: str
) -> None:
    # given a member while Redis is away, that would have to end where it waits
    stage = Stage(broker=apache_kafka, redis_url=own_redis.url, prefix=topic_prefix)
    with Life(stage) as life:
        own_redis.stop()
        life.stop.set()
        # when a rebalance ends that only took partitions from it, then
        assert life.protocol.assigned([]) == {}
    stage.close()


def test_a_worker_that_ends_while_partitions_come_in_does_not_take_them_up(apache_stage: Stage) -> None:
    # given a worker that has been given partitions and not yet heard of it
    stage, life = apache_stage, Life(apache_stage)
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap})
    group = f"{stage.settings.kafka.group_prefix}-orders"
    eventually(lambda: admin.describe_consumer_groups([group])[group].result().state == ConsumerGroupState.STABLE)
    # when
    closing = threading.Thread(target=life.protocol.close, daemon=True)
    closing.start()
    # then
    eventually(lambda: not closing.is_alive())
    assert life.positions.sources == {}
    life.vanish()


def test_a_worker_may_die_before_it_has_any_partition(apache_stage: Stage, seed: int) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 10)
    Life(stage, "first", fates=[Fate("recover", 1, die)]).live_and_die()
    # when
    with Life(stage, "second") as life:
        life.finish(stage.ends("orders"))
    # then
    assert decided_once(stage, sent)
