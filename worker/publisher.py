"""The door through which answers go out: publish and commit, by default as one transaction.

Readers of committed records then see each answer exactly once, even if this process dies in between. Without
transactions the records are acknowledged first and the positions committed after: a death in between repeats answers.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from contract.errors import ShopstreamError, Unavailable
from contract.settings import Kafka
from worker.intake import NO_NOTES, Headers, Intake, Place
from worker.patience import Patience
from worker.step import StepMark
from worker.stopwatch import STOPWATCH

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0


class Outgoing(NamedTuple):
    """One record to be written."""

    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: Headers = ()


class Aborted(ShopstreamError):
    """A transaction that came to nothing: the same records are published anew."""


class Publisher:
    """Writes a batch's records and moves its positions. `transactional_id` None: without transactions.

    Transactions take turns between two producers: for some milliseconds after a commit the coordinator still writes
    its markers and lets the same producer begin nothing, and the client asks again only after 20 ms.
    """

    def __init__(self, *, kafka: Kafka, transactional_id: str | None, patience: Patience, step: StepMark) -> None:
        self._ids = (None,) if transactional_id is None else (transactional_id, f"{transactional_id}+")
        self._configuration: dict[str, Any] = {
            "linger.ms": 2,
            "compression.type": "lz4",
            "enable.idempotence": True,
            **kafka.connection(),
            "delivery.report.only.error": True,  # with a flush this proves the same as a report of each record
            "on_delivery": self._on_delivery,
            "log_level": 3,
            "error_cb": lambda error: None,  # the intake tells of brokers that are away, once
        }
        self._patience, self._step = patience, step
        self._failed: list[KafkaError] = []
        self._begun, self._sent = False, 0  # records of what is begun that are on their way
        self._producers, self._turn = [self._open(ident) for ident in self._ids], 0

    @property
    def _producer(self) -> Producer:
        return self._producers[self._turn]

    @property
    def _transactional(self) -> bool:
        return self._ids[self._turn] is not None

    def send(self, records: Sequence[Outgoing]) -> None:
        """Send what `publish` will be given first: it travels while the rest is made, and is nothing before that."""
        try:
            if records:
                self._begin()
                self._produce(records)
        except Aborted:
            self._patience.insist("kafka", self._reset)  # all of it goes with the rest

    def publish(
        self,
        records: Sequence[Outgoing],
        positions: Mapping[Place, int],
        intake: Intake,
        notes: Mapping[Place, str] = NO_NOTES,
    ) -> None:
        """Write all records and commit `positions`; returns when both are done, however long Kafka makes it wait.

        `notes` are stored with their positions, and read with them: `Intake.held`.
        """
        self._patience.insist("kafka", lambda: self._attempt(records, positions, intake, notes))

    def take_over(self) -> None:
        """Become the only one who writes under this name: what others have begun under it is over when this returns."""
        for producer in self._producers:
            producer.purge()
        self._producers = [self._open(ident) for ident in self._ids]
        self._begun = False

    def abandon(self) -> None:
        """Take back what was begun and will not be finished, because the batch in hand is dropped."""
        if self._begun:
            self._patience.insist("kafka", self._reset)

    def close(self) -> None:
        for producer in self._producers:
            producer.purge()
            producer.flush(1)

    def _attempt(
        self, records: Sequence[Outgoing], positions: Mapping[Place, int], intake: Intake, notes: Mapping[Place, str]
    ) -> None:
        """Publish once. What comes to nothing is waited for like a server that is away.

        For the reason may be that this member lost its partitions, which it learns only while it waits.
        """
        try:
            (self._transact if self._transactional else self._acknowledge)(records, positions, intake, notes)
        except Aborted as error:
            self._patience.insist("kafka", self._reset)
            raise Unavailable(
                f"Kafka should take the batch in hand, which is published anew. Found: {error}"
            ) from error

    def _transact(
        self, records: Sequence[Outgoing], positions: Mapping[Place, int], intake: Intake, notes: Mapping[Place, str]
    ) -> None:
        self._begin()
        with STOPWATCH("publish produce"):
            self._produce(records)
        offsets = [TopicPartition(*place, at, metadata=notes.get(place, "")) for place, at in positions.items()]
        membership = intake.membership()
        with STOPWATCH("publish offsets"):  # while records travel
            self._insist(lambda: self._producer.send_offsets_to_transaction(offsets, membership, TIMEOUT_S))
        with STOPWATCH("publish flush"):
            self._patience.insist("kafka", self._flush)
        self._step("commit")
        with STOPWATCH("publish commit"):
            self._insist(lambda: self._producer.commit_transaction(TIMEOUT_S))
        self._begun, self._turn = False, (self._turn + 1) % len(self._producers)

    def _acknowledge(
        self, records: Sequence[Outgoing], positions: Mapping[Place, int], intake: Intake, notes: Mapping[Place, str]
    ) -> None:
        self._begin()
        self._produce(records)
        self._patience.insist("kafka", self._flush)
        if self._failed:
            raise Aborted(
                f"Every record should be acknowledged. Found {len(self._failed)} failed: {self._failed[0].str()}"
            )
        self._step("commit")
        self._patience.insist("kafka", lambda: intake.commit(positions, notes))
        self._begun = False

    def _begin(self) -> None:
        if self._begun:
            return
        self._failed.clear()
        if self._transactional:
            self._insist(self._producer.begin_transaction)
        self._begun, self._sent = True, 0

    def _produce(self, records: Sequence[Outgoing]) -> None:
        """Hand over those that are not on their way yet."""
        produce = self._producer.produce
        with aborting("take records"):
            for topic, key, value, headers in records[self._sent :]:
                while True:
                    try:
                        produce(topic, value, key, headers=list(headers))
                        break
                    except BufferError:
                        self._producer.poll(0.1)  # the queue is full: let some of it go out
                self._sent += 1

    def _flush(self) -> None:
        with aborting("acknowledge a batch"):
            waiting = self._producer.flush(TIMEOUT_S)
        if waiting:
            raise Unavailable(f"Kafka should acknowledge a batch. Found {waiting} records waiting.")

    def _on_delivery(self, error: KafkaError, _: Message) -> None:
        self._failed.append(error)

    def _insist(self, call: Any) -> None:
        self._patience.insist("kafka", lambda: self._do(call))

    def _do(self, call: Any) -> None:
        """One step of a transaction, its failure by what has to follow."""
        try:
            call()
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            if error.retriable() and not error.txn_requires_abort() and not error.fatal():
                raise Unavailable(f"Kafka should carry the transaction on. Found: {error.str()}") from failure
            raise Aborted(f"A transaction should end well. Found: {error.str()}") from failure

    def _reset(self) -> None:
        """Make the producer fit to publish again: abort what is open, or open a new one where it is beyond that.

        A transaction that took too long fences its producer just as a second process under this name would. Which of
        the two it was, the intake knows: a member that another one replaced can neither commit nor poll.
        """
        if not self._transactional:
            self._producer.purge()
            self._begun = False
            return
        try:
            self._producer.abort_transaction(TIMEOUT_S)
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            if error.retriable() and not error.fatal():
                raise Unavailable(f"Kafka should abort a transaction. Found: {error.str()}") from failure
            log.warning("The producer is beyond use, opening another: %s", error.str())
            self._producer.purge()
            self._producers[self._turn] = self._open(self._ids[self._turn])
        self._begun = False

    def _open(self, transactional_id: str | None) -> Producer:
        named = {} if transactional_id is None else {"transactional.id": transactional_id}
        producer = Producer({**self._configuration, **named})
        if named:
            self._patience.insist("kafka", lambda: self._do(lambda: producer.init_transactions(TIMEOUT_S)))
        return producer


@contextmanager
def aborting(what: str) -> Iterator[None]:
    """What the client raises here is fatal to the producer; it is a SystemError where a delivery report came first."""
    try:
        yield
    except (KafkaException, SystemError) as error:
        raise Aborted(f"Kafka should {what}. Found: {error}") from error
