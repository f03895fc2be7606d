"""Retries with backoff, logged and counted; no test sleeps, waits are only recorded."""

import logging
import random
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from contract.errors import BadEvent, Unavailable
from worker.ops import metrics
from worker.ops.retry import WAITS, Retry, StopRequested

SERVER_NAME: Final = "test server"


class InstantEvent(threading.Event):
    """An event whose waits are recorded and end at once; it is set after `waits_max` of them."""

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
def reset_gauge() -> Iterator[None]:
    yield
    metrics.WAITING.labels(SERVER_NAME).set(0)


def read_gauge(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"shopstream_{name}", {"server": SERVER_NAME}) or 0.0


def test_an_immediate_answer_causes_no_wait(clock: InstantEvent, caplog: pytest.LogCaptureFixture) -> None:
    assert Retry(clock).call(SERVER_NAME, FlakyServer(0).call) == "here"
    assert (clock.waits, caplog.messages) == ([], [])


def test_failures_and_recovery_are_logged_and_counted(clock: InstantEvent, caplog: pytest.LogCaptureFixture) -> None:
    # given
    retries = read_gauge("retries_total")
    # when
    with caplog.at_level(logging.INFO):
        actual = Retry(clock).call(SERVER_NAME, FlakyServer(2).call)
    # then
    assert actual == "here"
    assert f"Waiting for {SERVER_NAME}" in caplog.messages[0]
    assert "Found 1 failures to come" in caplog.messages[0]
    assert caplog.messages[-1] == f"{SERVER_NAME} answers again."
    assert (read_gauge("retries_total"), read_gauge("waiting")) == (retries + 2, 0)


def test_the_gauge_is_set_during_a_wait(clock: InstantEvent) -> None:
    # given
    seen: list[float] = []
    retry = Retry(clock, on_wait=lambda: seen.append(read_gauge("waiting")))
    # when
    retry.call(SERVER_NAME, FlakyServer(3).call)
    # then
    assert seen == [1, 1, 1]


def test_waits_double_up_to_the_maximum_with_jitter(clock: InstantEvent, seed: int) -> None:
    # when
    Retry(clock, wait_max_s=5.0, rng=random.Random(seed)).call(SERVER_NAME, FlakyServer(12).call)
    # then
    wanted = [min(5.0, 0.05 * 2**n) for n in range(12)]
    assert all(0.5 * w <= wait <= 1.5 * w for w, wait in zip(wanted, clock.waits, strict=True))
    assert wanted[-1] == 5.0


def test_a_stop_request_ends_the_retry(caplog: pytest.LogCaptureFixture) -> None:
    # given
    clock = InstantEvent(waits_max=3)
    # when
    with pytest.raises(StopRequested, match="Asked to end during a retry: It should answer"):
        Retry(clock).call(SERVER_NAME, FlakyServer(10).call)
    # then
    assert len(clock.waits) == 3


def test_an_error_of_the_wait_callback_is_raised(clock: InstantEvent) -> None:
    # given
    def fail() -> None:
        raise BadEvent("not_json", "gone")

    # then
    with pytest.raises(BadEvent, match="gone"):
        Retry(clock, on_wait=fail).call(SERVER_NAME, FlakyServer(1).call)


def test_any_other_error_is_not_retried(clock: InstantEvent) -> None:
    def defect() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Retry(clock).call(SERVER_NAME, defect)
    assert clock.waits == []


def test_a_wait_is_visible_to_other_threads_from_the_first_failure_to_the_end(clock: InstantEvent) -> None:
    seen: list[tuple[float, str]] = []

    def record_waits() -> None:
        seen.extend(WAITS.values())

    outer = Retry(clock, on_wait=record_waits)
    inner = Retry(clock, on_wait=record_waits)
    server = FlakyServer(2)
    # when a retry runs inside another one, for the same server
    outer.call(
        SERVER_NAME, lambda: (FlakyServer(0).call(), server.call(), inner.call(SERVER_NAME, FlakyServer(1).call))
    )

    # then the wait begins with the first failure, and is over with the last
    assert [error[-11:] for _, error in seen] == ["es to come.", "es to come.", "es to come."]
    assert len({since_s for since_s, _ in seen}) == 1
    assert (WAITS, read_gauge("waiting")) == ({}, 0)


def test_a_wait_that_a_stop_ends_is_over(clock: InstantEvent) -> None:
    clock.set()
    with pytest.raises(StopRequested):
        Retry(clock).call(SERVER_NAME, FlakyServer(1).call)

    assert (WAITS, read_gauge("waiting")) == ({}, 0)
