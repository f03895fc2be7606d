"""Sends odd and good records, in batches of every compression, and tells what is owed for those that Kafka takes."""

import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from bench.guarantees.poison.documents import make_fields, write_object
from bench.guarantees.poison.expectations import Expectations
from bench.guarantees.poison.record_forms import OddRecord
from testkit.environment.kafka_log import RecordPosition
from testkit.environment.run_environment import RunEnvironment

COMPRESSIONS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
USERS: Final = 500
POLL_S: Final = 0.05
FLUSH_TIMEOUT_S: Final = 300.0


class Sender:
    """Producers of one run; `refused`: the records that Kafka has not taken."""

    def __init__(self, environment: RunEnvironment, expectations: Expectations, report: Callable[[str], None]) -> None:
        self._topics, self._expectations, self._report = environment.topics, expectations, report
        settings = {"bootstrap.servers": environment.kafka.bootstrap, "enable.idempotence": True, "linger.ms": 5}
        self._producers = [Producer({**settings, "compression.type": name}) for name in COMPRESSIONS]
        self._next_producers = cycle(self._producers)
        self._number = 0
        self.refused = 0

    def make_good(self, kind: str, **texts: str) -> OddRecord:
        """A good event of a user of its own, with some fields that hold these texts."""
        self._number += 1
        event_id, user_id = f"good-{kind}-{self._number}", f"good-{self._number % USERS}"
        fields = make_fields(kind, event_id)
        own = {"user_id": user_id, **texts}
        fields |= {name: f'"{text}"'.encode() for name, text in own.items() if name in fields}
        if kind == "orders":
            self._expectations.good_orders.add(event_id)
        return OddRecord("a good event", kind, texts.get("item_id", user_id).encode(), write_object(fields))

    def send(self, record: OddRecord) -> None:
        """Send a record, at its own time if that has passed: a broker refuses later ones with their whole batch."""
        arguments: dict[str, Any] = {"headers": list(record.headers)} if record.headers else {}
        if 0 < record.timestamp_ms < time.time() * 1_000:
            arguments["timestamp"] = record.timestamp_ms
        topic, producer = self._topics.topic_name(record.kind), next(self._next_producers)
        while True:
            try:
                producer.produce(
                    topic, record.value, record.key, on_delivery=partial(self._on_delivery, record), **arguments
                )
                break
            except BufferError:
                producer.poll(POLL_S)
        producer.poll(0)

    def flush(self) -> None:
        """Wait until Kafka has taken or refused every record; raises RuntimeError."""
        if waiting := sum(producer.flush(FLUSH_TIMEOUT_S) for producer in self._producers):
            raise RuntimeError(f"Kafka should take every record. Found {waiting} waiting.")

    def _on_delivery(self, record: OddRecord, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.refused += 1
            self._report(f"Kafka refused {record.kind}, {record.form}: {error}")
            return
        position = RecordPosition(message.topic() or "", message.partition() or 0, message.offset() or 0)
        self._expectations.add(position, record, message.timestamp()[1])
