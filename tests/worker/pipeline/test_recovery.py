"""Recovery: Redis loses writes, a zombie writes late, a topic is created anew; nothing is lost or told twice."""

import copy
from collections import Counter
from collections.abc import Mapping
from functools import partial

import pytest
from confluent_kafka.admin import AdminClient

from contract.errors import LostLog, StaleState
from contract.profiles.slices import Slices
from contract.profiles.store import MergedOffsets
from devservers.redis_server import RedisServer
from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, WorkerKilled, wait_until
from worker.ops import metrics


def read_recoveries() -> float:
    return float(metrics.RECOVERIES.labels("StaleState")._value.get())


def is_decided_once(stage: WorkerEnvironment, sent: set[str]) -> bool:
    return Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)


def test_a_flush_of_redis_in_any_moment_loses_nothing_and_repeats_nothing(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given a Redis that is emptied before a read, between a claim and its publication, before a merge, and at rest
    stage = apache_stage
    flush = partial(stage.redis.pipeline, [("FLUSHALL",)])
    sent, before = stage.send_orders(seed, 40), read_recoveries()
    with InProcessWorker(
        stage, step_events=[StepEvent("read", 2, flush), StepEvent("publish", 5, flush), StepEvent("merge", 8, flush)]
    ) as life:
        life.process_all(stage.end_offsets("orders"))
        flush()
        sent |= stage.send_orders(seed, 10, first=40)
        # when
        life.process_all(stage.end_offsets("orders"))
    # then
    assert read_recoveries() >= before + 4
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []


def test_a_failover_that_lost_the_last_writes_is_made_up_for(
    apache_kafka: KafkaBroker, topic_prefix: str, seed: int
) -> None:
    with RedisServer() as server:
        # given a Redis of which a copy was kept after some orders
        stage = WorkerEnvironment(broker=apache_kafka, redis_url=server.url, prefix=topic_prefix)
        sent = stage.send_orders(seed, 20)
        with InProcessWorker(stage) as life:
            life.process_all(stage.end_offsets("orders"))
            stage.redis.pipeline([("SAVE",)])
            sent |= stage.send_orders(seed, 20, first=20)
            life.process_all(stage.end_offsets("orders"))
            # when it dies, comes back with the copy, and more orders come
            server.kill()
            server.start()
            sent |= stage.send_orders(seed, 10, first=40)
            life.process_all(stage.end_offsets("orders"))
        # then
        assert is_decided_once(stage, sent)
        assert stage.find_differences("orders") == []
        stage.close()


def test_a_worker_that_lost_its_state_and_whose_log_is_gone_stops_unless_told_to_accept(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given a log of which the first records were removed after they had been merged
    stage = apache_stage
    stage.send_orders(seed, 40)
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
    stage.remove_records("orders", below=3)
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
    # when Redis loses all
    stage.redis.pipeline([("FLUSHALL",)])
    # then
    stopping = InProcessWorker(stage)
    with stopping, pytest.raises(LostLog, match=r"first 3 gone: set worker\.on_lost_log"):
        stopping.run_until(lambda: False)
    lost = metrics.LOST_LOG_RECORDS._value.get()
    with InProcessWorker(stage.with_accepted_loss()) as accepting:
        accepting.process_all(stage.end_offsets("orders"))
    assert metrics.LOST_LOG_RECORDS._value.get() == lost + 3 * len(stage.end_offsets("orders"))
    # and once it is accepted, it is no loss any more
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))


def test_the_late_merge_of_a_zombie_is_refused(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given a worker that hangs with a merge on its way, and another one that has taken over
    stage = apache_stage
    sent = stage.send_orders(seed, 30)
    on_its_way = list[tuple[Mapping[str, Slices], MergedOffsets, MergedOffsets]]()

    def hang(writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
        on_its_way.append((writes, copy.deepcopy(expected), after))
        raise WorkerKilled

    zombie = InProcessWorker(stage, "zombie")
    zombie.mark.events.append(StepEvent("merge", 2, lambda: setattr(zombie.profiles, "merge", hang)))
    zombie.run_until_killed()
    with InProcessWorker(stage, "owner") as owner:
        owner.process_all(stage.end_offsets("orders"))
    # when
    ((writes, expected, after),) = on_its_way
    with pytest.raises(StaleState, match="should be merged as this worker left them"):
        stage.open_profiles().merge(writes, expected, after)
    # then
    assert writes
    assert stage.find_differences("orders") == []
    assert is_decided_once(stage, sent)


def test_a_worker_notices_that_a_zombie_has_merged_before_it(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given a merge that is carried out, but of which the worker was never told, as after a timeout
    stage = apache_stage
    sent, before = stage.send_orders(seed, 30), read_recoveries()
    life = InProcessWorker(stage)

    def merge_unseen() -> None:
        merge = life.profiles.merge

        def twice(writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
            life.profiles.merge = merge  # type: ignore[method-assign]
            merge(writes, expected, after)
            merge(writes, expected, after)

        life.profiles.merge = twice  # type: ignore[method-assign]

    life.mark.events.append(StepEvent("merge", 2, merge_unseen))
    # when
    with life:
        life.process_all(stage.end_offsets("orders"))
    # then
    assert read_recoveries() == before + 1
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []


def recreate_topic(stage: WorkerEnvironment, kind: str) -> None:
    topic = stage.topics.topic_name(kind)
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap, "log_level": 0})
    for deleted in admin.delete_topics([topic]).values():
        deleted.result()
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics)
    stage.broker.create_topics({topic: 4})


@pytest.mark.parametrize(("meanwhile", "count"), [("away", 20), ("running", 20), ("running", 120)])
def test_a_topic_that_was_deleted_and_created_again_gets_new_sources(
    apache_stage: WorkerEnvironment, seed: int, meanwhile: str, count: int
) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 40)
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
        before = set(life.positions.sources.values())
        if meanwhile == "running":
            # when it holds less or more than the former one, whose next record the client would go on with
            recreate_topic(stage, "orders")
            sent |= stage.send_orders(seed, count, first=40)
            life.run_until(lambda: is_decided_once(stage, sent))
            after = set(life.positions.sources.values())
    if meanwhile == "away":
        # when
        recreate_topic(stage, "orders")
        sent |= stage.send_orders(seed, count, first=40)
        with InProcessWorker(stage) as life:
            life.process_all(stage.end_offsets("orders"))
            after = set(life.positions.sources.values())
    # then
    assert {source for source in before & after if source.startswith("orders")} == set()
    assert len(after) == len(before)
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []
