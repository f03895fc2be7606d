"""Patience: a server that is away is waited for, with a word about it; nobody sleeps here, waits are only noted."""

import logging
import random
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from contract.errors import BadEvent, Unavailable
from worker import metrics
from worker.patience import Patience, Stopped

AWAY: Final = "a server of this test"


class Clock(threading.Event):
    """An event whose waits end at once and are remembered; it is set when so many have passed."""

    def __init__(self, waits_max: int = 1_000) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._waits_max = waits_max

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return self.is_set() or len(self.waits) >= self._waits_max


class Server:
    """Answers "here" after some failures."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def ask(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise Unavailable(f"It should answer. Found {self.left} failures to come.")
        return "here"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def shown() -> Iterator[None]:
    yield
    metrics.WAITING.labels(AWAY).set(0)


def value(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"shopstream_{name}", {"server": AWAY}) or 0.0


def test_what_answers_at_once_is_not_waited_for(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    assert Patience(clock).insist(AWAY, Server(0).ask) == "here"
    assert (clock.waits, caplog.messages) == ([], [])


def test_it_says_what_it_waits_for_and_that_it_goes_on(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    # given
    retries = value("retries_total")
    # when
    with caplog.at_level(logging.WARNING):
        found = Patience(clock).insist(AWAY, Server(2).ask)
    # then
    assert found == "here"
    assert f"Waiting for {AWAY}" in caplog.messages[0]
    assert "Found 1 failures to come" in caplog.messages[0]
    assert caplog.messages[-1] == f"{AWAY} answers again; going on."
    assert (value("retries_total"), value("waiting")) == (retries + 2, 0)


def test_while_it_waits_the_metric_shows_it(clock: Clock) -> None:
    # given
    seen: list[float] = []
    patience = Patience(clock, meanwhile=lambda: seen.append(value("waiting")))
    # when
    patience.insist(AWAY, Server(3).ask)
    # then
    assert seen == [1, 1, 1]


def test_waits_double_up_to_the_longest_give_or_take_a_half(clock: Clock, seed: int) -> None:
    # when
    Patience(clock, longest_s=5.0, chance=random.Random(seed)).insist(AWAY, Server(12).ask)
    # then
    wanted = [min(5.0, 0.05 * 2**n) for n in range(12)]
    assert all(0.5 * w <= found <= 1.5 * w for w, found in zip(wanted, clock.waits, strict=True))
    assert wanted[-1] == 5.0


def test_a_process_that_is_to_end_stops_waiting(caplog: pytest.LogCaptureFixture) -> None:
    # given
    clock = Clock(waits_max=3)
    # when
    with pytest.raises(Stopped, match="Asked to end while waiting: It should answer"):
        Patience(clock).insist(AWAY, Server(10).ask)
    # then
    assert len(clock.waits) == 3


def test_what_ends_the_wait_is_passed_on(clock: Clock) -> None:
    # given somebody who notices, while waiting, that the wait is for nothing
    def notice() -> None:
        raise BadEvent("not_json", "gone")

    # then
    with pytest.raises(BadEvent, match="gone"):
        Patience(clock, meanwhile=notice).insist(AWAY, Server(1).ask)


def test_any_other_error_is_not_waited_for(clock: Clock) -> None:
    def defect() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Patience(clock).insist(AWAY, defect)
    assert clock.waits == []
