"""Retries while Kafka or Redis does not answer: exponential backoff with jitter, without a limit, logged."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from contract.errors import ShopstreamError, Unavailable
from worker.ops import metrics

log = logging.getLogger(__name__)
STOP_TIMEOUT_S: Final = 3.0
T = TypeVar("T")


class StopRequested(ShopstreamError):
    """The process was asked to end during a retry; the batch is not committed and will be read again."""


class Wait(NamedTuple):
    """A wait of this process for a server: since when (monotonic), and the error of the last attempt."""

    since_s: float
    error: str


WAITS: Final[dict[tuple[int, str], Wait]] = {}  # now, by the id of the thread and the server; other threads read it


@dataclass(slots=True)
class Retry:
    """Retries until success or until `stop` is set; waits 0.05 s at first, 5 s at most, with a jitter of 50 %."""

    stop: threading.Event
    on_wait: Callable[[], None] = lambda: None  # called after each wait, such as a heartbeat of the group
    wait_max_s: float = 5.0
    rng: random.Random = field(default_factory=random.Random)

    def bound(self, timeout_s: float) -> float:
        """How long one request may wait for a server that otherwise may take `timeout_s`: less during a shutdown."""
        return min(timeout_s, STOP_TIMEOUT_S) if self.stop.is_set() else timeout_s

    def call(self, server: str, attempt: Callable[[], T]) -> T:
        """The result of `attempt`, retried while it raises `Unavailable`; raises `StopRequested`."""
        try:
            return attempt()
        except Unavailable as error:
            return self._retry(server, attempt, error)

    def _retry(self, server: str, attempt: Callable[[], T], error: Unavailable) -> T:
        wait_s, key = 0.05, (threading.get_ident(), server)
        outer_wait = WAITS.get(key)
        since_s = outer_wait.since_s if outer_wait else time.monotonic()
        metrics.WAITING.labels(server).set(1)
        try:
            while True:
                log.warning("Waiting for %s, next attempt in about %.1f s: %s", server, wait_s, error)
                metrics.RETRIES.labels(server).inc()
                WAITS[key] = Wait(since_s, str(error))
                self._wait(wait_s * self.rng.uniform(0.5, 1.5), error)
                wait_s = min(2 * wait_s, self.wait_max_s)
                try:
                    result = attempt()
                except Unavailable as next_error:
                    error = next_error
                else:
                    log.info("%s answers again.", server)
                    return result
        finally:
            if outer_wait is None:
                del WAITS[key]
                metrics.WAITING.labels(server).set(0)

    def _wait(self, wait_s: float, error: Unavailable) -> None:
        if self.stop.wait(wait_s):
            raise StopRequested(f"Asked to end during a retry: {error}") from error
        self.on_wait()
