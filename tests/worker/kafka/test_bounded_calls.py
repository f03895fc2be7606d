"""Calls that do not return are given up, and the batch is published all the same."""

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.worker.environment import WorkerEnvironment
from tests.worker.worker_lifecycle import InProcessWorker
from worker.kafka.bounded_calls import JOB_THREAD, BoundedCalls, CallAbandoned


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set at the end of the test, so that no thread is left behind."""
    event = threading.Event()
    yield event
    event.set()


def fail() -> None:
    raise ValueError("as the call says")


def test_a_call_returns_or_raises_as_it_would_without_a_bound() -> None:
    calls, done = BoundedCalls(timeout_s=60), list[int]()

    calls.run(lambda: done.append(1))
    with pytest.raises(ValueError, match="as the call says"):
        calls.run(fail)

    assert done == [1]
    calls.close()


def test_a_call_that_does_not_return_is_abandoned_and_the_next_one_runs(release: threading.Event) -> None:
    # given
    calls, done = BoundedCalls(timeout_s=0.05), list[int]()
    others = set(threading.enumerate())
    # when
    with pytest.raises(CallAbandoned, match="should return in"):
        calls.run(release.wait)
    # then
    calls.run(lambda: done.append(1))
    assert done == [1]
    # and the thread of the abandoned call ends with it
    abandoned = [thread for thread in set(threading.enumerate()) - others if thread.name == JOB_THREAD]
    calls.close()
    release.set()
    for thread in abandoned:
        thread.join(60)
        assert not thread.is_alive()


def test_orders_are_decided_once_when_the_client_never_returns_from_sending_offsets(
    apache_stage: WorkerEnvironment, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a client whose third call does not return
    run, count = BoundedCalls.run, 0

    def run_or_hang(self: BoundedCalls, call: Callable[[], object]) -> None:
        nonlocal count
        count += 1
        if count == 3:
            call()  # sent, and the client has not heard of it
            raise CallAbandoned("The Kafka client should return. Found no answer.")
        run(self, call)

    monkeypatch.setattr(BoundedCalls, "run", run_or_hang)
    orders = apache_stage.send_orders(seed, 60)
    # when
    with InProcessWorker(apache_stage) as worker:
        worker.process_all(apache_stage.end_offsets("orders"))
    # then
    assert count > 3
    assert apache_stage.is_decided_once(orders)
