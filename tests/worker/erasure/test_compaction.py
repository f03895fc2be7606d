"""The erasures topic under compaction, with cleaned segments: what was erased stays erased over a rebuild."""

import time
from collections.abc import Sequence

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from contract.events.model import Erasure
from contract.messages import to_json
from devservers.apache_kafka import ApacheKafka, make_admin_client
from devservers.librdkafka import SILENT
from tests.worker.environment import WorkerEnvironment
from tests.worker.erasure.test_executor import (
    count_confirmations,
    find_differences,
    order_ms,
    process_all,
    read_profiles,
    send_orders,
)
from tests.worker.maintenance.runs import run_rebuild
from tests.worker.worker_lifecycle import TIMEOUT_S, InProcessWorker
from transport.records import Record
from worker.erasure.surviving import is_copy

pytestmark = pytest.mark.apache_kafka
ALL_MS = order_ms(99)  # after all orders
FEW_MS = order_ms(2)


def erasure(user: str, ts_ms: int) -> bytes:
    return to_json(Erasure(event_id=f"g-{user}-{ts_ms}", ts_ms=ts_ms, user_id=user))


def configure(environment: WorkerEnvironment, resource: ResourceType, name: str, **entries: str) -> None:
    names = {key: key.replace("_", ".") for key in entries}
    changes = [
        ConfigEntry(names[key], value, incremental_operation=AlterConfigOpType.SET) for key, value in entries.items()
    ]
    admin = make_admin_client(environment.broker.bootstrap)
    for future in admin.incremental_alter_configs(
        [ConfigResource(resource, name, incremental_configs=changes)]
    ).values():
        future.result()


def clean_segments(environment: WorkerEnvironment, gone: Sequence[Record]) -> None:
    """Compact the erasures topic until these records are gone."""
    configure(environment, ResourceType.BROKER, "1", log_cleaner_backoff_ms="100")
    configure(
        environment,
        ResourceType.TOPIC,
        environment.topics.erasures,
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.001",
    )
    wanted, deadline = {(record.topic_partition, record.offset) for record in gone}, time.monotonic() + TIMEOUT_S
    number = 0
    while wanted & {(r.topic_partition, r.offset) for r in environment.read_records("erasures")}:
        assert time.monotonic() < deadline, "Compaction should have removed the record by now."
        # the segment with the last record is never cleaned: each partition needs a newer one
        environment.send("erasures", [(f"filler{number}-{n}", erasure(f"filler{n}", 1)) for n in range(40)])
        number += 1


@pytest.mark.parametrize(
    "narrower",
    [
        [("u1", erasure("u1", FEW_MS))],
        [("u1", None)],
        [("u1", b"not JSON")],
        [("u1", erasure("u3", FEW_MS))],  # under the key of another user
        [("u1", erasure("u1", FEW_MS)), ("u1", None), ("u1", erasure("u1", FEW_MS + 1))],
    ],
    ids=["earlier", "tombstone", "unreadable", "wrong-key", "several"],
)
def test_no_record_makes_compaction_remove_a_wider_erasure(
    apache_stage: WorkerEnvironment, narrower: list[tuple[str, bytes | None]]
) -> None:
    # given an erasure, and records of the same key that erase less
    environment = apache_stage
    send_orders(environment, range(40))
    environment.send_erasure("u1", ALL_MS, "g1")
    (widest,) = environment.read_records("erasures")
    with InProcessWorker(environment, erases=True) as worker:
        process_all(worker, environment)
        environment.send("erasures", narrower)  # type: ignore[arg-type]
        process_all(worker, environment)
        process_all(worker, environment)
        records = environment.read_records("erasures")
        copies = [record for record in records if is_copy(record.headers)]
        assert (widest.topic_partition, b"u1") in {(record.topic_partition, record.key) for record in copies}
        # then there is no end of copies, and no confirmation without a request
        assert len(copies) <= len(narrower) + 1  # the copy may displace the erasure that used its key
        process_all(worker, environment)
        assert len(environment.read_records("erasures")) == len(records)
        assert count_confirmations(environment)["g1"] == 1
        refused = sum(value is None or value == b"not JSON" for _, value in narrower)
        assert len(environment.read_records("dead_letters")) == refused
    # when compaction has removed the erasure, and everything is rebuilt by processes that never read it
    clean_segments(environment, [widest])
    environment.redis.pipeline([("FLUSHALL",)])
    run_rebuild(environment)
    # then
    assert "user:u1" not in read_profiles(environment)
    with InProcessWorker(environment, erases=True) as worker:
        process_all(worker, environment)
    assert find_differences(environment) == []
    assert "user:u1" not in read_profiles(environment)


def test_a_crash_before_the_copy_is_committed_repeats_it(apache_stage: WorkerEnvironment) -> None:
    # given a worker that dies before it can confirm
    environment = apache_stage
    environment.send_erasure("u1", ALL_MS, "g1")
    environment.send("erasures", [("u1", None)])  # type: ignore[list-item]
    worker = InProcessWorker(environment, erases=True, runs_periodic=False)
    send_orders(environment, range(10))
    worker.process_all(environment.end_offsets("orders"))
    worker.abandon()
    assert len(environment.read_records("erasures")) == 2
    # when
    for _ in range(2):
        with InProcessWorker(environment, erases=True) as worker:
            process_all(worker, environment)
    # then
    assert [is_copy(record.headers) for record in environment.read_records("erasures")] == [False, False, True]
    assert count_confirmations(environment) == {"g1": 1}


def test_a_compacted_topic_refuses_a_record_without_a_key(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given
    topic = f"{topic_prefix}compacted"
    apache_kafka.create_topics({topic: 1}, {"cleanup.policy": "compact"})
    producer, errors = Producer({"bootstrap.servers": apache_kafka.bootstrap, **SILENT}), list[KafkaError | None]()
    # when
    producer.produce(topic, erasure("u1", ALL_MS), on_delivery=lambda error, _: errors.append(error))
    producer.flush(TIMEOUT_S)
    # then
    (error,) = errors
    assert error is not None
    assert error.code() == KafkaError.INVALID_RECORD
