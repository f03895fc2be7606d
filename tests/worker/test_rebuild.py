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
from contract.profiles import profile_key
from contract.settings import Settings
from tests.worker.lives import Died, Life, Running, eventually
from tests.worker.stage import Stage
from tests.worker.test_verification import verified
from worker.broker import Broker as Admin
from worker.follower import Log
from worker.generations import FIRST, SWITCH, Generations
from worker.intake import Held, Intake, Place, Record
from worker.lanes import LANES
from worker.patience import Patience
from worker.positions import Positions
from worker.profile_store import MERGE
from worker.rebuild import Rebuild, Rebuilt, Refused, collect, lines, rebuild
from worker.recovery import Recovery
from worker.redis_client import RedisClient

KEY: Final = profile_key("device:d1")


def rebuilt(stage: Stage, *, log: Log | None = None, client: RedisClient | None = None, **more: Any) -> Rebuilt:
    reader = log or Log(kafka=stage.settings.kafka)
    try:
        return Rebuild(
            log=reader,
            broker=Admin(kafka=stage.settings.kafka),
            client=client or stage.redis,
            prefix=stage.prefix,
            topics=stage.topics,
            patience=Patience(threading.Event(), longest_s=0.1),
            **more,
        ).run()
    finally:
        reader.close()


def serving(stage: Stage) -> str:
    return Generations(client=stage.redis, prefix=stage.prefix).serving()


def state_keys(stage: Stage) -> set[str]:
    """What the keys of profiles and positions begin with."""
    found = {key for page in stage.redis.scan(stage.prefix) for key in page}
    return {key.partition(part)[0] for part in ("profile:{", "merged:{") for key in found if part in key}


def spoil(stage: Stage) -> None:
    """Some slices are not what the log says any more."""
    (fields,) = stage.redis.pipeline([("HGETALL", stage.prefix + KEY)])
    stage.redis.pipeline([("HSET", stage.prefix + KEY, fields[0], fields[1][:-8] + bytes(8))])
    stage.redis.pipeline([("DEL", stage.prefix + profile_key("user:u1"))])


def decided_once(stage: Stage, sent: set[str]) -> bool:
    return Counter(decision.event_id for decision in stage.decisions()) == Counter(sent)


def test_a_running_worker_goes_over_to_a_state_that_is_a_clean_pass(apache_stage: Stage, seed: int) -> None:
    stage = apache_stage  # the mock cluster forgets what a transaction commits
    # given a worker at work, and a state that is not what its log says
    sent = stage.send_orders(seed, 40)
    with Running(Life(stage)) as life:
        eventually(lambda: life.has_read(stage.ends("orders")))
        spoil(stage)
        assert stage.differences("orders") != []
        # when it is rebuilt while more comes in
        for first in (40, 60):
            sent |= stage.send_orders(seed, 20, first=first)
            made = rebuilt(stage)
            sent |= stage.send_orders(seed, 10, first=first + 100)
        # then
        eventually(lambda: life.profiles.generation == made.name == serving(stage))
        eventually(lambda: life.has_read(stage.ends("orders")))
        eventually(lambda: decided_once(stage, sent))
    assert stage.differences("orders") == []
    assert made.before == "g1"
    assert state_keys(stage) == {f"{stage.prefix}g2:"}


def test_what_a_rebuild_has_folded_before_anybody_answered_is_answered_all_the_same(stage: Stage, seed: int) -> None:
    # given orders that wait for their first worker, and a state that was built from them
    sent = stage.send_orders(seed, 40)
    rebuilt(stage)
    # when
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
    # then
    assert decided_once(stage, sent)
    assert stage.differences("orders") == []


class Scripted(Log):
    """A log that gives a few records at a time; something happens before some of them."""

    def __init__(self, stage: Stage, at: int, event: Callable[[], object]) -> None:
        super().__init__(kafka=stage.settings.kafka)
        self._left, self._event = at, event

    def read(self, ends: Mapping[Place, int], starts: Mapping[Place, int] | None = None) -> Iterator[list[Record]]:
        for records in super().read(ends, starts):
            for first in range(0, len(records), 5):
                self._left -= 1
                if self._left == 0:
                    self._event()
                yield records[first : first + 5]


class Killed(RedisClient):
    """A connection whose process ends when it carries out a chosen step."""

    step = ""

    def scripts(self, source: str, calls: Any) -> list[Any]:
        if self.step and self.step in source:
            raise Died
        return super().scripts(source, calls)

    def pipeline(self, commands: Any) -> list[Any]:
        if self.step and commands and commands[0][0] == self.step:
            raise Died
        return super().pipeline(commands)


