"""Rebuilding the state beside workers: what serves in the end is a clean pass, whatever happens on the way."""

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
from contract.settings import Settings
from tests.worker.environment import WorkerEnvironment
from tests.worker.maintenance.test_verification import run_verification
from tests.worker.worker_lifecycle import InProcessWorker, WorkerKilled, WorkerThread, wait_until
from worker.kafka.admin import KafkaAdmin as Admin
from worker.kafka.consumer import GroupConsumer, PartitionOffsets, Record, TopicPartition
from worker.kafka.log_reader import LogReader
from worker.maintenance.rebuild import Rebuild, RebuildRefused, RebuildResult, collect_garbage, format_result, rebuild
from worker.ops.retry import Retry
from worker.pipeline.recovery import Recovery
from worker.records.lanes import LANES
from worker.redis.client import RedisClient
from worker.state.generations import FIRST, SWITCH, Generations
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import MERGE

KEY: Final = profile_key("device:d1")


def run_rebuild(
    stage: WorkerEnvironment, *, log: LogReader | None = None, client: RedisClient | None = None, **more: Any
) -> RebuildResult:
    reader = log or LogReader(kafka=stage.settings.kafka)
    try:
        return Rebuild(
            reader=reader,
            admin=Admin(kafka=stage.settings.kafka),
            client=client or stage.redis,
            prefix=stage.prefix,
            topics=stage.topics,
            retry=Retry(threading.Event(), wait_max_s=0.1),
            **more,
        ).run()
    finally:
        reader.close()


def serving_generation(stage: WorkerEnvironment) -> str:
    return Generations(client=stage.redis, prefix=stage.prefix).read_serving()


def find_state_prefixes(stage: WorkerEnvironment) -> set[str]:
    """What the keys of profiles and positions begin with."""
    keys = {key for page in stage.redis.scan(stage.prefix) for key in page}
    return {key.partition(part)[0] for part in ("profile:{", "merged:{") for key in keys if part in key}


def spoil_slices(stage: WorkerEnvironment) -> None:
    """Some slices are not what the log says any more."""
    (fields,) = stage.redis.pipeline([("HGETALL", stage.prefix + KEY)])
    stage.redis.pipeline([("HSET", stage.prefix + KEY, fields[0], fields[1][:-8] + bytes(8))])
    stage.redis.pipeline([("DEL", stage.prefix + profile_key("user:u1"))])


def is_decided_once(stage: WorkerEnvironment, sent: set[str]) -> bool:
    return Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)


def test_a_running_worker_goes_over_to_a_state_that_is_a_clean_pass(apache_stage: WorkerEnvironment, seed: int) -> None:
    stage = apache_stage  # the mock cluster forgets what a transaction commits
    # given a worker at work, and a state that is not what its log says
    sent = stage.send_orders(seed, 40)
    with WorkerThread(InProcessWorker(stage)) as life:
        wait_until(lambda: life.has_processed(stage.end_offsets("orders")))
        spoil_slices(stage)
        assert stage.find_differences("orders") != []
        # when it is rebuilt while more comes in
        for first in (40, 60):
            sent |= stage.send_orders(seed, 20, first=first)
            made = run_rebuild(stage)
            sent |= stage.send_orders(seed, 10, first=first + 100)
        # then
        wait_until(lambda: life.profiles.generation == made.name == serving_generation(stage))
        wait_until(lambda: life.has_processed(stage.end_offsets("orders")))
        wait_until(lambda: is_decided_once(stage, sent))
    assert stage.find_differences("orders") == []
    assert made.previous == "g1"
    assert find_state_prefixes(stage) == {f"{stage.prefix}g2:"}


def test_what_a_rebuild_has_folded_before_anybody_answered_is_answered_all_the_same(
    stage: WorkerEnvironment, seed: int
) -> None:
    # given orders that wait for their first worker, and a state that was built from them
    sent = stage.send_orders(seed, 40)
    run_rebuild(stage)
    # when
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
    # then
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []


class ScriptedLogReader(LogReader):
    """A log that gives a few records at a time; something happens before some of them."""

    def __init__(self, stage: WorkerEnvironment, at: int, event: Callable[[], object]) -> None:
        super().__init__(kafka=stage.settings.kafka)
        self._left, self._event = at, event

    def read(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int] | None = None
    ) -> Iterator[list[Record]]:
        for records in super().read(ends, starts):
            for first in range(0, len(records), 5):
                self._left -= 1
                if self._left == 0:
                    self._event()
                yield records[first : first + 5]


