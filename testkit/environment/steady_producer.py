"""A producer that outlives a client that has lost all its brokers, and still knows exactly which records Kafka took."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import make_admin_client
from devservers.librdkafka import SILENT
from testkit.environment.kafka_log import RecordPosition
from transport.log_reader import LogReader
from transport.records import as_bytes

SILENCE_S: Final = 20.0
CHECK_S: Final = 2.0
POLL_S: Final = 0.5
ANY_PARTITION: Final = -1
PURGED: Final = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
# Of records for a partition that vanished; the last is of those that a thread of the client was about to send.
MISSING: Final = (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError._DESTROY)
OnTaken = Callable[[RecordPosition], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnconfirmedRecord:
    """A record that was sent and not acknowledged yet; `timestamp_ms` tells equal ones apart."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    partition: int
    timestamp_ms: int
    on_taken: OnTaken

    @property
    def content(self) -> tuple[object, ...]:
        return self.topic, self.key, self.value, self.timestamp_ms


class SteadyProducer:
    """Sends records in order, and replaces its client when nothing was acknowledged for `silence_s`.

    A client forgets its brokers permanently when the cluster lists none, as after a pause of a lone broker; one whose
    topic was recreated may wait for a leader until its records time out. Of its records those found on the topics are
    taken, the others are sent again. `errors`: of records that will not be taken.
    """

    def __init__(
        self, *, bootstrap: str, settings: Mapping[str, Any] | None = None, silence_s: float = SILENCE_S
    ) -> None:
        self.errors: list[str] = []
        self.clients = 0
        self._bootstrap, self._silence_s = bootstrap, silence_s
        # Else a batch that is sent again follows later ones, also those of a partition's new leader.
        order = {"max.in.flight.requests.per.connection": 1, "enable.idempotence": True}
        self._settings = {"bootstrap.servers": bootstrap, "linger.ms": 1, **order, **SILENT, **(settings or {})}
        self._numbers = itertools.count()
        self._unconfirmed: dict[int, UnconfirmedRecord] = {}
        self._taken: set[tuple[RecordPosition, int]] = set()
        self._check_due_s = 0.0  # while records are unconfirmed
        self._answered = False  # the broker, at the last check
        self._holds = False  # records, until the next client could read the topics
        self._client = self._create_client()

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: str | None,
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = ANY_PARTITION,
        timestamp_ms: int = 0,
        on_taken: OnTaken = lambda _: None,
    ) -> None:
        """Send a record; `timestamp_ms` 0: the current time. `on_taken` is called by `poll` and `flush`."""
        if not self._unconfirmed:
            self._postpone_check()
        record = UnconfirmedRecord(
            topic=topic,
            key=as_bytes(key),
            value=value,
            headers=list(headers),
            partition=partition,
            timestamp_ms=timestamp_ms or time.time_ns() // 1_000_000,
            on_taken=on_taken,
        )
        number = next(self._numbers)
        self._send(number, record)
        self._unconfirmed[number] = record

    def poll(self, timeout_s: float = 0.0) -> None:
        """Serve the acknowledgements that have arrived; blocks longer only while it replaces its client."""
        self._client.poll(timeout_s)
        if self._unconfirmed and time.monotonic() > self._check_due_s:
            self._check()

    def flush(self, timeout_s: float) -> int:
        """Wait until every record is taken or failed; returns how many are still unconfirmed."""
        deadline_s = time.monotonic() + timeout_s
        while self._unconfirmed and time.monotonic() < deadline_s:
            self._client.flush(POLL_S)
            self.poll()
        return len(self._unconfirmed)

    def close(self) -> None:
        self._close_client()

    def _create_client(self) -> Producer:
        self.clients += 1
        return Producer(self._settings)

    def _send(self, number: int, record: UnconfirmedRecord) -> None:
        """Hand a record to the client, unless it refuses one of a topic that it last saw missing.

        That one and all later ones are held for the next client. To ask for the topic here would wait for brokers that
        the caller may be about to start.
        """
        if self._holds:
            return
        try:
            self._hand_over(number, record)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._UNKNOWN_TOPIC:
                raise
            self._holds = True
            self._check_due_s, self._answered = 0.0, True

    def _hand_over(self, number: int, record: UnconfirmedRecord) -> None:
        self._client.produce(
            record.topic,
            record.value,
            record.key,
            headers=list(record.headers),
            partition=record.partition,
            timestamp=record.timestamp_ms,
            on_delivery=partial(self._on_delivery, number),
        )

    def _on_delivery(self, number: int, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._postpone_check()
            position = RecordPosition(message.topic() or "", message.partition() or 0, message.offset() or 0)
            self._confirm(number, position)
        elif error.code() in PURGED:
            pass  # sent again by the next client
        elif error.code() == KafkaError._MSG_TIMED_OUT:  # it may have been taken: the next client looks for it
            self._check_due_s, self._answered = 0.0, True
        elif error.code() in MISSING and (record := self._unconfirmed[number]).partition == ANY_PARTITION:
            self._send(number, record)  # the topic was recreated, maybe with fewer partitions: no topic has the record
        else:
            self.errors.append(error.str())
            del self._unconfirmed[number]

    def _confirm(self, number: int, position: RecordPosition) -> None:
        record = self._unconfirmed.pop(number)
        self._taken.add((position, record.timestamp_ms))
        record.on_taken(position)

    def _postpone_check(self) -> None:
        self._check_due_s, self._answered = time.monotonic() + self._silence_s, False

    def _check(self) -> None:
        """Replace the client where the broker answers others; one that has just come back gets another moment."""
        self._check_due_s = time.monotonic() + min(CHECK_S, self._silence_s)
        try:
            answers = bool(make_admin_client(self._bootstrap).list_topics(timeout=1).brokers)
        except KafkaException:
            answers = False
        if answers and self._answered:
            self._replace_client()
        self._answered = answers

    def _replace_client(self) -> None:
        """The old client sends nothing more before the topics are read, so that no record can appear there later."""
        self._close_client()
        self._client, self._holds = self._create_client(), True
        try:
            positions = list(self._find_on_topics())
        except Unavailable:  # the next check tries again
            return
        self._holds = False
        for number, position in positions:
            self._confirm(number, position)
        for number, record in self._unconfirmed.items():
            self._send(number, record)
        if not self._holds:
            self._postpone_check()

    def _close_client(self) -> None:
        """Drop what the client still holds: its own `close` waits for each record until that times out.

        A request that fails between `purge` and `flush` puts its records back into the queue.
        """
        while len(self._client):
            self._client.purge()
            self._client.flush(POLL_S)
        self._client.close()

    def _find_on_topics(self) -> Iterator[tuple[int, RecordPosition]]:
        """The unconfirmed records that Kafka has taken."""
        wanted: dict[tuple[object, ...], list[int]] = {}
        for number, record in self._unconfirmed.items():
            wanted.setdefault(record.content, []).append(number)
        topics = {record.topic for record in self._unconfirmed.values()}
        with closing(LogReader(kafka=KafkaSettings(bootstrap_servers=self._bootstrap), skips_gaps=True)) as reader:
            ends = {partition: offsets.high for partition, offsets in reader.fetch_offset_ranges(topics).items()}
            for taken in itertools.chain.from_iterable(reader.read(ends)):
                position = RecordPosition(*taken.topic_partition, taken.offset)
                numbers = wanted.get((position.topic, taken.key, taken.value, taken.kafka_ms))
                if numbers and (position, taken.kafka_ms) not in self._taken:
                    yield numbers.pop(0), position
