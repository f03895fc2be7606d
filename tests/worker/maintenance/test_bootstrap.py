"""Bootstrapping on servers: history and topics give the state of one log, and workers go on with it."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.events.model import Order
from contract.messages import to_json
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.record import RECORD
from contract.settings.worker import FeedbackSettings
from contract.units import DAY_MS
from testkit.metrics import read_metric
from tests.worker.environment import PARTITIONS, WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.maintenance.runs import run_rebuild, run_verification, serving_generation
from tests.worker.people.test_people_after_crashes import read_samples
from tests.worker.worker_lifecycle import InProcessWorker
from training.history.decoding import DocumentDecoder
from training.history.inputs import parse_inputs
from training.history.normalisation import write_history
from transport.log_reader import LogReader
from transport.record_reader import RecordReader
from worker.kafka.admin import KafkaAdmin
from worker.maintenance.bootstrap import Bootstrap
from worker.maintenance.comparison import Unchecked
from worker.maintenance.rebuild import RebuildRefused, RebuildResult
from worker.ops import metrics
from worker.ops.retry import Retry
from worker.people.redis_store import RedisPeopleStore
from worker.people.samples import InMemoryPeopleStore
from worker.state.history_registry import HistoryRegistry

USERS = 6


def make_orders(first: int, count: int) -> list[Order]:
    now_ms = time.time_ns() // 1_000_000 - 1_000_000
    return [
        make_order(f"o{n}", f"i{n % 5}", user=f"u{n % USERS}", device=f"d{n % 4}", amount=n, ts_ms=now_ms + 1000 * n)
        for n in range(first, first + count)
    ]


def write(tmp_path: Path, orders: list[Order]) -> Path:
    lines = tmp_path / "orders.jsonl"
    lines.write_bytes(b"".join(to_json({"kind": "orders", "event": order}) + b"\n" for order in orders))
    write_history(
        tmp_path / "history", parse_inputs([str(lines)]), decoder=DocumentDecoder(now_ms=time.time_ns() // 1_000_000)
    )
    return tmp_path / "history"


def send(stage: WorkerEnvironment, orders: list[Order]) -> None:
    stage.send("orders", [(order.user_id, to_json(order)) for order in orders])


def run_bootstrap(stage: WorkerEnvironment, history: Path, **more: Any) -> tuple[Bootstrap, RebuildResult]:
    reader = LogReader(kafka=stage.settings.kafka)
    try:
        bootstrap = Bootstrap(
            history=history,
            feedback=FeedbackSettings(),
            reader=reader,
            admin=KafkaAdmin(kafka=stage.settings.kafka),
            client=stage.redis,
            prefix=stage.prefix,
            record_reader=RecordReader(stage.settings.event_topics()),
            retry=Retry(threading.Event(), wait_max_s=0.1),
            **more,
        )
        return bootstrap, bootstrap.run()
    finally:
        reader.close()


def count_orders(stage: WorkerEnvironment) -> dict[str, int]:
    """The orders of each user in the serving state."""
    users = [f"user:u{n}" for n in range(USERS)]
    slices = stage.open_profiles().read(users)
    counts = [sum(int(np.frombuffer(record, RECORD)["count"][0]) for record in own.values()) for own in slices]
    return dict(zip(users, counts, strict=True))


def test_orders_of_file_and_topic_count_once_and_workers_go_on(stage: WorkerEnvironment, tmp_path: Path) -> None:
    # given 60 orders in a file, of which the topic has the last 20, and 10 more
    orders = make_orders(0, 70)
    send(stage, orders[40:])
    # when
    bootstrap, _ = run_bootstrap(stage, write(tmp_path, orders[:60]))
    # then the history has what the topic lacks
    assert bootstrap.result.skipped == {"orders": 20}
    assert bootstrap.result.folded == 40
    assert sum(count_orders(stage).values()) == 40
    # and a first worker answers and folds the topic from its beginning
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    assert stage.is_decided_once({order.event_id for order in orders[40:]})
    assert sum(count_orders(stage).values()) == 70
    assert stage.find_differences("orders") == []


def test_a_state_that_serves_is_replaced_without_a_gap(apache_stage: WorkerEnvironment, tmp_path: Path) -> None:
    stage = apache_stage  # the mock cluster forgets what a transaction commits
    # given a worker that has answered what is on the topic
    orders = make_orders(0, 50)
    send(stage, orders[30:])
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # when
    bootstrap, result = run_bootstrap(stage, write(tmp_path, orders[:40]))
    # then both are in the new generation before a worker reads it
    assert serving_generation(stage) == result.name
    assert sum(count_orders(stage).values()) == 50
    send(stage, make_orders(50, 5))
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    assert sum(count_orders(stage).values()) == 55
    assert bootstrap.result.skipped == {"orders": 10}


def test_people_of_the_history_are_counted_with_those_of_the_topic_each_once(
    stage: WorkerEnvironment, tmp_path: Path
) -> None:
    # given a history with an order of long before the others and with one of an erased user, and a topic that overlaps
    orders = make_orders(0, 40)
    old = make_order("old", "i0", user="stranger", ts_ms=orders[29].ts_ms - 60 * DAY_MS)
    erased = make_order("erased", "i0", user="erased", ts_ms=orders[0].ts_ms)
    stage.send_erasure("erased", erased.ts_ms)
    send(stage, orders[20:])
    # when
    history = write(tmp_path, [old, erased, *orders[:30]])
    counted = [run_bootstrap(stage, history)[0].result.counted for _ in range(2)]
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert counted == [31, 31]
    (salt,) = stage.redis.pipeline([("GET", f"{stage.prefix}people:salt")])
    expected = InMemoryPeopleStore(int(salt))
    expected.add(to_updates([Arrival("orders/0", n, order) for n, order in enumerate(orders)]))
    assert read_samples(RedisPeopleStore(client=stage.redis, prefix=stage.prefix)) == read_samples(expected)


def test_verify_leaves_the_history_out_and_notices_its_loss(stage: WorkerEnvironment, tmp_path: Path) -> None:
    run_bootstrap(stage, write(tmp_path, make_orders(0, 20)))
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    result = run_verification(stage)
    assert result.mismatches == 0
    assert result.unchecked_by_reason[Unchecked.HISTORIC] > 0
    profiles = stage.open_profiles()
    source = next(iter(HistoryRegistry(profiles).read()))
    stage.redis.pipeline([("HDEL", profiles.keys.offsets(0), source)])
    assert run_verification(stage).mismatches == 1


def test_a_rebuild_does_not_drop_a_history_unasked(stage: WorkerEnvironment, tmp_path: Path) -> None:
    run_bootstrap(stage, write(tmp_path, make_orders(0, 20)))
    with pytest.raises(RebuildRefused, match="has a history"):
        run_rebuild(stage)
    assert sum(count_orders(stage).values()) == 20
    run_rebuild(stage, accepts_loss=True)
    assert sum(count_orders(stage).values()) == 0


def test_another_bootstrap_replaces_the_history(stage: WorkerEnvironment, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    run_bootstrap(stage, write(tmp_path, make_orders(0, 20)))
    run_bootstrap(stage, write(tmp_path / "second", make_orders(0, 30)))
    assert sum(count_orders(stage).values()) == 30


def test_an_erased_person_stays_erased_over_a_bootstrap(stage: WorkerEnvironment, tmp_path: Path) -> None:
    orders = make_orders(0, 24)
    stage.send_erasure("u1", orders[-1].ts_ms)
    run_bootstrap(stage, write(tmp_path, orders))
    assert count_orders(stage)["user:u1"] == 0
    assert count_orders(stage)["user:u2"] == 4


def test_a_history_that_ends_before_a_shortened_log_is_refused(apache_stage: WorkerEnvironment, tmp_path: Path) -> None:
    stage, orders = apache_stage, make_orders(0, 80)
    send(stage, orders[40:])
    stage.remove_records("orders", below=2)
    with pytest.raises(RebuildRefused, match="--accept-gap"):
        run_bootstrap(stage, write(tmp_path, orders[:30]))
    run_bootstrap(stage, tmp_path / "history", accepts_gap=True)
    assert sum(count_orders(stage).values()) == 30


def test_the_history_has_as_many_sources_as_the_topic_partitions(stage: WorkerEnvironment, tmp_path: Path) -> None:
    run_bootstrap(stage, write(tmp_path, make_orders(0, 20)))
    histories = HistoryRegistry(stage.open_profiles()).read()
    orders = [source for source in histories if source.startswith("orders~history.")]
    assert len(orders) == PARTITIONS
    assert sum(histories[source] for source in orders) == 20


def test_a_worker_warns_where_redis_holds_no_profiles(
    stage: WorkerEnvironment, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    stage.send_orders(seed, 5)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    assert any("Redis holds no profiles" in record.getMessage() for record in caplog.records)


def test_a_worker_reports_buckets_that_lost_their_history(
    stage: WorkerEnvironment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given a state with a history, of which one bucket is lost
    run_bootstrap(stage, write(tmp_path, make_orders(0, 20)))
    profiles = stage.open_profiles()
    stage.redis.pipeline([("DEL", profiles.keys.offsets(5))])
    send(stage, make_orders(20, 5))
    # when
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert any("Found 1 buckets of 64 without" in record.getMessage() for record in caplog.records)
    assert not any("Redis holds no profiles" in record.getMessage() for record in caplog.records)
    assert read_metric(metrics.HISTORY_BUCKETS_LOST) == 1
