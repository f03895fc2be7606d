"""Calls into the Kafka client that are given up after a time, because the client does not keep its own.

librdkafka's `send_offsets_to_transaction` never checks its time-out while it waits for the coordinator of the group: a
broker that goes away at that moment leaves the call waiting, also after the broker is back.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final, TypeAlias

from contract.errors import ShopstreamError

Job: TypeAlias = tuple[Callable[[], object], "Future[object]"]
JOB_THREAD: Final = "kafka calls"


class CallAbandoned(ShopstreamError):
    """A call did not return in time; it may still be running, so what it acts on cannot be used any more."""


class BoundedCalls:
    """Runs one call at a time in a thread of its own, which is left behind if a call does not return."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._jobs: SimpleQueue[Job | None] | None = None

    def run(self, call: Callable[[], object]) -> None:
        """Return when `call` has returned, or raise what it raises; `CallAbandoned` after the time-out."""
        future: Future[object] = Future()
        if self._jobs is None:
            self._jobs = self._start_thread()
        self._jobs.put((call, future))
        try:
            future.result(self._timeout_s)
        except TimeoutError as error:
            self.close()
            raise CallAbandoned(f"The Kafka client should return in {self._timeout_s:g} s. Found no answer.") from error

    def close(self) -> None:
        """Let the thread end after its present call."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None

    @staticmethod
    def _start_thread() -> "SimpleQueue[Job | None]":
        jobs: SimpleQueue[Job | None] = SimpleQueue()
        threading.Thread(target=run_jobs, args=(jobs,), name=JOB_THREAD, daemon=True).start()
        return jobs


def run_jobs(jobs: "SimpleQueue[Job | None]") -> None:
    while (job := jobs.get()) is not None:
        call, future = job
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        del job, call, future  # an abandoned producer is freed here, once its call has returned
