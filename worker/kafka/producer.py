"""The producer: publishes a batch's records and commits its offsets, by default in one transaction.

Readers of committed records then see each answer exactly once, even if this process crashes in between. Without
transactions the records are acknowledged first and the offsets committed after: a crash in between repeats answers.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import ShopstreamError, Unavailable
from contract.settings.servers import KafkaSettings
from transport.records import NO_METADATA, TopicPartition, as_bytes
from worker.kafka.admin import KafkaAdmin
from worker.kafka.bounded_calls import BoundedCalls, CallAbandoned
from worker.kafka.consumer import GroupConsumer
from worker.kafka.outgoing import OutgoingRecord
from worker.kafka.record_limits import RecordLimits
from worker.kafka.refused_records import FailedDelivery, RecordRefused, RefusedRecords, describe_missing_topics
from worker.ops.retry import Retry
from worker.ops.steps import PROFILER, Step, StepMarker

log = logging.getLogger(__name__)
client_log = logging.getLogger("librdkafka")  # of its own threads; written when this client polls
TIMEOUT_S: Final = 10.0
DISCARD_S: Final = 1.0
TRANSACTION_MS_MIN: Final = 20_000  # a batch outlives a short absence of the broker
SEND_OFFSETS_S: Final = 5.0
ABORT_S: Final = 30.0  # like a consumer, the client may have no broker any more
ABANDON_S: Final = SEND_OFFSETS_S + 2.0  # the client does not always keep that time-out


class TransactionAborted(ShopstreamError):
    """A transaction failed: the same records are published again."""


class TransactionalProducer:
    """Publishes records and commits offsets. `transactional_id` None: without transactions.

    Transactions alternate between two producers: for some milliseconds after a commit the coordinator still writes its
    markers and refuses a new transaction of the same producer, and the client retries only after 20 ms.
    """

    def __init__(
        self, *, kafka: KafkaSettings, transactional_id: str | None, retry: Retry, step_marker: StepMarker
    ) -> None:
        self._transactional_ids = (None,) if transactional_id is None else (transactional_id, f"{transactional_id}+")
        self._configuration: dict[str, Any] = {
            "linger.ms": 2,
            "compression.type": "lz4",
            "enable.idempotence": True,
            # The offsets in the open transaction of a dead worker hold the next owner of its partitions back: no longer
            # than its membership did.
            "transaction.timeout.ms": max(kafka.session_timeout_ms, TRANSACTION_MS_MIN),
            **kafka.connection(),
            "delivery.report.only.error": True,  # together with a flush as good as a report of each record
            "on_delivery": self._on_delivery,
            "log_level": 3,
            "error_cb": lambda error: None,  # the consumer reports unreachable brokers, once
        }
        self._retry, self._mark_step = retry, step_marker
        self._limits = RecordLimits(
            kafka=kafka, fetch=lambda topics: KafkaAdmin(kafka=kafka).fetch_record_limits(topics)
        )
        self._refused = RefusedRecords(self._limits)
        self._failures: list[FailedDelivery] = []
        self._has_begun, self._sent_count = False, 0  # of the open transaction: the records that the client has
        self._producers = [self._create_producer(ident) for ident in self._transactional_ids]
        self._options = [self._limits.client_options() for _ in self._producers]
        self._current = 0
        self._abort_due_s: float | None = None  # while an abort does not succeed
        self._bounded_calls, self._is_abandoned = BoundedCalls(timeout_s=ABANDON_S), False

    @property
    def _producer(self) -> Producer:
        return self._producers[self._current]

    @property
    def _is_transactional(self) -> bool:
        return self._transactional_ids[self._current] is not None

    def send(self, records: Sequence[OutgoingRecord]) -> None:
        """Send the first records of the next `publish`, to overlap with scoring; invisible before its commit."""
        try:
            if records:
                self._begin()
                self._produce(records)
        except TransactionAborted:
            self._retry.call("kafka", self._reset)  # `publish` sends them again

    def publish(
        self,
        records: Sequence[OutgoingRecord],
        positions: Mapping[TopicPartition, int],
        consumer: GroupConsumer,
        metadata: Mapping[TopicPartition, str] = NO_METADATA,
    ) -> None:
        """Write all records and commit `positions`; retries until both are done.

        `metadata` is committed with the offsets, and returned with them by `GroupConsumer.query_offsets`.
        """
        self._retry.call("kafka", lambda: self._publish_once(records, positions, consumer, metadata))

    def fence_predecessors(self) -> None:
        """Fence other producers with these transactional ids; their open transactions are aborted on return."""
        for producer in self._producers:
            discard(producer)
        self._producers = [self._create_producer(ident) for ident in self._transactional_ids]
        self._options = [self._limits.client_options() for _ in self._producers]
        self._has_begun = False

    def abort(self) -> None:
        """Abort the open transaction of a batch that is dropped."""
        if self._has_begun:
            self._retry.call("kafka", self._reset)

    def close(self) -> None:
        self._bounded_calls.close()
        for producer in self._producers:
            discard(producer)

    def _publish_once(
        self,
        records: Sequence[OutgoingRecord],
        positions: Mapping[TopicPartition, int],
        consumer: GroupConsumer,
        metadata: Mapping[TopicPartition, str],
    ) -> None:
        """Publish once. An aborted transaction is retried like an unreachable server.

        The reason may be that this member lost its partitions, which it learns only from a heartbeat during the wait.
        """
        publish = self._publish_transaction if self._is_transactional else self._publish_acknowledged
        try:
            publish(records, positions, consumer, metadata)
        except TransactionAborted as error:
            serve_reports(self._producer)
            reason = self._refused.learn(self._failures) or error
            self._retry.call("kafka", self._reset)
            raise Unavailable(f"Kafka should accept the batch, which is published again. Found: {reason}") from error

    def _publish_transaction(
        self,
        records: Sequence[OutgoingRecord],
        positions: Mapping[TopicPartition, int],
        consumer: GroupConsumer,
        metadata: Mapping[TopicPartition, str],
    ) -> None:
        self._begin()
        with PROFILER("publish produce"):
            self._produce(records)
        offsets = [
            KafkaPartition(*partition, offset, metadata=metadata.get(partition, ""))
            for partition, offset in positions.items()
        ]
        group_metadata = consumer.group_metadata()
        with PROFILER("publish offsets"):  # while records are on their way
            self._send_offsets(offsets, group_metadata)
        with PROFILER("publish flush"):
            self._retry.call("kafka", lambda: self._flush(records))
        self._mark_step(Step.COMMIT)
        with PROFILER("publish commit"):
            self._call_with_retry(lambda: self._producer.commit_transaction(self._retry.bound(TIMEOUT_S)))
        self._has_begun, self._current = False, (self._current + 1) % len(self._producers)
        self._refused.commit()

    def _send_offsets(self, offsets: list[KafkaPartition], group_metadata: Any) -> None:
        send = partial(
            self._producer.send_offsets_to_transaction, offsets, group_metadata, self._retry.bound(SEND_OFFSETS_S)
        )
        try:
            self._call_with_retry(lambda: self._bounded_calls.run(send))
        except CallAbandoned as error:
            self._is_abandoned = True
            raise TransactionAborted(f"Offsets should be sent to the transaction. Found: {error}") from error

    def _publish_acknowledged(
        self,
        records: Sequence[OutgoingRecord],
        positions: Mapping[TopicPartition, int],
        consumer: GroupConsumer,
        metadata: Mapping[TopicPartition, str],
    ) -> None:
        self._begin()
        self._produce(records)
        self._retry.call("kafka", lambda: self._flush(records))
        if self._failures:
            count, error = len(self._failures), self._failures[0].error.str()
            raise TransactionAborted(f"Every record should be acknowledged. Found {count} failed: {error}")
        self._mark_step(Step.COMMIT)
        self._retry.call("kafka", lambda: consumer.commit(positions, metadata))
        self._has_begun = False
        self._refused.commit()

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._failures.clear()
        self._refused.begin()
        if self._options[self._current] != self._limits.client_options():
            self._replace_producer()
        if self._is_transactional:
            self._call_with_retry(self._producer.begin_transaction)
        self._has_begun, self._sent_count = True, 0

    def _produce(self, records: Sequence[OutgoingRecord]) -> None:
        """Hand the client the records that it does not have yet."""
        produce, small_bytes = self._producer.produce, self._refused.small_bytes
        has_suspects = self._refused.has_suspects
        with abort_on_error("accept records"):
            for record in records[self._sent_count :]:
                topic, key, value, headers, _, partition = record
                if headers or value is None or len(value) > small_bytes:
                    fitted = self._refused.fit(record)
                    if fitted is None:
                        self._sent_count += 1
                        continue
                    topic, key, value, headers, _, partition = fitted
                is_alone = has_suspects and self._refused.is_suspect(topic, value)
                if is_alone:  # records that are sent together are refused together
                    self._producer.flush(self._retry.bound(TIMEOUT_S))
                while True:
                    try:
                        produce(topic, value, key, partition, headers=list(headers))
                        break
                    except BufferError:
                        self._producer.poll(0.1)  # the queue is full: wait for deliveries
                if is_alone:
                    self._producer.flush(self._retry.bound(TIMEOUT_S))
                self._sent_count += 1

    def _flush(self, records: Sequence[OutgoingRecord]) -> None:
        with abort_on_error("acknowledge a batch"):
            unacknowledged = self._producer.flush(self._retry.bound(TIMEOUT_S))
        if unacknowledged:
            missing = describe_missing_topics(self._producer, {record.topic for record in records})
            raise Unavailable(f"Kafka should acknowledge a batch. Found {unacknowledged} records waiting{missing}.")

    def _on_delivery(self, error: KafkaError, message: Message) -> None:
        self._failures.append(FailedDelivery(error, message.topic() or "", as_bytes(message.value())))

    def _call_with_retry(self, call: Any) -> None:
        self._retry.call("kafka", lambda: self._call(call))

    def _call(self, call: Any) -> None:
        """One step of a transaction; raises `Unavailable` where it can be retried, else `TransactionAborted`."""
        try:
            call()
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            if error.retriable() and not error.txn_requires_abort() and not error.fatal():
                raise Unavailable(f"Kafka should continue the transaction. Found: {error.str()}") from failure
            raise TransactionAborted(f"A transaction should be committed. Found: {error.str()}") from failure

    def _reset(self) -> None:
        """Make the producer usable again: abort its transaction, or create a new producer after a fatal error.

        A transaction past its timeout fences its producer just as a second process under this id would. The consumer
        tells the two apart: a fenced member can neither commit nor poll.
        """
        if not self._is_transactional:
            discard(self._producer)
            self._has_begun = False
            return
        if self._is_abandoned:
            self._replace_all("the client does not return from a call")
            return
        try:
            self._producer.abort_transaction(self._retry.bound(TIMEOUT_S))
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            if error.code() == KafkaError._CONFLICT:  # a commit that timed out can be resumed and not aborted
                self._replace_all(error.str())
                return
            if error.retriable() and not error.fatal():
                if self._abort_due_s is None:
                    self._abort_due_s = time.monotonic() + ABORT_S
                elif time.monotonic() >= self._abort_due_s:
                    self._replace_all(error.str())
                    return
                raise Unavailable(f"Kafka should abort a transaction. Found: {error.str()}") from failure
            log.warning("Creating a new producer after a fatal producer error: %s", error.str())
            self._replace_producer()
        self._has_begun, self._abort_due_s = False, None

    def _replace_producer(self) -> None:
        discard(self._producer)
        self._producers[self._current] = self._create_producer(self._transactional_ids[self._current])
        self._options[self._current] = self._limits.client_options()

    def _replace_all(self, reason: str) -> None:
        """Create new producers, before which a commit in progress ends either way; they wait for one coordinator."""
        log.warning("Creating new producers: %s.", reason)
        self.fence_predecessors()
        self._is_abandoned, self._abort_due_s = False, None

    def _create_producer(self, transactional_id: str | None) -> Producer:
        id_option = {} if transactional_id is None else {"transactional.id": transactional_id}
        options = {**self._configuration, **self._limits.client_options(), **id_option}
        producer = Producer(options, logger=client_log)
        if id_option:
            self._retry.call(
                "kafka", lambda: self._call(lambda: producer.init_transactions(self._retry.bound(TIMEOUT_S)))
            )
        return producer


@contextmanager
def abort_on_error(action: str) -> Iterator[None]:
    """Raise the client's errors as `TransactionAborted`; after a failed delivery report they are a SystemError."""
    try:
        yield
    except (KafkaException, SystemError) as error:
        raise TransactionAborted(f"Kafka should {action}. Found: {error}") from error
    except RecordRefused as refused:
        raise TransactionAborted(str(refused)) from refused


def discard(producer: Producer) -> None:
    """Drop the records of a producer; their reports are served, or the client would keep them without end."""
    producer.purge()
    serve_reports(producer, DISCARD_S)


def serve_reports(producer: Producer, timeout_s: float = 0.0) -> None:
    """Serve the reports of failed deliveries, also those of a producer that was fenced."""
    with suppress(KafkaException, SystemError):
        producer.flush(timeout_s)
