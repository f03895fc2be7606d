"""The demo's door for writing to Kafka: happenings become records, as fast as they go or at the speed of their time."""

import time
from collections import Counter

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contract.errors import Unavailable
from contract.settings import KafkaSettings, TopicSettings
from demo.simulator.records import SourceRecord

FLUSH_S = 30.0


class RecordProducer:
    """Sends happenings to their topics; `sent` counts them by kind."""

    def __init__(self, *, kafka: KafkaSettings, topics: TopicSettings) -> None:
        self.sent_by_kind: Counter[str] = Counter()
        self._topics, self._errors = topics, list[KafkaError]()
        self._producer = Producer(
            {
                "linger.ms": 5,
                "compression.type": "lz4",
                "delivery.timeout.ms": int(FLUSH_S * 1000),
                **kafka.connection(),
                "enable.idempotence": True,
                "log_level": 0,  # what does not arrive is told by its delivery report
                "error_cb": lambda error: None,
            }
        )

    def send(self, record: SourceRecord) -> None:
        """Hand a record over; waits while the queue is full. Raises `Unavailable` for records that did not arrive."""
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
                raise Unavailable(f"Kafka should take records. Found: {error.args[0].str()}") from error
        self._producer.poll(0)
        self.sent_by_kind[record.kind] += 1
        self._raise_delivery_errors()

    def flush(self) -> None:
        """Return once every record is on its topic; raises `Unavailable` for those that are not."""
        undelivered = self._producer.flush(FLUSH_S)
        self._raise_delivery_errors()
        if undelivered:
            raise Unavailable(
                f"Kafka should acknowledge every record. Found {undelivered} waiting after {FLUSH_S:g} s."
            )

    def _raise_delivery_errors(self) -> None:
        if self._errors:
            raise Unavailable(
                f"Every record should arrive on its topic. Found {len(self._errors)} that did not: "
                f"{self._errors[0].str()} (topics are made by `python -m worker topics`)."
            )

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._errors.append(error)


class ReplayClock:
    """Keeps to a clock that runs `speed_up` times as fast as the happenings' own; 0: waits for nothing."""

    def __init__(self, speed_up: float) -> None:
        self._speed_up = speed_up
        self._start: tuple[float, int] | None = None

    def wait_until(self, ts_ms: int) -> None:
        """Return when it is time for `ts_ms`; the first one asked for begins the clock."""
        if self._speed_up <= 0:
            return
        if self._start is None:
            self._start = time.monotonic(), ts_ms
        start_s, start_ms = self._start
        wait_s = start_s + (ts_ms - start_ms) / 1000 / self._speed_up - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
