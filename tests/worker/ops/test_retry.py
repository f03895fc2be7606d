"""Patience: a server that is away is waited for, with a word about it; nobody sleeps here, waits are only noted."""

import logging
import random
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from contract.errors import BadEvent, Unavailable
from worker.ops import metrics
from worker.ops.retry import Retry, StopRequested

SERVER_NAME: Final = "a server of this test"


class InstantEvent(threading.Event):
    """An event whose waits end at once and are remembered; it is set when so many have passed."""

    def __init__(self, waits_max: int = 1_000) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._waits_max = waits_max

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return self.is_set() or len(self.waits) >= self._waits_max


class FlakyServer:
    """Answers "here" after some failures."""

    def __init__(self, failures: int) -> None:
        self.failures_left = failures

    def call(self) -> str:
        self.failures_left -= 1
        if self.failures_left >= 0:
            raise Unavailable(f"It should answer. Found {self.failures_left} failures to come.")
        return "here"


@pytest.fixture
def clock() -> InstantEvent:
    return InstantEvent()


@pytest.fixture(autouse=True)
def shown() -> Iterator[None]:
    yield
    metrics.WAITING.labels(SERVER_NAME).set(0)


def read_gauge(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"shopstream_{name}", {"server": SERVER_NAME}) or 0.0


def test_what_answers_at_once_is_not_waited_for(clock: InstantEvent, caplog: pytest.LogCaptureFixture) -> None:
    assert Retry(clock).call(SERVER_NAME, FlakyServer(0).call) == "here"
    assert (clock.waits, caplog.messages) == ([], [])


def test_it_says_what_it_waits_for_and_that_it_goes_on(clock: InstantEvent, caplog: pytest.LogCaptureFixture) -> None:
    # given
    retries = read_gauge("retries_total")
    # when
    with caplog.at_level(logging.WARNING):
        actual = Retry(clock).call(SERVER_NAME, FlakyServer(2).call)
    # then
    assert actual == "here"
    assert f"Waiting for {SERVER_NAME}" in caplog.messages[0]
    assert "Found 1 failures to come" in caplog.messages[0]
    assert caplog.messages[-1] == f"{SERVER_NAME} answers again; going on."
    assert (read_gauge("retries_total"), read_gauge("waiting")) == (retries + 2, 0)


def test_while_it_waits_the_metric_shows_it(clock: InstantEvent) -> None:
    # given
    seen: list[float] = []
    patience = Retry(clock, on_wait=lambda: seen.append(read_gauge("waiting")))
    # when
    patience.call(SERVER_NAME, FlakyServer(3).call)
    # then
    assert seen == [1, 1, 1]


def test_waits_double_up_to_the_longest_give_or_take_a_half(clock: InstantEvent, seed: int) -> None:
    # when
    Retry(clock, wait_max_s=5.0, rng=random.Random(seed)).call(SERVER_NAME, FlakyServer(12).call)
    # then
    wanted = [min(5.0, 0.05 * 2**n) for n in range(12)]
    assert all(0.5 * w <= found <= 1.5 * w for w, found in zip(wanted, clock.waits, strict=True))
    assert wanted[-1] == 5.0


def test_a_process_that_is_to_end_stops_waiting(caplog: pytest.LogCaptureFixture) -> None:
    # given
    clock = InstantEvent(waits_max=3)
    # when
    with pytest.raises(StopRequested, match="Asked to end while waiting: It should answer"):
        Retry(clock).call(SERVER_NAME, FlakyServer(10).call)
    # then
    assert len(clock.waits) == 3


def test_what_ends_the_wait_is_passed_on(clock: InstantEvent) -> None:
    # given somebody who notices, while waiting, that the wait is for nothing
    def notice() -> None:
        raise BadEvent("not_json", "gone")

    # then
    with pytest.raises(BadEvent, match="gone"):
        Retry(clock, on_wait=notice).call(SERVER_NAME, FlakyServer(1).call)


def test_any_other_error_is_not_waited_for(clock: InstantEvent) -> None:
    def defect() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Retry(clock).call(SERVER_NAME, defect)
    assert clock.waits == []