class CrashingRedisClient(RedisClient):
    """A connection whose process ends when it carries out a chosen step."""

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
def test_a_rebuild_that_dies_leaves_a_state_that_serves(apache_stage: WorkerEnvironment, seed: int, step: str) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 30)
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
    # when
    dying = CrashingRedisClient(url=stage.settings.redis.url, timeout_s=20)
    dying.step = step
    with pytest.raises(WorkerKilled):
        run_rebuild(stage, client=dying)
    dying.close()
    # then workers go on, whichever state serves
    sent |= stage.send_orders(seed, 10, first=30)
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []
    # and the next one finds what is left, once the dead one's lease is over
    stage.redis.pipeline([("HSET", f"{stage.prefix}generations", "until", 0)])
    made = run_rebuild(stage)
    assert stage.find_differences("orders") == []
    assert find_state_prefixes(stage) == {f"{stage.prefix}{made.name}:"}


def delete_bucket(stage: WorkerEnvironment) -> None:
    stage.redis.pipeline([("DEL", f"{stage.prefix}g1:merged:{{{bucket}}}") for bucket in range(8)])


@pytest.mark.parametrize(
    "harm", [delete_bucket, lambda stage: stage.redis.pipeline([("CLIENT", "KILL", "TYPE", "normal")])]
)
def test_a_rebuild_goes_on_after_redis_lost_a_part_or_a_connection(
    apache_stage: WorkerEnvironment, seed: int, harm: Callable[[WorkerEnvironment], object]
) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 60)
    # when
    run_rebuild(stage, log=ScriptedLogReader(stage, 3, partial(harm, stage)))
    # then
    assert stage.find_differences("orders") == []


def test_a_redis_that_is_flushed_meanwhile_ends_the_rebuild_and_not_the_worker(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 60)
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
        # when
        flush = partial(stage.redis.pipeline, [("FLUSHALL",)])
        with pytest.raises(Exception, match="should say"):
            run_rebuild(stage, log=ScriptedLogReader(stage, 3, flush))
        sent |= stage.send_orders(seed, 10, first=60)
        life.process_all(stage.end_offsets("orders"))
    # then
    assert serving_generation(stage) == FIRST
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []


def test_new_partitions_after_a_switch_are_begun_with_all_others(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given two workers, and a switch of which the idle one does not know yet
    stage = apache_stage
    sent = stage.send_orders(seed, 40)
    with InProcessWorker(stage, "one", instance="1", runs_periodic=False) as one:
        with InProcessWorker(stage, "two", instance="2") as two:

            def shared() -> bool:
                two.step()
                return (
                    bool(one.consumer.assignment and two.consumer.assignment)
                    and len(one.consumer.assignment | two.consumer.assignment) == 4
                )

            one.run_until(lambda: shared() and is_decided_once(stage, sent))
            run_rebuild(stage)
        # when the other one has left, and its partitions come
        one.run_until(lambda: len(one.consumer.assignment) == 4)
        # then
        assert one.profiles.generation == "g1"
        sent |= stage.send_orders(seed, 20, first=40)
        one.process_all(stage.end_offsets("orders"))
    assert is_decided_once(stage, sent)
    assert stage.find_differences("orders") == []


class OffsetQueryConsumer(GroupConsumer):
    """Tells what the cluster knows of partitions, and is no member of a group."""

    def __init__(self) -> None:
        """No connection is needed."""

    def query_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, PartitionOffsets]:
        return {partition: PartitionOffsets(0, 0, 0) for partition in partitions}


def test_who_holds_partitions_goes_over_with_all_of_them_or_none(apache_stage: WorkerEnvironment) -> None:
    # given
    stage, profiles, positions = apache_stage, apache_stage.open_profiles(), OffsetTracker()
    kafka = stage.settings.kafka
    recovery = Recovery(
        settings=stage.settings,
        lane=LANES["orders"],
        admin=Admin(kafka=kafka),
        profiles=profiles,
        offsets=positions,
    )
    first, second = (TopicPartition(stage.topics.orders, partition) for partition in (0, 1))
    recovery.recover_offsets([first], OffsetQueryConsumer())
    run_rebuild(stage)
    # then
    with pytest.raises(StaleState):
        recovery.recover_offsets([second], OffsetQueryConsumer())
    assert (profiles.generation, set(positions.committed)) == (FIRST, {first})
    recovery.recover_offsets([first, second], OffsetQueryConsumer())
    assert (profiles.generation, set(positions.committed)) == ("g1", {first, second})


