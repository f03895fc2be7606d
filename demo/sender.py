"""The demo's door for writing to Kafka: happenings become records, as fast as they go or at the speed of their time."""

import time
from collections import Counter

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contract.errors import Unavailable
from contract.settings import Kafka, Topics
from demo.happenings import Happening

FLUSH_S = 30.0


class Sender:
    """Sends happenings to their topics; `sent` counts them by kind."""

    def __init__(self, *, kafka: Kafka, topics: Topics) -> None:
        self.sent: Counter[str] = Counter()
        self._topics, self._failed = topics, list[KafkaError]()
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

    def send(self, happening: Happening) -> None:
        """Hand a record over; waits while the queue is full. Raises `Unavailable` for records that did not arrive."""
        while True:
            try:
                self._producer.produce(
                    self._topics.of(happening.kind),
                    happening.value,
                    happening.key or None,
                    on_delivery=self._on_delivery,
                )
                break
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise Unavailable(f"Kafka should take records. Found: {error.args[0].str()}") from error
        self._producer.poll(0)
        self.sent[happening.kind] += 1
        self._check()

    def flush(self) -> None:
        """Return once every record is on its topic; raises `Unavailable` for those that are not."""
        waiting = self._producer.flush(FLUSH_S)
        self._check()
        if waiting:
            raise Unavailable(f"Kafka should acknowledge every record. Found {waiting} waiting after {FLUSH_S:g} s.")

    def _check(self) -> None:
        if self._failed:
            raise Unavailable(
                f"Every record should arrive on its topic. Found {len(self._failed)} that did not: "
                f"{self._failed[0].str()} (topics are made by `python -m worker topics`)."
            )

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(error)


class Pace:
    """Keeps to a clock that runs `speed_up` times as fast as the happenings' own; 0: waits for nothing."""

    def __init__(self, speed_up: float) -> None:
        self._speed_up = speed_up
        self._begun: tuple[float, int] | None = None

    def wait(self, ts_ms: int) -> None:
        """Return when it is time for `ts_ms`; the first one asked for begins the clock."""
        if self._speed_up <= 0:
            return
        if self._begun is None:
            self._begun = time.monotonic(), ts_ms
        begun_s, begun_ms = self._begun
        wait_s = begun_s + (ts_ms - begun_ms) / 1000 / self._speed_up - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
