"""Sends source records to Kafka, unpaced or at the speed of their own time."""

import time
from collections import Counter

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings, TopicSettings
from demo.simulator.records import SourceRecord

FLUSH_S = 30.0


class RecordProducer:
    """Sends source records to their topics; `sent_by_kind` counts them."""

    def __init__(self, *, kafka: KafkaSettings, topics: TopicSettings) -> None:
        self.sent_by_kind: Counter[str] = Counter()
        self._topics = topics
        self._errors: list[KafkaError] = []
        self._producer = Producer(
            {
                "linger.ms": 5,
                "compression.type": "lz4",
                "delivery.timeout.ms": int(FLUSH_S * 1000),
                **kafka.connection(),
                "enable.idempotence": True,
                "log_level": 0,  # delivery reports carry the errors
                "error_cb": lambda error: None,
            }
        )

    def send(self, record: SourceRecord) -> None:
        """Enqueue a record; blocks while the queue is full. Raises `Unavailable` if an earlier delivery failed."""
        while True:
            try:
                self._producer.produce(
                    self._topics.topic_name(record.kind),
                    record.value,
                    record.key or None,
                    on_delivery=self._on_delivery,
                )
                break
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise Unavailable(f"Kafka should accept records. Found: {error.args[0].str()}") from error
        self._producer.poll(0)
        self.sent_by_kind[record.kind] += 1
        self._raise_delivery_errors()

    def flush(self) -> None:
        """Wait until every record is on its topic; raises `Unavailable` if one is not."""
        undelivered = self._producer.flush(FLUSH_S)
        self._raise_delivery_errors()
        if undelivered:
            raise Unavailable(
                f"Kafka should acknowledge every record. Found {undelivered} waiting after {FLUSH_S:g} s."
            )

    def _raise_delivery_errors(self) -> None:
        if self._errors:
            raise Unavailable(
                f"Every record should be delivered. Found {len(self._errors)} that were not: "
                f"{self._errors[0].str()} (`python -m worker topics` creates the topics)."
            )

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._errors.append(error)


class ReplayClock:
    """A clock that runs `speed_up` times as fast as the records' own time; 0: never waits."""

    def __init__(self, speed_up: float) -> None:
        self._speed_up = speed_up
        self._start: tuple[float, int] | None = None

    def wait_until(self, ts_ms: int) -> None:
        """Sleep until `ts_ms` is due; the first call starts the clock."""
        if self._speed_up <= 0:
            return
        if self._start is None:
            self._start = time.monotonic(), ts_ms
        start_s, start_ms = self._start
        wait_s = start_s + (ts_ms - start_ms) / 1000 / self._speed_up - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
