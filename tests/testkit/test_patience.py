"""A chaos run waits for what advances, and gives up what stands still."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from testkit.chaos import chaos_run
from testkit.chaos.chaos_run import ChaosRun
from testkit.chaos.fleet import Fleet, FleetProcess
from testkit.chaos.outcome import ChaosPlan
from testkit.chaos.patience import SHARES, Patience
from worker.ops.health import HealthServer

STILL_S = 90.0
POLL_S = 10.0


class WaitClock:
    """Seconds that only the waits of a run move on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class SlowJoiner:
    """A joiner that has a log to read again, and an audit that finds it lagging until then."""

    def __init__(self, *, unread: int, per_poll: int) -> None:
        self.unread, self.per_poll = unread, per_poll

    def read_progress(self) -> Iterator[str]:
        yield f"lag {self.unread}"

    def find_lagging(self, *, labelled_before_ms: int) -> Iterator[str]:
        if self.unread:
            yield "order o has no label after its window"

    def read(self) -> None:
        self.unread = max(0, self.unread - self.per_poll)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WaitClock:
    clock = WaitClock()
    monkeypatch.setattr(chaos_run, "Patience", partial(Patience, clock_s=clock))
    return clock


def catch_up(reader: SlowJoiner, clock: WaitClock, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a run finds lagging at last; each of its waits takes `POLL_S` and lets the joiner read."""

    def wait(*_: object) -> None:
        clock.now_s += POLL_S
        reader.read()

    monkeypatch.setattr(chaos_run, "wait_ticking", wait)
    plan = ChaosPlan(minutes=1, seed=1, faults=[], catch_up_s=STILL_S)
    run = ChaosRun(plan=plan, report=print, folder=Path())
    fleet = SimpleNamespace(tick=lambda: None, read_progress=reader.read_progress)
    scene = SimpleNamespace(fleet=fleet, traffic=SimpleNamespace(flush=lambda: None))
    return run._catch_up(cast(Any, scene), cast(Any, reader))


def test_a_joiner_that_reads_a_log_again_slowly_is_waited_for(
    clock: WaitClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert catch_up(SlowJoiner(unread=1_000, per_poll=50), clock, monkeypatch) == []
    assert clock.now_s > STILL_S


def test_what_stands_still_is_given_up(clock: WaitClock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catch_up(SlowJoiner(unread=1_000, per_poll=0), clock, monkeypatch) != []
    assert clock.now_s == STILL_S + POLL_S


def test_what_advances_and_never_arrives_is_given_up(clock: WaitClock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catch_up(SlowJoiner(unread=1_000_000, per_poll=1), clock, monkeypatch) != []
    assert clock.now_s == SHARES * STILL_S + POLL_S


def test_the_lag_and_the_stream_time_of_a_process_tell_how_far_it_has_read() -> None:
    # given
    exposed = 'shopstream_lag_records{partition="0"} 7.0\nshopstream_stream_time_seconds 3.0\nshopstream_up 1.0\n'
    health = HealthServer(port=0, live=lambda: None, ready=lambda: None, metrics=exposed.encode)
    fleet = Fleet(environment=cast(Any, None), variables={}, workers_per_lane=0, joiners=0)
    fleet.processes = [FleetProcess(name="joiner-0", role="joiner", process=cast(Any, None), port=health.port)]
    # when
    progress = list(fleet.read_progress())
    health.close()
    # then
    assert progress == exposed.splitlines()[:2]
