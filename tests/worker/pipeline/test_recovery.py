"""Recovery: Redis loses writes, a zombie writes late, a topic is recreated; nothing is lost or answered twice."""

import copy
from collections.abc import Mapping
from functools import partial

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from contract.errors import LostLog, StaleState
from contract.profiles.slices import Slices
from contract.profiles.store import MergedOffsets
from devservers.redis_server import RedisServer
from testkit.metrics import read_metric
from tests.conftest import KafkaBroker
from tests.kafka import recreate_topics
from tests.worker.environment import WorkerEnvironment
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, WorkerKilled, wait_until
from transport.records import Record, TopicPartition
from worker.ops import metrics


def read_recoveries() -> float:
    return read_metric(metrics.RECOVERIES, "StaleState")


def test_a_flush_of_redis_at_any_moment_loses_nothing_and_repeats_nothing(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given a Redis that is emptied before a read, between a claim and its publication, before a merge, and when idle
    stage = apache_stage
    flush = partial(stage.redis.pipeline, [("FLUSHALL",)])
    sent, before = stage.send_orders(seed, 40), read_recoveries()
    with InProcessWorker(
        stage, step_events=[StepEvent("read", 2, flush), StepEvent("publish", 5, flush), StepEvent("merge", 8, flush)]
    ) as worker:
        worker.process_all(stage.end_offsets("orders"))
        flush()
        sent |= stage.send_orders(seed, 10, first=40)
        # when
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert read_recoveries() >= before + 4
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders") == []


def test_writes_lost_in_a_failover_are_folded_again(apache_kafka: KafkaBroker, topic_prefix: str, seed: int) -> None:
    with RedisServer() as server:
        # given a Redis that was saved after some orders
        stage = WorkerEnvironment(broker=apache_kafka, redis_url=server.url, prefix=topic_prefix)
        sent = stage.send_orders(seed, 20)
        with InProcessWorker(stage) as worker:
            worker.process_all(stage.end_offsets("orders"))
            stage.redis.pipeline([("SAVE",)])
            sent |= stage.send_orders(seed, 20, first=20)
            worker.process_all(stage.end_offsets("orders"))
            # when it dies, comes back with the saved state, and more orders come
            server.kill()
            server.start()
            sent |= stage.send_orders(seed, 10, first=40)
            worker.process_all(stage.end_offsets("orders"))
        # then
        assert stage.is_decided_once(sent)
        assert stage.find_differences("orders") == []
        stage.close()


def test_a_worker_that_lost_its_state_and_its_log_stops_unless_loss_is_accepted(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given a log whose first records were removed after they had been merged
    stage = apache_stage
    stage.send_orders(seed, 40)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    stage.remove_records("orders", below=3)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # when Redis loses all
    stage.redis.pipeline([("FLUSHALL",)])
    # then
    stopping = InProcessWorker(stage)
    with stopping, pytest.raises(LostLog, match=r"first 3 deleted: set worker\.on_lost_log"):
        stopping.run_until(lambda: False)
    lost = read_metric(metrics.LOST_LOG_RECORDS)
    with InProcessWorker(stage.with_accepted_loss()) as accepting:
        accepting.process_all(stage.end_offsets("orders"))
    assert read_metric(metrics.LOST_LOG_RECORDS) == lost + 3 * len(stage.end_offsets("orders"))
    # and once it is accepted, it is no longer a loss
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))


