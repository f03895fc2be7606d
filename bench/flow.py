"""One lane's traffic on its way into Kafka, with a memory of what the broker has acknowledged."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from bench.guarantee import BadRecord, GuaranteeLedger, Place
from bench.traffic import Sent, Traffic
from contract.settings import TopicSettings

FLUSH_S = 60.0


class Acknowledged(NamedTuple):
    """A record that lies in the log, and where."""

    sent: Sent
    place: Place


class Flow:
    """Sends a lane's events in portions: as many as asked for, `total` in the end."""

    def __init__(self, *, bootstrap: str, topics: TopicSettings, traffic: Traffic, total: int) -> None:
        self.traffic, self.total = traffic, total
        self.events = 0
        self.acknowledged: list[Acknowledged] = []
        self._topics = topics
        self._unsent: list[str] = []
        settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 1, "log_level": 0}
        self._producer = Producer(settings)

    def send(self, count: int) -> None:
        """Send this many more orders or clicks, and what goes along with them."""
        for _ in range(count):
            self.events += 1
            for sent in self.traffic.next():
                report: Callable[[KafkaError | None, Message], None] = partial(self._on_delivery, sent)
                self._producer.produce(self._topics.topic_name(sent.kind), sent.value, sent.key, on_delivery=report)
        self._producer.poll(0)

    def repeat(self, count: int) -> None:
        """Send some of the last orders or clicks again, as a producer does that got no answer."""
        again = self.traffic.rng.choices(self.traffic.main[-20:], k=count)
        for sent in again:
            report: Callable[[KafkaError | None, Message], None] = partial(self._on_delivery, sent)
            self._producer.produce(self._topics.topic_name(sent.kind), sent.value, sent.key, on_delivery=report)
        self.finish()

    def finish(self) -> None:
        """Send the rest and wait until everything lies in the log; raises RuntimeError if something does not."""
        self.send(max(0, self.total - self.events))
        waiting = self._producer.flush(FLUSH_S)
        if waiting or self._unsent:
            raise RuntimeError(f"Kafka should take every record. Found {waiting} waiting, and {self._unsent[:3]}.")

    def tell(self, ledger: GuaranteeLedger) -> None:
        """Tell the ledger of all that was acknowledged."""
        for sent, place in self.acknowledged:
            if sent.reason is not None:
                ledger.spoiled(place, BadRecord(sent.key.encode(), sent.value, sent.reason))
            elif sent.kind == "orders":
                ledger.ordered(sent.event_id)
            elif sent.kind == "clicks":
                ledger.clicked(sent.event_id)

    def _on_delivery(self, sent: Sent, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._unsent.append(error.str())
            return
        place = Place(message.topic() or "", message.partition() or 0, message.offset() or 0)
        self.acknowledged.append(Acknowledged(sent, place))
