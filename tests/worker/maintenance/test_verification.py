"""Profiles compared with their log over real servers: corruption is found, traffic during the scan is no mismatch."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from contract.errors import BadConfig
from contract.hashing import bucket_of
from contract.messages import to_json
from contract.profiles.record import FAMILIES, RECORD, profile_key
from contract.settings.reading import Settings
from contract.settings.servers import KafkaSettings, RedisSettings
from contract.units import HOUR_MS
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.maintenance.runs import NOW_MS, open_verification, run_verification
from tests.worker.worker_lifecycle import InProcessWorker
from transport.log_reader import LogReader
from transport.records import OffsetRange, Record, TopicPartition
from worker.maintenance.comparison import Unchecked, VerificationResult
from worker.maintenance.verification import EntitySample, InconsistentSnapshot, run_repeatedly, verify
from worker.state.profile_store import RETENTION_MIN_MS

KEY = profile_key("device:d1")
WRONG_KEY = "profile:{64}:device:d1"  # there is no bucket 64


def send_orders(stage: WorkerEnvironment, numbers: range) -> None:
    """Send orders of seven users on three devices."""
    stage.send(
        "orders", [(f"u{n % 7}", to_json(make_order(f"o{n}", user=f"u{n % 7}", device=f"d{n % 3}"))) for n in numbers]
    )


def read_slices(stage: WorkerEnvironment, key: str = KEY) -> dict[str, bytes]:
    """The slices under a key, by source."""
    (fields,) = stage.redis.pipeline([("HGETALL", stage.prefix + key)])
    return {fields[n].decode(): fields[n + 1] for n in range(0, len(fields), 2)}


def write_slice(stage: WorkerEnvironment, source: str, record: bytes, key: str = KEY) -> None:
    stage.redis.pipeline([("HSET", stage.prefix + key, source, record)])


def run_worker(stage: WorkerEnvironment, numbers: range) -> WorkerEnvironment:
    """The environment after a worker has folded these orders and an unreadable record."""
    send_orders(stage, numbers)
    stage.send("orders", [("u1", b"not JSON")])
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    return stage


@pytest.fixture
def worked(apache_stage: WorkerEnvironment) -> WorkerEnvironment:
    return run_worker(apache_stage, range(40))


def flip_bit(stage: WorkerEnvironment) -> None:
    source, record = min(read_slices(stage).items())
    write_slice(stage, source, record[:-5] + bytes([record[-5] ^ 16]) + record[-4:])


def delete_slice(stage: WorkerEnvironment) -> None:
    stage.redis.pipeline([("HDEL", stage.prefix + KEY, min(read_slices(stage)))])


def swap_slice(stage: WorkerEnvironment) -> None:
    write_slice(
        stage,
        min(read_slices(stage)),
        read_slices(stage, profile_key("device:d2"))[min(read_slices(stage, profile_key("device:d2")))],
    )


def truncate_slice(stage: WorkerEnvironment) -> None:
    write_slice(stage, min(read_slices(stage)), min(read_slices(stage).items())[1][:-1])


def write_slice_of_unknown_partition(stage: WorkerEnvironment) -> None:
    source, record = min(read_slices(stage).items())
    write_slice(stage, f"{source.rpartition('/')[0]}/99", record)


def write_to_wrong_bucket(stage: WorkerEnvironment) -> None:
    write_slice(stage, *min(read_slices(stage).items()), key=WRONG_KEY)


def shift_offset(stage: WorkerEnvironment, by: int) -> None:
    source, record = min(read_slices(stage).items())
    fields = np.frombuffer(bytearray(record), RECORD)
    fields["offset"] += by
    write_slice(stage, source, fields.tobytes())


def shift_offset_within_the_log(stage: WorkerEnvironment) -> None:
    shift_offset(stage, -1)


def shift_offset_beyond_the_log(stage: WorkerEnvironment) -> None:
    shift_offset(stage, 1_000)


def write_slice_of_unknown_entity(stage: WorkerEnvironment) -> None:
    write_slice(stage, *min(read_slices(stage).items()), key=profile_key("device:d9"))


CORRUPTIONS: Final = {
    flip_bit: "order id",
    shift_offset_within_the_log: "offset should be",
    shift_offset_beyond_the_log: "offset should be below the log's end",
    write_slice_of_unknown_entity: "should not be there",
    delete_slice: "missing",
    swap_slice: "should be",
    truncate_slice: "has 471",
    write_slice_of_unknown_partition: "/99",
    write_to_wrong_bucket: WRONG_KEY,
}


def test_every_kind_of_corruption_is_found(stage: WorkerEnvironment) -> None:
    # given
    run_worker(stage, range(40))
    (whole,) = stage.redis.pipeline([("DUMP", stage.prefix + KEY)])
    for corrupt, problem in CORRUPTIONS.items():
        before = run_verification(stage)
        assert (before.mismatches, before.unchecked) == (0, 0)
        assert before.entities == 7 + 3 + 1  # users, devices, the item
        # when
        corrupt(stage)
        # then
        after = run_verification(stage)
        assert (after.mismatches, after.unchecked) == (1, 0), corrupt.__name__
        assert problem in after.differences[0]
        stage.redis.pipeline([("DEL", stage.prefix + key) for key in (profile_key("device:d9"), WRONG_KEY)])
        stage.redis.pipeline([("RESTORE", stage.prefix + KEY, 0, whole, "REPLACE")])


def test_a_lost_last_event_of_a_slice_is_found(apache_stage: WorkerEnvironment) -> None:
    # given the slices of a device before and after one more order
    stage = apache_stage
    send_orders(stage, range(40))
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
        before = read_slices(stage)
        send_orders(stage, range(61, 62))
        worker.process_all(stage.end_offsets("orders"))
    (source,) = [source for source, record in read_slices(stage).items() if record != before.get(source)]
    # when Redis holds the former slice, which is consistent in itself
    write_slice(stage, source, before[source])
    # then
    assert "offset should be" in run_verification(stage).differences[0]


def verify_during_traffic(stage: WorkerEnvironment, worker: InProcessWorker, runs: int) -> list[VerificationResult]:
    """Verify again and again while a worker folds five orders per step."""
    done, sent = threading.Event(), 100
    with ThreadPoolExecutor(1) as pool:
        results = pool.submit(lambda: [run_verification(stage) for _ in range(runs)])
        results.add_done_callback(lambda _: done.set())
        while not done.is_set():
            send_orders(stage, range(sent, sent + 5))
            sent += 5
            worker.step()
        return results.result()


def test_traffic_during_the_scan_is_no_mismatch(stage: WorkerEnvironment) -> None:
    # given a running worker
    send_orders(stage, range(100))
    with InProcessWorker(stage) as worker:
        worker.run_until(lambda: bool(stage.open_profiles().read(["user:u0"])[0]))
        # when
        results = verify_during_traffic(stage, worker, runs=5)
    # then
    assert [(result.mismatches, result.unchecked) for result in results] == [(0, 0)] * 5
    assert results[-1].slices > 0


def test_corruption_is_found_during_traffic(stage: WorkerEnvironment) -> None:
    # given a device whose slice no later order touches
    idle = make_order("idle", user="u0", device="idle")
    stage.send("orders", [("u0", to_json(idle))])
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
        key = profile_key("device:idle")
        ((source, record),) = read_slices(stage, key).items()
        # when
        write_slice(stage, source, record[:-5] + bytes([record[-5] ^ 16]) + record[-4:], key)
        results = verify_during_traffic(stage, worker, runs=3)
    # then
    assert [(result.mismatches, result.unchecked) for result in results] == [(1, 0)] * 3
    assert results[0].differences[0].startswith("device:idle, orders")


class DelayedLogReader(LogReader):
    """A log reader that calls `event` after it has fetched the ends of the event topics for the first time."""

    def __init__(self, stage: WorkerEnvironment, event: Callable[[], object]) -> None:
        super().__init__(kafka=stage.settings.kafka)
        self._events = [event]

    def fetch_offset_ranges(self, topics: Iterable[str]) -> dict[TopicPartition, OffsetRange]:
        offset_ranges = super().fetch_offset_ranges(topics)
        if len(list(topics)) > 1 and self._events:  # the topic of erasures is fetched alone
            self._events.pop()()
        return offset_ranges


def test_orders_folded_between_log_ends_and_snapshot_are_no_mismatch(stage: WorkerEnvironment) -> None:
    # given
    send_orders(stage, range(20))
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))

        def fold_more() -> None:
            send_orders(stage, range(20, 40))
            worker.process_all(stage.end_offsets("orders"))

        # when
        result = run_verification(stage, reader=DelayedLogReader(stage, fold_more))
    # then
    assert (result.mismatches, result.unchecked) == (0, 0)
    assert result.entities == 7 + 3 + 1


def test_a_user_whose_erasure_is_pending_cannot_be_checked(worked: WorkerEnvironment) -> None:
    # given an erasure that no worker has read
    worked.send_erasure("u1", time.time_ns() // 1_000_000)
    # when
    result = run_verification(worked)
    # then
    assert (result.mismatches, result.unchecked_by_reason) == (0, {Unchecked.ERASING: 2})  # slice and history
    # and the slices of other entities are still checked
    flip_bit(worked)
    assert run_verification(worked).mismatches == 1


@pytest.mark.parametrize("is_executed", [False, True], ids=["pending", "executed"])
def test_an_erasure_during_the_scan_is_no_mismatch(worked: WorkerEnvironment, is_executed: bool) -> None:
    # given an erasure that is requested, and perhaps executed, after the scan began
    def erase() -> None:
        worked.send_erasure("u1", time.time_ns() // 1_000_000)
        if is_executed:
            with InProcessWorker(worked, "eraser", erases=True) as worker:
                worker.run_until(lambda: not read_slices(worked, profile_key("user:u1")))

    # when
    result = run_verification(worked, reader=DelayedLogReader(worked, erase))
    # then only the person cannot be checked
    assert result.mismatches == 0
    assert result.unchecked_by_reason == ({} if is_executed else {Unchecked.ERASING: 2})
    # and the slices of other entities are checked
    assert result.slices > 1


def test_the_parts_of_a_share_cover_all_entities(worked: WorkerEnvironment) -> None:
    # when
    results = [run_verification(worked, EntitySample(0.25, part)) for part in range(4)]
    # then
    whole = run_verification(worked)
    assert sum(part.entities for part in results) == whole.entities
    assert sum(part.slices for part in results) == whole.slices


def test_slices_of_other_kinds_are_ignored(worked: WorkerEnvironment) -> None:
    # given
    settings = worked.settings
    delete_slice(worked)
    # then
    assert verify(settings, EntitySample(), ("clicks",)) == 0
    assert verify(settings, EntitySample(), ("orders",)) == 1


def test_the_result_is_printed(worked: WorkerEnvironment, capsys: pytest.CaptureFixture[str]) -> None:
    # given
    delete_slice(worked)
    # when
    verify(worked.settings, EntitySample(), FAMILIES)
    # then
    out = capsys.readouterr().out
    assert "not compared: the samples of people (keys `people` and `buyers`)" in out
    assert "mismatches             1" in out
    assert "device:d1, orders" in out


@pytest.mark.parametrize("sample", [EntitySample(0.1, 10), EntitySample(1.0, 1), EntitySample(0.1, -1)])
def test_a_part_outside_the_whole_is_refused(sample: EntitySample) -> None:
    with pytest.raises(BadConfig, match="counted from 0"):
        verify(None, sample, FAMILIES)  # type: ignore[arg-type]


class InterruptedLogReader(LogReader):
    """A log reader that calls `event` before it reads records for the first time."""

    def __init__(self, stage: WorkerEnvironment, event: Callable[[], object]) -> None:
        super().__init__(kafka=stage.settings.kafka)
        self._events = [event]

    def read(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int] | None = None
    ) -> Iterator[list[Record]]:
        if ends and self._events:  # the topic of erasures is empty
            self._events.pop()()
        return super().read(ends, starts)


def test_a_merged_offset_beyond_the_log_is_found(worked: WorkerEnvironment) -> None:
    # given a bucket of which Redis claims more than the log holds, while orders wait to be folded
    profiles, bucket = worked.open_profiles(), bucket_of("device:d1")
    source = min(read_slices(worked))
    worked.redis.pipeline([("HINCRBY", profiles.keys.offsets(bucket), source, 1_000)])
    send_orders(worked, range(40, 60))
    # when
    result = run_verification(worked)
    # then what the bucket's slices should hold is unknown, and the bucket is reported once
    assert result.mismatches == 1
    assert result.differences[0].startswith(f"bucket {bucket}, {source}: its merged offset should be at most")
    assert set(result.unchecked_by_reason) == {Unchecked.BEYOND_LOG}


def test_a_state_that_went_back_during_the_scan_is_verified_again(
    worked: WorkerEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a source that a worker sets back during the first scan, as for an erasure
    monkeypatch.setattr("worker.maintenance.verification.ATTEMPT_INTERVAL_S", 0.0)
    key, source = worked.open_profiles().keys.offsets(bucket_of("device:d1")), min(read_slices(worked))

    def set_back() -> None:
        worked.redis.pipeline([("HINCRBY", key, source, -1)])

    reader = InterruptedLogReader(worked, set_back)
    # when
    result = run_repeatedly(open_verification(worked, reader))
    reader.close()
    # then
    assert (result.mismatches, result.unchecked) == (0, 0)
    assert result.slices > 0


def test_a_redis_flushed_during_the_scan_gives_no_result(worked: WorkerEnvironment) -> None:
    with pytest.raises(InconsistentSnapshot, match="gone back"):
        run_verification(worked, reader=InterruptedLogReader(worked, lambda: worked.redis.pipeline([("FLUSHALL",)])))


def test_a_missing_profile_past_its_retention_may_have_expired(worked: WorkerEnvironment) -> None:
    # given
    delete_slice(worked)
    # when
    result = run_verification(worked, now_ms=NOW_MS + RETENTION_MIN_MS + HOUR_MS)
    # then
    assert (result.mismatches, result.unchecked) == (0, 1)


def test_a_truncated_log_still_verifies_what_it_holds(apache_stage: WorkerEnvironment) -> None:
    # given a log whose first half was deleted by retention after a worker had folded it
    stage = run_worker(apache_stage, range(40))
    ends = stage.end_offsets("orders")
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap})
    for deleted in admin.delete_records(
        [KafkaPartition(*partition, end // 2) for partition, end in ends.items()]
    ).values():
        deleted.result()
    # when
    result = run_verification(stage)
    # then
    assert result.mismatches == 0
    assert result.unchecked > 0
    assert len(result.remarks) == len(ends)
    # and what the rest of the log holds of an entity should still be there
    user = f"user:u{39 % 7}"
    stage.redis.pipeline([("DEL", stage.prefix + profile_key(user))])
    assert user in run_verification(stage).differences[0]


def test_slices_of_a_recreated_topic_cannot_be_checked(apache_stage: WorkerEnvironment) -> None:
    # given
    stage = run_worker(apache_stage, range(10))
    slices = run_verification(stage).slices
    # when a slice is of a topic with another id
    source, record = min(read_slices(stage).items())
    write_slice(stage, f"orders~{'A' * 22}/0", record)
    # then
    result = run_verification(stage)
    assert (result.slices, result.mismatches, result.unchecked) == (slices + 1, 0, 1)
    assert source in read_slices(stage)


def test_an_unreachable_broker_gives_no_result(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("transport.log_consumer.TIMEOUT_S", 0.2)
    kafka, redis = KafkaSettings(bootstrap_servers="127.0.0.1:1", topic_ids=False), RedisSettings(url=redis_url)
    # then
    assert verify(Settings(kafka=kafka, redis=redis), EntitySample(), FAMILIES) == 3
    assert "Verification could not run" in capsys.readouterr().err
