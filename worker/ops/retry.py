"""Patience: what to do while Kafka or Redis does not answer. Pause, try again with backoff, drop nothing, say so."""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from contract.errors import ShopstreamError, Unavailable
from worker.ops import metrics

log = logging.getLogger(__name__)
T = TypeVar("T")


class StopRequested(ShopstreamError):
    """The process was asked to end while it waited; what was in hand is not committed and will be read again."""


@dataclass(slots=True)
class Retry:
    """Tries again until it works or `stop` is set; waits 0.05 s at first, 5 s at most, give or take a half."""

    stop: threading.Event
    on_wait: Callable[[], None] = lambda: None  # kept up while waiting, such as a membership in a consumer group
    wait_max_s: float = 5.0
    rng: random.Random = field(default_factory=random.Random)

    def call(self, server: str, attempt: Callable[[], T]) -> T:
        """The result of `attempt`, however long `server` makes it wait; raises `Stopped` if the process is to end."""
        wait_s, has_waited = 0.05, False
        while True:
            try:
                result = attempt()
            except Unavailable as error:
                log.warning("Waiting for %s, trying again in about %.1f s: %s", server, wait_s, error)
                has_waited = True
                metrics.RETRIES.labels(server).inc()
                metrics.WAITING.labels(server).set(1)
                self._wait(wait_s * self.rng.uniform(0.5, 1.5), error)
                wait_s = min(2 * wait_s, self.wait_max_s)
            else:
                if has_waited:
                    log.warning("%s answers again; going on.", server)
                    metrics.WAITING.labels(server).set(0)
                return result

    def _wait(self, wait_s: float, error: Unavailable) -> None:
        if self.stop.wait(wait_s):
            raise StopRequested(f"Asked to end while waiting: {error}") from error
        self.on_wait()
