"""How large a record each topic takes: assumed, and asked for once a record is larger or the broker refuses one."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings

log = logging.getLogger(__name__)
ASSUMED_BYTES: Final = 1_000_000  # the default of librdkafka; brokers take slightly more by default
BYTES_MAX: Final = 64 * 1024 * 1024  # of any record, whatever its topic takes
BYTES_MIN: Final = 500  # below it a limit is not halved
ASK_INTERVAL_S: Final = 5.0


class RecordLimits:
    """The limits of the topics that a producer writes to.

    `fetch` asks the cluster for the limits of topics; it raises `Unavailable`.
    """

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        fetch: Callable[[Iterable[str]], Mapping[str, int]],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch, self._clock_s = fetch, clock_s
        self._assumed_bytes = int(kafka.client.get("message.max.bytes", ASSUMED_BYTES))
        self._batch_bytes = int(kafka.client.get("batch.size", ASSUMED_BYTES))
        self._bytes_by_topic: dict[str, int] = {}
        self._asked_s: dict[str, float] = {}

    def bytes_max(self, topic: str) -> int:
        """The largest record that this topic takes, as far as is known."""
        return self._bytes_by_topic.get(topic, self._assumed_bytes)

    @property
    def smallest(self) -> int:
        """A size that every topic takes."""
        return min(self._assumed_bytes, *self._bytes_by_topic.values(), BYTES_MAX)

    def client_options(self) -> dict[str, Any]:
        """The options of a producer. A batch fits every topic: a broker refuses a larger one with all its records."""
        largest = max(self._assumed_bytes, *self._bytes_by_topic.values(), 0)
        return {"message.max.bytes": largest, "batch.size": min(self._batch_bytes, self.smallest)}

    def ask(self, topic: str) -> None:
        """Ask the cluster for the limit of a topic, at most every few seconds; without an answer keep what is known."""
        now_s = self._clock_s()
        if now_s < self._asked_s.get(topic, -ASK_INTERVAL_S) + ASK_INTERVAL_S:
            return
        self._asked_s[topic] = now_s
        try:
            limits = self._fetch([topic])
        except Unavailable as error:
            log.warning("Assuming that `%s` takes records of %d bytes. %s", topic, self.bytes_max(topic), error)
            return
        for name, bytes_max in limits.items():
            self._set(name, min(bytes_max, BYTES_MAX))

    def lower(self, topic: str) -> None:
        """The broker refused a batch of this topic as too large: ask, and halve a limit that does not explain it."""
        known = self.bytes_max(topic)
        self._asked_s.pop(topic, None)
        self.ask(topic)
        if self.bytes_max(topic) >= known:
            self._set(topic, max(known // 2, BYTES_MIN))

    def _set(self, topic: str, bytes_max: int) -> None:
        if bytes_max != self.bytes_max(topic):
            log.warning("Records of `%s` may have %d bytes from now on.", topic, bytes_max)
        self._bytes_by_topic[topic] = bytes_max