class InterceptingRedisClient(RedisClient):
    """A connection that lets something happen when it looks for keys after a switch."""

    event: Callable[[], object] | None = None
    _switched = False

    def run_script(self, source: str, calls: Any) -> list[Any]:
        self._switched = self._switched or source == SWITCH
        return super().run_script(source, calls)

    def scan(self, prefix: str) -> Iterator[list[str]]:
        if self._switched and self.event:
            self.event()
        return super().scan(prefix)


def test_a_zombie_in_the_former_state_is_refused_before_its_keys_are_deleted(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 40)
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
    zombie, sources = stage.open_profiles(), {stage.source_of(partition) for partition in stage.end_offsets("orders")}
    merged, refused = zombie.merged_offsets(sources), list[StaleState]()

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


def test_a_state_from_a_time_knows_what_came_since_and_stays_so(apache_stage: WorkerEnvironment, seed: int) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 40)
    before = stage.end_offsets("orders")
    time.sleep(0.01)  # Kafka's timestamps are in milliseconds
    since_ms = time.time_ns() // 1_000_000
    time.sleep(0.01)
    stage.send_orders(seed, 30, first=40)
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
        whole = run_verification(stage).slices
        # when
        run_rebuild(stage, from_ms=since_ms)
        life.run_until(lambda: life.profiles.generation == "g1")
        # then
        verdict = run_verification(stage)
        assert (verdict.mismatches, verdict.unchecked) == (0, 0)
        assert 0 < verdict.slices <= whole
        assert {s: at for s, at in stage.open_profiles().read_log_starts().items() if at} == {
            stage.source_of(partition): at for partition, at in before.items()
        }
        slices = stage.open_profiles().read(["device:d1"])[0]
        # and when a bucket is lost
        (keys,) = stage.redis.pipeline([("KEYS", f"{stage.prefix}g1:*{{*}}*")])
        stage.redis.pipeline([("DEL", *keys)])
        stage.send_orders(seed, 5, first=70)
        life.process_all(stage.end_offsets("orders"))
        # then it is folded again from that time, and not from the log's beginning
        verdict = run_verification(stage)
        assert (verdict.mismatches, verdict.unchecked) == (0, 0)
        assert slices.keys() <= stage.open_profiles().read(["device:d1"])[0].keys()
    # and when the log has lost what came before that time, all can be checked still
    stage.remove_records("orders", below=min(before.values()))
    verdict = run_verification(stage)
    assert (verdict.mismatches, verdict.unchecked, verdict.remarks) == (0, 0, [])


def test_a_log_without_its_beginning_is_refused_unless_that_is_accepted(
    apache_stage: WorkerEnvironment, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 40)
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
    stage.remove_records("orders", below=2)
    # then
    assert rebuild(stage.settings, None, accepts_loss=False, stop=threading.Event()) == 3
    assert "Nothing has changed: Every log should hold its first record" in capsys.readouterr().err
    assert serving_generation(stage) == FIRST
    # and when it is accepted
    assert rebuild(stage.settings, None, accepts_loss=True, stop=threading.Event()) == 0
    assert "serves instead of the first one" in capsys.readouterr().out
    assert run_verification(stage).mismatches == 0


def test_a_second_rebuild_is_refused_while_one_is_at_work(apache_stage: WorkerEnvironment) -> None:
    stage = apache_stage
    Generations(client=stage.redis, prefix=stage.prefix).begin_build()

    with pytest.raises(RebuildRefused, match="One rebuild should run at a time"):
        run_rebuild(stage)


def test_a_state_that_would_begin_in_the_future_is_a_mistake() -> None:
    with pytest.raises(BadConfig, match="should begin in the past"):
        rebuild(Settings(), datetime.now(UTC) + timedelta(hours=1), accepts_loss=False, stop=threading.Event())


def test_a_rebuild_that_is_asked_to_end_changes_nothing(apache_stage: WorkerEnvironment, seed: int) -> None:
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


def test_keys_that_serve_nobody_are_collected_on_demand(
    apache_stage: WorkerEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = apache_stage
    stage.redis.pipeline([("SET", f"{stage.prefix}g7:merged:{{3}}", "x")])

    assert collect_garbage(stage.settings, retires=True) == 0

    assert capsys.readouterr().out.split() == ["layouts", "none", "retired", "collected", "1", "keys"]
    assert find_state_prefixes(stage) == set()


def test_what_was_done_is_told() -> None:
    made = RebuildResult(name="g2", previous="g1", records=1_000, sources=4, behind=3, collected=70, seconds=1.25)

    assert [line.split()[:2] for line in format_result(made)] == [
        ["generation", "g2"],
        ["sources", "4"],
        ["records", "1,000"],
        ["collected", "70"],
        ["seconds", "1.2"],
    ]
