"""Recovery: Redis loses writes, a zombie writes late, a topic is created anew; nothing is lost or told twice."""

import copy
from collections import Counter
from collections.abc import Mapping
from functools import partial

import pytest
from confluent_kafka.admin import AdminClient

from contract.errors import LostLog, StaleState
from contract.memory import Merged
from contract.slices import Slices
from demo.servers.redis_server import RedisServer
from tests.conftest import Broker
from tests.worker.lives import Died, Fate, Life, eventually
from tests.worker.stage import Stage
from worker import metrics


def recoveries() -> float:
    return float(metrics.RECOVERIES.labels("StaleState")._value.get())


def decided_once(stage: Stage, sent: set[str]) -> bool:
    return Counter(decision.event_id for decision in stage.decisions()) == Counter(sent)


def test_a_flush_of_redis_in_any_moment_loses_nothing_and_repeats_nothing(apache_stage: Stage, seed: int) -> None:
    # given a Redis that is emptied before a read, between a claim and its publication, before a merge, and at rest
    stage = apache_stage
    flush = partial(stage.redis.pipeline, [("FLUSHALL",)])
    sent, before = stage.send_orders(seed, 40), recoveries()
    with Life(stage, fates=[Fate("read", 2, flush), Fate("publish", 5, flush), Fate("merge", 8, flush)]) as life:
        life.finish(stage.ends("orders"))
        flush()
        sent |= stage.send_orders(seed, 10, first=40)
        # when
        life.finish(stage.ends("orders"))
    # then
    assert recoveries() >= before + 4
    assert decided_once(stage, sent)
    assert stage.differences("orders") == []


def test_a_failover_that_lost_the_last_writes_is_made_up_for(
    apache_kafka: Broker, topic_prefix: str, seed: int
) -> None:
    with RedisServer() as server:
        # given a Redis of which a copy was kept after some orders
        stage = Stage(broker=apache_kafka, redis_url=server.url, prefix=topic_prefix)
        sent = stage.send_orders(seed, 20)
        with Life(stage) as life:
            life.finish(stage.ends("orders"))
            stage.redis.pipeline([("SAVE",)])
            sent |= stage.send_orders(seed, 20, first=20)
            life.finish(stage.ends("orders"))
            # when it dies, comes back with the copy, and more orders come
            server.kill()
            server.start()
            sent |= stage.send_orders(seed, 10, first=40)
            life.finish(stage.ends("orders"))
        # then
        assert decided_once(stage, sent)
        assert stage.differences("orders") == []
        stage.close()


def test_a_worker_that_lost_its_state_and_whose_log_is_gone_stops_unless_told_to_accept(
    apache_stage: Stage, seed: int
) -> None:
    # given a log of which the first records were removed after they had been merged
    stage = apache_stage
    stage.send_orders(seed, 40)
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
    stage.remove_records("orders", below=3)
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
    # when Redis loses all
    stage.redis.pipeline([("FLUSHALL",)])
    # then
    stopping = Life(stage)
    with stopping, pytest.raises(LostLog, match=r"first 3 gone: set worker\.on_lost_log"):
        stopping.work_until(lambda: False)
    lost = metrics.LOST_RECORDS._value.get()
    with Life(stage.accepting_loss()) as accepting:
        accepting.finish(stage.ends("orders"))
    assert metrics.LOST_RECORDS._value.get() == lost + 3 * len(stage.ends("orders"))
    # and once it is accepted, it is no loss any more
    with Life(stage) as life:
        life.finish(stage.ends("orders"))


def test_the_late_merge_of_a_zombie_is_refused(apache_stage: Stage, seed: int) -> None:
    # given a worker that hangs with a merge on its way, and another one that has taken over
    stage = apache_stage
    sent = stage.send_orders(seed, 30)
    on_its_way = list[tuple[Mapping[str, Slices], Merged, Merged]]()

    def hang(writes: Mapping[str, Slices], expected: Merged, after: Merged) -> None:
        on_its_way.append((writes, copy.deepcopy(expected), after))
        raise Died

    zombie = Life(stage, "zombie")
    zombie.mark.fates.append(Fate("merge", 2, lambda: setattr(zombie.profiles, "merge", hang)))
    zombie.live_and_die()
    with Life(stage, "owner") as owner:
        owner.finish(stage.ends("orders"))
    # when
    ((writes, expected, after),) = on_its_way
    with pytest.raises(StaleState, match="should be merged as this worker left them"):
        stage.profiles().merge(writes, expected, after)
    # then
    assert writes
    assert stage.differences("orders") == []
    assert decided_once(stage, sent)


def test_a_worker_notices_that_a_zombie_has_merged_before_it(apache_stage: Stage, seed: int) -> None:
    # given a merge that is carried out, but of which the worker was never told, as after a timeout
    stage = apache_stage
    sent, before = stage.send_orders(seed, 30), recoveries()
    life = Life(stage)

    def merge_unseen() -> None:
        merge = life.profiles.merge

        def twice(writes: Mapping[str, Slices], expected: Merged, after: Merged) -> None:
            life.profiles.merge = merge  # type: ignore[method-assign]
            merge(writes, expected, after)
            merge(writes, expected, after)

        life.profiles.merge = twice  # type: ignore[method-assign]

    life.mark.fates.append(Fate("merge", 2, merge_unseen))
    # when
    with life:
        life.finish(stage.ends("orders"))
    # then
    assert recoveries() == before + 1
    assert decided_once(stage, sent)
    assert stage.differences("orders") == []


def recreate(stage: Stage, kind: str) -> None:
    topic = stage.topics.of(kind)
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap, "log_level": 0})
    for deleted in admin.delete_topics([topic]).values():
        deleted.result()
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
    stage.broker.create_topics({topic: 4})


@pytest.mark.parametrize(("meanwhile", "count"), [("away", 20), ("running", 20), ("running", 120)])
def test_a_topic_that_was_deleted_and_created_again_gets_new_sources(
    apache_stage: Stage, seed: int, meanwhile: str, count: int
) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 40)
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
        before = set(life.positions.sources.values())
        if meanwhile == "running":
            # when it holds less or more than the former one, whose next record the client would go on with
            recreate(stage, "orders")
            sent |= stage.send_orders(seed, count, first=40)
            life.work_until(lambda: decided_once(stage, sent))
            after = set(life.positions.sources.values())
    if meanwhile == "away":
        # when
        recreate(stage, "orders")
        sent |= stage.send_orders(seed, count, first=40)
        with Life(stage) as life:
            life.finish(stage.ends("orders"))
            after = set(life.positions.sources.values())
    # then
    assert {source for source in before & after if source.startswith("orders")} == set()
    assert len(after) == len(before)
    assert decided_once(stage, sent)
    assert stage.differences("orders") == []