@pytest.mark.parametrize("step", ["'until', now + ARGV[1]", "HMGET", MERGE[-40:], "return 0 end\nredis.call", "UNLINK"])
def test_a_rebuild_that_dies_leaves_a_state_that_serves(apache_stage: Stage, seed: int, step: str) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 30)
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
    # when
    dying = Killed(url=stage.settings.redis.url, timeout_s=20)
    dying.step = step
    with pytest.raises(Died):
        rebuilt(stage, client=dying)
    dying.close()
    # then workers go on, whichever state serves
    sent |= stage.send_orders(seed, 10, first=30)
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
    assert decided_once(stage, sent)
    assert stage.differences("orders") == []
    # and the next one finds what is left, once the dead one's lease is over
    stage.redis.pipeline([("HSET", f"{stage.prefix}generations", "until", 0)])
    made = rebuilt(stage)
    assert stage.differences("orders") == []
    assert state_keys(stage) == {f"{stage.prefix}{made.name}:"}


def lose_a_bucket(stage: Stage) -> None:
    stage.redis.pipeline([("DEL", f"{stage.prefix}g1:merged:{{{bucket}}}") for bucket in range(8)])


@pytest.mark.parametrize(
    "harm", [lose_a_bucket, lambda stage: stage.redis.pipeline([("CLIENT", "KILL", "TYPE", "normal")])]
)
def test_a_rebuild_goes_on_after_redis_lost_a_part_or_a_connection(
    apache_stage: Stage, seed: int, harm: Callable[[Stage], object]
) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 60)
    # when
    rebuilt(stage, log=Scripted(stage, 3, partial(harm, stage)))
    # then
    assert stage.differences("orders") == []


def test_a_redis_that_is_flushed_meanwhile_ends_the_rebuild_and_not_the_worker(apache_stage: Stage, seed: int) -> None:
    # given
    stage = apache_stage
    sent = stage.send_orders(seed, 60)
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
        # when
        flush = partial(stage.redis.pipeline, [("FLUSHALL",)])
        with pytest.raises(Exception, match="should say"):
            rebuilt(stage, log=Scripted(stage, 3, flush))
        sent |= stage.send_orders(seed, 10, first=60)
        life.finish(stage.ends("orders"))
    # then
    assert serving(stage) == FIRST
    assert decided_once(stage, sent)
    assert stage.differences("orders") == []


def test_new_partitions_after_a_switch_are_begun_with_all_others(apache_stage: Stage, seed: int) -> None:
    # given two workers, and a switch of which the idle one does not know yet
    stage = apache_stage
    sent = stage.send_orders(seed, 40)
    with Life(stage, "one", instance="1", keeps_house=False) as one:
        with Life(stage, "two", instance="2") as two:

            def shared() -> bool:
                two.step()
                return bool(one.intake.places and two.intake.places) and len(one.intake.places | two.intake.places) == 4

            one.work_until(lambda: shared() and decided_once(stage, sent))
            rebuilt(stage)
        # when the other one has left, and its partitions come
        one.work_until(lambda: len(one.intake.places) == 4)
        # then
        assert one.profiles.generation == "g1"
        sent |= stage.send_orders(seed, 20, first=40)
        one.finish(stage.ends("orders"))
    assert decided_once(stage, sent)
    assert stage.differences("orders") == []


class Asked(Intake):
    """Tells what the cluster knows of partitions, and is no member of a group."""

    def __init__(self) -> None:
        """No connection is needed."""

    def held(self, places: Iterable[Place]) -> dict[Place, Held]:
        return {place: Held(0, 0, 0) for place in places}


def test_who_holds_partitions_goes_over_with_all_of_them_or_none(apache_stage: Stage) -> None:
    # given
    stage, profiles, positions = apache_stage, apache_stage.profiles(), Positions()
    kafka = stage.settings.kafka
    recovery = Recovery(
        settings=stage.settings,
        lane=LANES["orders"],
        broker=Admin(kafka=kafka),
        profiles=profiles,
        positions=positions,
    )
    first, second = (Place(stage.topics.orders, partition) for partition in (0, 1))
    recovery.begin([first], Asked())
    rebuilt(stage)
    # then
    with pytest.raises(StaleState):
        recovery.begin([second], Asked())
    assert (profiles.generation, set(positions.committed)) == (FIRST, {first})
    recovery.begin([first, second], Asked())
    assert (profiles.generation, set(positions.committed)) == ("g1", {first, second})


class Watched(RedisClient):
    """A connection that lets something happen when it looks for keys after a switch."""

    event: Callable[[], object] | None = None
    _switched = False

    def scripts(self, source: str, calls: Any) -> list[Any]:
        self._switched = self._switched or source == SWITCH
        return super().scripts(source, calls)

    def scan(self, beginning: str) -> Iterator[list[str]]:
        if self._switched and self.event:
            self.event()
        return super().scan(beginning)


