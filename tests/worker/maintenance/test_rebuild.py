"""Rebuilding the state while workers run: the new state equals a clean pass, whatever happens on the way."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest

from contract.errors import BadConfig, StaleState
from contract.profiles.record import profile_key
from contract.settings.reading import Settings
from tests.polling import wait_until
from tests.worker.environment import WorkerEnvironment
from tests.worker.maintenance.runs import run_rebuild, run_verification, serving_generation
from tests.worker.worker_lifecycle import InProcessWorker, WorkerKilled, WorkerThread
from transport.log_reader import LogReader
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.group.consumer import GroupConsumer
from worker.kafka.admin import KafkaAdmin
from worker.maintenance.rebuild import RebuildRefused, RebuildResult, collect_garbage, format_result, rebuild
from worker.pipeline.recovery import Recovery
from worker.records.lanes import LANES
from worker.redis.client import RedisClient
from worker.state.generations import FIRST, SWITCH, Generations
from worker.state.merge_script import MERGE
from worker.state.offsets import OffsetTracker

KEY: Final = profile_key("device:d1")


def find_state_prefixes(stage: WorkerEnvironment) -> set[str]:
    """The prefixes of all keys of profiles and merged offsets."""
    keys = {key for page in stage.redis.scan(stage.prefix) for key in page}
    return {key.partition(part)[0] for part in ("profile:{", "merged:{") for key in keys if part in key}


def spoil_slices(stage: WorkerEnvironment) -> None:
    """Corrupt one slice and delete another."""
    (fields,) = stage.redis.pipeline([("HGETALL", stage.prefix + KEY)])
    stage.redis.pipeline([("HSET", stage.prefix + KEY, fields[0], fields[1][:-8] + bytes(8))])
    stage.redis.pipeline([("DEL", stage.prefix + profile_key("user:u1"))])


def is_decided_once(stage: WorkerEnvironment, sent: set[str]) -> bool:
    return Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)


def test_a_running_worker_switches_to_a_correct_state(apache_stage: WorkerEnvironment, seed: int) -> None:
    stage = apache_stage  # the mock cluster forgets what a transaction commits
    # given a running worker, and a state that differs from its log
    sent = stage.send_orders(seed, 40)
    with WorkerThread(InProcessWorker(stage)) as worker:
        wait_until(lambda: worker.has_processed(stage.end_offsets("orders")))
        spoil_slices(stage)
        assert stage.find_differences("orders") != []
        # when it is rebuilt while orders arrive
        for first in (40, 60):
            sent |= stage.send_orders(seed, 20, first=first)
            result = run_rebuild(stage)
            sent |= stage.send_orders(seed, 10, first=first + 100)
        # then
        wait_until(lambda: worker.profiles.generation == result.name == serving_generation(stage))
        wait_until(lambda: worker.has_processed(stage.end_offsets("orders")))
        wait_until(lambda: is_decided_once(stage, sent))
    assert stage.find_differences("orders") == []
    assert result.previous == "g1"
    assert find_state_prefixes(stage) == {f"{stage.prefix}g2:"}


def test_orders_folded_by_a_rebuild_before_any_worker_ran_are_answered(stage: WorkerEnvironment, seed: int) -> None:
    # given orders without a worker, and a state that was built from them
    sent = stage.send_orders(seed, 40)
    run_rebuild(stage)
    # when
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []


class ScriptedLogReader(LogReader):
    """A log reader that returns five records at a time, and calls `event` before the `at`-th time."""

    def __init__(self, stage: WorkerEnvironment, chunks: int, event: Callable[[], object]) -> None:
        super().__init__(kafka=stage.settings.kafka)
        self._chunks_left = chunks
        self._event = event

    def read(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int] | None = None
    ) -> Iterator[list[Record]]:
        for records in super().read(ends, starts):
            for first in range(0, len(records), 5):
                self._chunks_left -= 1
                if self._chunks_left == 0:
                    self._event()
                yield records[first : first + 5]


class CrashingRedisClient(RedisClient):
    """A client whose process ends when it executes a chosen command."""

    step = ""

    def run_script(self, source: str, calls: Any) -> list[Any]:
        if self.step and self.step in source:
            raise WorkerKilled
        return super().run_script(source, calls)

    def pipeline(self, commands: Any) -> list[Any]:
        if self.step and commands and commands[0][0] == self.step:
            raise WorkerKilled
        return super().pipeline(commands)


@pytest.mark.parametrize("step", ["'until', now + ARGV[1]", "HMGET", MERGE[-40:], "return 0 end\nredis.call", "UNLINK"])
def test_a_crashed_rebuild_leaves_a_serving_state(apache_stage: WorkerEnvironment, seed: int, step: str) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 30)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # when
    crashing = CrashingRedisClient(url=stage.settings.redis.url, timeout_s=20)
    crashing.step = step
    with pytest.raises(WorkerKilled):
        run_rebuild(stage, client=crashing)
    crashing.close()
    # then workers go on with whichever state serves
    sent |= stage.send_orders(seed, 10, first=30)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []
    # and the next rebuild cleans up once the crashed one's lease is over
    stage.redis.pipeline([("HSET", f"{stage.prefix}generations", "until", 0)])
    result = run_rebuild(stage)
    assert stage.find_differences("orders") == []
    assert find_state_prefixes(stage) == {f"{stage.prefix}{result.name}:"}


def delete_bucket(stage: WorkerEnvironment) -> None:
    stage.redis.pipeline([("DEL", f"{stage.prefix}g1:merged:{{{bucket}}}") for bucket in range(8)])


@pytest.mark.parametrize(
    "damage", [delete_bucket, lambda stage: stage.redis.pipeline([("CLIENT", "KILL", "TYPE", "normal")])]
)
def test_a_rebuild_goes_on_after_redis_loses_buckets_or_connections(
    apache_stage: WorkerEnvironment, seed: int, damage: Callable[[WorkerEnvironment], object]
) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 60)
    # when
    run_rebuild(stage, reader=ScriptedLogReader(stage, 3, partial(damage, stage)))
    # then
    assert stage.find_differences("orders") == []


def test_a_redis_flush_ends_the_rebuild_and_not_the_worker(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 60)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
        # when
        flush = partial(stage.redis.pipeline, [("FLUSHALL",)])
        with pytest.raises(Exception, match="should name"):
            run_rebuild(stage, reader=ScriptedLogReader(stage, 3, flush))
        sent |= stage.send_orders(seed, 10, first=60)
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert serving_generation(stage) == FIRST
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []


def test_partitions_assigned_after_a_switch_start_with_all_others(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given two workers, and a switch that the idle one has not seen yet
    stage = apache_stage
    sent = stage.send_orders(seed, 40)
    with InProcessWorker(stage, "one", instance="1", runs_periodic=False) as first:
        with InProcessWorker(stage, "two", instance="2") as second:

            def is_balanced() -> bool:
                second.step()
                return (
                    bool(first.consumer.assignment and second.consumer.assignment)
                    and len(first.consumer.assignment | second.consumer.assignment) == 4
                )

            first.run_until(lambda: is_balanced() and is_decided_once(stage, sent))
            run_rebuild(stage)
        # when the other one has left, and its partitions are assigned
        first.run_until(lambda: len(first.consumer.assignment) == 4)
        # then
        assert first.profiles.generation == "g1"
        sent |= stage.send_orders(seed, 20, first=40)
        first.process_all(stage.end_offsets("orders"))
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []


class OffsetQueryConsumer(GroupConsumer):
    """A consumer that returns fixed offsets and joins no group."""

    def __init__(self) -> None:
        """Without a connection."""

    def query_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, PartitionOffsets]:
        return {partition: PartitionOffsets(0, 0, 0) for partition in partitions}


def test_a_worker_switches_with_all_its_partitions_or_none(apache_stage: WorkerEnvironment) -> None:
    # given
    stage, profiles, offsets = apache_stage, apache_stage.open_profiles(), OffsetTracker()
    kafka = stage.settings.kafka
    recovery = Recovery(
        settings=stage.settings,
        lane=LANES["orders"],
        admin=KafkaAdmin(kafka=kafka),
        profiles=profiles,
        offsets=offsets,
    )
    first, second = (TopicPartition(stage.topics.orders, partition) for partition in (0, 1))
    recovery.recover_offsets([first], OffsetQueryConsumer())
    run_rebuild(stage)
    # then
    with pytest.raises(StaleState):
        recovery.recover_offsets([second], OffsetQueryConsumer())
    assert (profiles.generation, set(offsets.committed)) == (FIRST, {first})
    recovery.recover_offsets([first, second], OffsetQueryConsumer())
    assert (profiles.generation, set(offsets.committed)) == ("g1", {first, second})


class InterceptingRedisClient(RedisClient):
    """A client that calls `event` before it scans after a switch."""

    event: Callable[[], object] | None = None
    _switched = False

    def run_script(self, source: str, calls: Any) -> list[Any]:
        self._switched = self._switched or source == SWITCH
        return super().run_script(source, calls)

    def scan(self, prefix: str) -> Iterator[list[str]]:
        if self._switched and self.event:
            self.event()
        return super().scan(prefix)


def test_a_zombie_in_the_former_generation_is_fenced_before_its_keys_are_deleted(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 40)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    zombie, sources = stage.open_profiles(), {stage.source_of(partition) for partition in stage.end_offsets("orders")}
    merged, refused = zombie.read_offsets(sources), list[StaleState]()

    def wake() -> None:
        with pytest.raises(StaleState) as raised:
            zombie.merge({}, merged, {3: dict.fromkeys(sources, 1_000)})
        refused.append(raised.value)

    client = InterceptingRedisClient(url=stage.settings.redis.url, timeout_s=20)
    client.event = wake
    # when
    run_rebuild(stage, client=client)
    client.close()
    # then
    assert len(refused) == 1


def test_a_state_built_from_a_time_holds_only_later_events(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 40)
    before = stage.end_offsets("orders")
    time.sleep(0.01)  # Kafka's timestamps are in milliseconds
    since_ms = time.time_ns() // 1_000_000
    time.sleep(0.01)
    stage.send_orders(seed, 30, first=40)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
        whole = run_verification(stage).slices
        # when
        run_rebuild(stage, from_ms=since_ms)
        worker.run_until(lambda: worker.profiles.generation == "g1")
        # then
        result = run_verification(stage)
        assert (result.mismatches, result.unchecked) == (0, 0)
        assert 0 < result.slices <= whole
        assert {source: offset for source, offset in stage.open_profiles().read_log_starts().items() if offset} == {
            stage.source_of(partition): end for partition, end in before.items()
        }
        slices = stage.open_profiles().read(["device:d1"])[0]
        # and when a bucket is lost
        (keys,) = stage.redis.pipeline([("KEYS", f"{stage.prefix}g1:*{{*}}*")])
        stage.redis.pipeline([("DEL", *keys)])
        stage.send_orders(seed, 5, first=70)
        worker.process_all(stage.end_offsets("orders"))
        # then it is folded again from that time, not from the log's beginning
        result = run_verification(stage)
        assert (result.mismatches, result.unchecked) == (0, 0)
        assert slices.keys() <= stage.open_profiles().read(["device:d1"])[0].keys()
    # and when retention deletes the records before that time, all slices can still be checked
    stage.remove_records("orders", below=min(before.values()))
    result = run_verification(stage)
    assert (result.mismatches, result.unchecked, result.remarks) == (0, 0, [])


def test_a_truncated_log_is_refused_unless_accepted(
    apache_stage: WorkerEnvironment, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 40)
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    stage.remove_records("orders", below=2)
    # then
    assert rebuild(stage.settings, None, accepts_loss=False, stop=threading.Event()) == 3
    assert "Nothing has changed: Every log should hold its first record" in capsys.readouterr().err
    assert serving_generation(stage) == FIRST
    # and when the loss is accepted
    assert rebuild(stage.settings, None, accepts_loss=True, stop=threading.Event()) == 0
    assert "serves instead of the first one" in capsys.readouterr().out
    assert run_verification(stage).mismatches == 0


def test_a_second_rebuild_is_refused_while_one_runs(apache_stage: WorkerEnvironment) -> None:
    stage = apache_stage
    Generations(client=stage.redis, prefix=stage.prefix).begin_build()

    with pytest.raises(RebuildRefused, match="One rebuild should run at a time"):
        run_rebuild(stage)


def test_a_start_in_the_future_is_refused() -> None:
    with pytest.raises(BadConfig, match="should begin in the past"):
        rebuild(Settings(), datetime.now(UTC) + timedelta(hours=1), accepts_loss=False, stop=threading.Event())


def test_a_stopped_rebuild_changes_nothing(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 60)
    stop = threading.Event()
    stop.set()
    # then
    assert rebuild(stage.settings, None, accepts_loss=False, stop=stop) == 3
    assert serving_generation(stage) == FIRST
    assert find_state_prefixes(stage) == set()
    assert Generations(client=stage.redis, prefix=stage.prefix).begin_build() is not None


def test_unused_generations_are_deleted_on_demand(
    apache_stage: WorkerEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = apache_stage
    stage.redis.pipeline([("SET", f"{stage.prefix}g7:merged:{{3}}", "x")])

    assert collect_garbage(stage.settings, retires=True) == 0

    assert capsys.readouterr().out.split() == ["layouts", "none", "retired", "collected", "1", "keys"]
    assert find_state_prefixes(stage) == set()


def test_the_result_is_printed() -> None:
    result = RebuildResult(name="g2", previous="g1", records=1_000, sources=4, behind=3, collected=70, seconds=1.25)

    assert [line.split()[:2] for line in format_result(result)] == [
        ["generation", "g2"],
        ["sources", "4"],
        ["records", "1,000"],
        ["collected", "70"],
        ["seconds", "1.2"],
    ]
