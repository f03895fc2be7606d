"""Produces events at a steady rate from a thread until it is closed, and records what it has sent."""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import msgspec
from confluent_kafka import Producer

from bench.performance.load.workload import LoadGenerator
from contract.settings.servers import TopicSettings

FLUSH_TIMEOUT_S: Final = 30.0
PAUSE_S: Final = 0.002


class EventId(msgspec.Struct):
    """The id of an event."""

    event_id: str


DECODE_EVENT_ID: Final = msgspec.json.Decoder(EventId).decode


class RateProducer:
    """Sends while it is open. `orders`: event id -> user of each sent order; `clicks`: event ids."""

    def __init__(
        self, *, bootstrap: str, topics: TopicSettings, load: LoadGenerator, rate: float, orders_every: int
    ) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 3})
        self._topics: Mapping[str, str] = {kind: topics.topic_name(kind) for kind in ("clicks", "orders")}
        self._load = load
        self._rate = rate
        self._orders_every = orders_every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rate-producer", daemon=True)
        self.orders = dict[str, str]()
        self.clicks = set[str]()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop sending; raises RuntimeError if Kafka does not acknowledge every event."""
        self._stop.set()
        self._thread.join()
        if waiting := self._producer.flush(FLUSH_TIMEOUT_S):
            raise RuntimeError(f"Kafka should take every event. Found {waiting} waiting.")

    def _run(self) -> None:
        started_s, number = time.monotonic(), 0
        while not self._stop.wait(PAUSE_S):
            while number < (time.monotonic() - started_s) * self._rate:
                number += 1
                self._send(is_order=number % self._orders_every == 0)
            self._producer.poll(0)

    def _send(self, *, is_order: bool) -> None:
        (record,) = self._load.generate(int(not is_order), int(is_order))
        self._producer.produce(self._topics[record.kind], record.value, record.key)
        event_id = DECODE_EVENT_ID(record.value).event_id
        if is_order:
            self.orders[event_id] = record.key
        else:
            self.clicks.add(event_id)