def test_a_zombie_in_the_former_state_is_refused_before_its_keys_are_deleted(apache_stage: Stage, seed: int) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 40)
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
    zombie, sources = stage.profiles(), {stage.source(place) for place in stage.ends("orders")}
    merged, refused = zombie.merged(sources), list[StaleState]()

    def wake() -> None:
        with pytest.raises(StaleState) as raised:
            zombie.merge({}, merged, {3: dict.fromkeys(sources, 1_000)})
        refused.append(raised.value)

    client = Watched(url=stage.settings.redis.url, timeout_s=20)
    client.event = wake
    # when
    rebuilt(stage, client=client)
    client.close()
    # then
    assert len(refused) == 1


def test_a_state_from_a_time_knows_what_came_since_and_stays_so(apache_stage: Stage, seed: int) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 40)
    before = stage.ends("orders")
    time.sleep(0.01)  # Kafka's timestamps are in milliseconds
    since_ms = time.time_ns() // 1_000_000
    time.sleep(0.01)
    stage.send_orders(seed, 30, first=40)
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
        whole = verified(stage).slices
        # when
        rebuilt(stage, from_ms=since_ms)
        life.work_until(lambda: life.profiles.generation == "g1")
        # then
        verdict = verified(stage)
        assert (verdict.mismatches, verdict.unchecked) == (0, 0)
        assert 0 < verdict.slices <= whole
        assert {s: at for s, at in stage.profiles().begins().items() if at} == {
            stage.source(place): at for place, at in before.items()
        }
        slices = stage.profiles().read(["device:d1"])[0]
        # and when a bucket is lost
        (keys,) = stage.redis.pipeline([("KEYS", f"{stage.prefix}g1:*{{*}}*")])
        stage.redis.pipeline([("DEL", *keys)])
        stage.send_orders(seed, 5, first=70)
        life.finish(stage.ends("orders"))
        # then it is folded again from that time, and not from the log's beginning
        verdict = verified(stage)
        assert (verdict.mismatches, verdict.unchecked) == (0, 0)
        assert slices.keys() <= stage.profiles().read(["device:d1"])[0].keys()
    # and when the log has lost what came before that time, all can be checked still
    stage.remove_records("orders", below=min(before.values()))
    verdict = verified(stage)
    assert (verdict.mismatches, verdict.unchecked, verdict.remarks) == (0, 0, [])


def test_a_log_without_its_beginning_is_refused_unless_that_is_accepted(
    apache_stage: Stage, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 40)
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
    stage.remove_records("orders", below=2)
    # then
    assert rebuild(stage.settings, None, accepts_loss=False, stop=threading.Event()) == 3
    assert "Nothing has changed: Every log should hold its first record" in capsys.readouterr().err
    assert serving(stage) == FIRST
    # and when it is accepted
    assert rebuild(stage.settings, None, accepts_loss=True, stop=threading.Event()) == 0
    assert "serves instead of the first one" in capsys.readouterr().out
    assert verified(stage).mismatches == 0


def test_a_second_rebuild_is_refused_while_one_is_at_work(apache_stage: Stage) -> None:
    stage = apache_stage
    Generations(client=stage.redis, prefix=stage.prefix).begin()

    with pytest.raises(Refused, match="One rebuild should run at a time"):
        rebuilt(stage)


def test_a_state_that_would_begin_in_the_future_is_a_mistake() -> None:
    with pytest.raises(BadConfig, match="should begin in the past"):
        rebuild(Settings(), datetime.now(UTC) + timedelta(hours=1), accepts_loss=False, stop=threading.Event())


def test_a_rebuild_that_is_asked_to_end_changes_nothing(apache_stage: Stage, seed: int) -> None:
    # given
    stage = apache_stage
    stage.send_orders(seed, 60)
    stop = threading.Event()
    stop.set()
    # then
    assert rebuild(stage.settings, None, accepts_loss=False, stop=stop) == 3
    assert serving(stage) == FIRST
    assert state_keys(stage) == set()
    assert Generations(client=stage.redis, prefix=stage.prefix).begin() is not None


def test_keys_that_serve_nobody_are_collected_on_demand(
    apache_stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = apache_stage
    stage.redis.pipeline([("SET", f"{stage.prefix}g7:merged:{{3}}", "x")])

    assert collect(stage.settings, retires=True) == 0

    assert capsys.readouterr().out.split() == ["layouts", "none", "retired", "collected", "1", "keys"]
    assert state_keys(stage) == set()


def test_what_was_done_is_told() -> None:
    made = Rebuilt(name="g2", before="g1", records=1_000, sources=4, behind=3, collected=70, seconds=1.25)

    assert [line.split()[:2] for line in lines(made)] == [
        ["generation", "g2"],
        ["sources", "4"],
        ["records", "1,000"],
        ["collected", "70"],
        ["seconds", "1.2"],
    ]
