"""Produces one lane's traffic and remembers which records the broker has acknowledged."""

from functools import partial
from typing import NamedTuple

from contract.settings.servers import TopicSettings
from testkit.audits.delivery_ledger import BadRecord, DeliveryLedger
from testkit.environment.kafka_log import RecordPosition
from testkit.environment.steady_producer import SteadyProducer
from testkit.traffic.event_generator import Traffic, TrafficRecord

FLUSH_TIMEOUT_S = 60.0


class AcknowledgedRecord(NamedTuple):
    """A record in the log, and its position."""

    record: TrafficRecord
    position: RecordPosition


class TrafficProducer:
    """Sends a lane's events in the requested portions, and at least `total` by the final flush."""

    def __init__(
        self, *, bootstrap: str, topics: TopicSettings, traffic: Traffic, total: int, stamps_event_time: bool = False
    ) -> None:
        """`stamps_event_time`: the records' timestamps follow the clock of `traffic`, not that of this machine."""
        self.traffic, self.total = traffic, total
        self._stamps_event_time = stamps_event_time
        self.event_count = 0
        self.acknowledged: list[AcknowledgedRecord] = []
        self._topics = topics
        settings = {
            "topic.metadata.refresh.interval.ms": 2_000,  # added partitions are written to soon
            "reconnect.backoff.max.ms": 500,
        }
        self._producer = SteadyProducer(bootstrap=bootstrap, settings=settings)

    def send(self, count: int) -> None:
        """Send `count` more orders or clicks and the records that accompany them."""
        for _ in range(count):
            self.event_count += 1
            for record in self.traffic.next_records():
                self.produce(record)
        self._producer.poll()

    def resend(self, count: int) -> None:
        """Send `count` of the last orders or clicks again, as a producer does after a lost acknowledgement."""
        repeated = self.traffic.rng.choices(self.traffic.recent[-20:], k=count)
        for record in repeated:
            self.produce(record)
        self.flush()

    def poll(self) -> None:
        """Serve the acknowledgements that have arrived."""
        self._producer.poll()

    def flush(self) -> None:
        """Send the rest of `total` and wait; raises RuntimeError if a record is not acknowledged."""
        self.send(max(0, self.total - self.event_count))
        waiting = self._producer.flush(FLUSH_TIMEOUT_S)
        if waiting or self._producer.errors:
            raise RuntimeError(
                f"Kafka should take every record. Found {waiting} waiting, and {self._producer.errors[:3]}."
            )

    def fill_ledger(self, ledger: DeliveryLedger) -> None:
        """Record every acknowledged record in the ledger."""
        for record, position in self.acknowledged:
            if record.reason is not None:
                ledger.record_bad_record(position, BadRecord(record.key.encode(), record.value, record.reason))
            elif record.kind == "orders":
                ledger.record_order(record.event_id)
            elif record.kind == "clicks":
                ledger.record_click(record.event_id)

    def produce(self, record: TrafficRecord) -> None:
        """Send one record."""
        self._producer.produce(
            self._topics.topic_name(record.kind),
            record.value,
            record.key,
            timestamp_ms=self.traffic.now_ms() if self._stamps_event_time else 0,
            on_taken=partial(self._on_taken, record),
        )

    def _on_taken(self, record: TrafficRecord, position: RecordPosition) -> None:
        self.acknowledged.append(AcknowledgedRecord(record, position))