def test_the_late_merge_of_a_zombie_is_rejected(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given a worker that hangs with a merge on its way, and another one that has taken over
    stage = apache_stage
    sent = stage.send_orders(seed, 30)
    late_merges = list[tuple[Mapping[str, Slices], MergedOffsets, MergedOffsets]]()

    def hang(writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
        late_merges.append((writes, copy.deepcopy(expected), after))
        raise WorkerKilled

    zombie = InProcessWorker(stage, "zombie")
    zombie.step_marker.add("merge", lambda: setattr(zombie.profiles, "merge", hang), occurrence=2)
    zombie.run_until_killed()
    with InProcessWorker(stage, "owner") as owner:
        owner.process_all(stage.end_offsets("orders"))
    # when
    ((writes, expected, after),) = late_merges
    with pytest.raises(StaleState, match="should be merged as this worker left them"):
        stage.open_profiles().merge(writes, expected, after)
    # then
    assert writes
    assert stage.find_differences("orders") == []
    assert stage.is_decided_once(sent)


def test_a_worker_notices_a_merge_that_it_did_not_expect(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given a merge that is executed, but whose reply is lost, as after a timeout
    stage = apache_stage
    sent, before = stage.send_orders(seed, 30), read_recoveries()
    worker = InProcessWorker(stage)

    def repeat_next_merge() -> None:
        merge = worker.profiles.merge

        def merge_twice(writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
            worker.profiles.merge = merge  # type: ignore[method-assign]
            merge(writes, expected, after)
            merge(writes, expected, after)

        worker.profiles.merge = merge_twice  # type: ignore[method-assign]

    worker.step_marker.add("merge", repeat_next_merge, occurrence=2)
    # when
    with worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert read_recoveries() == before + 1
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders") == []


def test_records_of_a_partition_that_left_while_another_started_are_left_to_its_next_owner(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given records of a partition that is revoked while the worker waits for the servers to start another one
    stage = apache_stage
    sent = stage.send_orders(seed, 20)
    ends = stage.end_offsets("orders")
    starting, leaving, *_ = sorted(ends)
    with InProcessWorker(stage) as worker:
        worker.process_all(ends)
        sent |= stage.send_orders(seed, 40, first=20)
        pipeline, consumer = worker.pipeline, worker.consumer
        poll, start_partitions = consumer.poll, pipeline._start_partitions

        def poll_leaving(records_max: int, wait_ms: int) -> list[Record]:
            records = poll(records_max, wait_ms)
            if any(record.topic_partition == leaving for record in records):
                pipeline._unstarted.add(starting)
            return records

        def start_after_revocation() -> set[TopicPartition]:
            consumer._on_revoked([leaving])
            return start_partitions()

        consumer.poll = poll_leaving  # type: ignore[method-assign]
        pipeline._start_partitions = start_after_revocation  # type: ignore[method-assign]
        # when
        worker.run_until(lambda: leaving not in consumer.assignment)
        # then
        assert leaving not in worker.offsets.committed
    with InProcessWorker(stage) as owner:
        owner.process_all(stage.end_offsets("orders"))
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders") == []


def test_positions_are_known_once_every_partition_is_started(apache_stage: WorkerEnvironment, seed: int) -> None:
    stage = apache_stage
    stage.send_orders(seed, 20)
    ends = stage.end_offsets("orders")
    with InProcessWorker(stage) as worker:
        worker.process_all(ends)
        assert worker.pipeline.knows_positions()
        worker.offsets.drop_partitions([min(ends)])  # as a recovery does before it asks the servers
        assert not worker.pipeline.knows_positions()


def recreate_topic(stage: WorkerEnvironment, kind: str) -> None:
    recreate_topics(stage.broker, {stage.topics.topic_name(kind): 4})


@pytest.mark.parametrize(("worker_state", "count"), [("stopped", 20), ("running", 20), ("running", 120)])
def test_a_topic_that_was_deleted_and_recreated_gets_new_sources(
    apache_stage: WorkerEnvironment, seed: int, worker_state: str, count: int
) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 40)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
        before = set(worker.offsets.sources.values())
        if worker_state == "running":
            # when it has fewer or more records than the former topic, from whose next offset the client would read on
            recreate_topic(stage, "orders")
            sent |= stage.send_orders(seed, count, first=40)
            worker.run_until(lambda: stage.is_decided_once(sent))
            after = set(worker.offsets.sources.values())
    if worker_state == "stopped":
        # when
        recreate_topic(stage, "orders")
        sent |= stage.send_orders(seed, count, first=40)
        with InProcessWorker(stage) as worker:
            worker.process_all(stage.end_offsets("orders"))
            after = set(worker.offsets.sources.values())
    # then
    assert {source for source in before & after if source.startswith("orders")} == set()
    assert len(after) == len(before)
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders") == []


def test_offsets_that_a_late_commit_left_of_a_deleted_topic_are_not_those_of_the_new_one(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given offsets of a topic, and a new topic of its name with more records
    stage = apache_stage
    sent = stage.send_orders(seed, 40)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
        partitions = {p: source for p, source in worker.offsets.sources.items() if p.topic == stage.topics.orders}
    recreate_topic(stage, "orders")
    sent |= stage.send_orders(seed, 200, first=40)
    # when a commit that was in flight comes after the deletion
    group = f"{stage.settings.kafka.group_prefix}-orders"
    late = [KafkaPartition(*partition, 5, metadata=source) for partition, source in partitions.items()]
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap, "log_level": 0})
    wait_until(lambda: is_altered(admin, ConsumerGroupTopicPartitions(group, late)))
    # then every record of the new topic is answered
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders") == []


def is_altered(admin: AdminClient, offsets: ConsumerGroupTopicPartitions) -> bool:
    """Whether a group has these offsets now; it has to be without members for that."""
    (reply,) = admin.alter_consumer_group_offsets([offsets]).values()
    try:
        return all(partition.error is None for partition in reply.result().topic_partitions)
    except KafkaException:
        return False
