"""The producer: publishes a batch's records and commits its offsets, by default in one transaction.

Readers of committed records then see each answer exactly once, even if this process crashes in between. Without
transactions the records are acknowledged first and the offsets committed after: a crash in between repeats answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import StaleState, Unavailable
from contract.settings.servers import KafkaSettings
from transport.records import NO_METADATA, TopicPartition, as_bytes
from worker.group.consumer import GroupConsumer
from worker.kafka.admin import KafkaAdmin
from worker.kafka.bounded_calls import BoundedCalls, CallAbandoned
from worker.kafka.outgoing import OutgoingRecord
from worker.kafka.producer_clients import ClientFailed, ProducerClients, TransactionAborted, serve_reports
from worker.kafka.record_limits import RecordLimits
from worker.kafka.refused_records import FailedDelivery, RecordRefused, RefusedRecords, describe_missing_topics
from worker.ops.retry import Retry
from worker.ops.steps import PROFILER, Step, StepMarker

SEND_OFFSETS_S: Final = 5.0
ABANDON_S: Final = SEND_OFFSETS_S + 2.0  # the client does not always keep that time-out
Commits: TypeAlias = dict[TopicPartition, tuple[int, str]]  # offsets with their metadata


class CommitUnanswered(TransactionAborted):
    """A client failed while it committed: the transaction has ended once there are new clients, either way."""


class OutcomeUnknown(StaleState):
    """The committed offsets do not tell whether a batch was committed: its caller goes on from what Kafka has."""


class Publication(NamedTuple):
    """What one call of `publish` writes and commits."""

    records: Sequence[OutgoingRecord]
    commits: Commits
    consumer: GroupConsumer
    tells_outcome: bool  # some commit differs from that before, so the committed offsets tell whether this is done


class TransactionalProducer:
    """Publishes records and commits offsets. `transactional_id` None: without transactions."""

    def __init__(
        self, *, kafka: KafkaSettings, transactional_id: str | None, retry: Retry, step_marker: StepMarker
    ) -> None:
        self._retry, self._mark_step = retry, step_marker
        self._limits = RecordLimits(
            kafka=kafka, fetch=lambda topics: KafkaAdmin(kafka=kafka).fetch_record_limits(topics)
        )
        self._refused = RefusedRecords(self._limits)
        self._failures: list[FailedDelivery] = []
        self._has_begun, self._sent_count = False, 0  # of the open transaction: the records that the client has
        self._is_last_alone = False  # of these records: the last one is to be sent alone
        self._commits: Commits = {}  # the latest of each partition
        self._clients = ProducerClients(
            kafka=kafka,
            transactional_id=transactional_id,
            retry=retry,
            limits=self._limits,
            on_delivery=self._on_delivery,
        )
        self._bounded_calls = BoundedCalls(timeout_s=ABANDON_S)

    @property
    def _producer(self) -> Producer:
        return self._clients.current

    def send(self, records: Sequence[OutgoingRecord]) -> None:
        """Send the first records of the next `publish`, to overlap with scoring; invisible before its commit."""
        try:
            if records:
                self._begin()
                self._produce(records)
        except TransactionAborted:
            self._recover()  # `publish` sends them again

    def publish(
        self,
        records: Sequence[OutgoingRecord],
        positions: Mapping[TopicPartition, int],
        consumer: GroupConsumer,
        metadata: Mapping[TopicPartition, str] = NO_METADATA,
    ) -> None:
        """Write all records and commit `positions`; retries until both are done.

        `metadata` is committed with the offsets, and returned with them by `GroupConsumer.query_offsets`.
        Raises `OutcomeUnknown` where a client failed during the commit, and neither an offset nor its metadata differs
        from what was committed before.
        """
        commits = {partition: (offset, metadata.get(partition, "")) for partition, offset in positions.items()}
        tells_outcome = not commits.items() <= self._commits.items()
        self._commits |= commits
        self._retry.call("kafka", partial(self._publish_once, Publication(records, commits, consumer, tells_outcome)))

    def fence_predecessors(self) -> None:
        """Fence other producers with these transactional ids; their open transactions are aborted on return."""
        self._clients.replace_all()
        self._has_begun = False

    def abort(self) -> None:
        """Abort the open transaction of a batch that is dropped."""
        if self._has_begun:
            self._recover()

    def close(self) -> None:
        self._bounded_calls.close()
        self._clients.close()

    def _publish_once(self, publication: Publication) -> None:
        """Publish once. An aborted transaction is retried like an unreachable server.

        The reason may be that this member lost its partitions, which it learns only from a heartbeat during the wait.
        """
        publish = self._publish_transaction if self._clients.are_transactional else self._publish_acknowledged
        try:
            publish(publication)
        except TransactionAborted as error:
            serve_reports(self._producer)
            reason = self._refused.learn(self._failures) or error
            self._recover()
            if not isinstance(error, CommitUnanswered) or not self._is_committed(publication):
                raise Unavailable(
                    f"Kafka should accept the batch, which is published again. Found: {reason}"
                ) from error
        self._refused.commit()

    def _is_committed(self, publication: Publication) -> bool:
        """Whether the group has exactly these commits; raises `OutcomeUnknown`.

        If another member has committed since then, the batch is not taken for committed: this member can no longer
        commit it.
        """
        if not publication.tells_outcome:
            raise OutcomeUnknown("A commit should be answered, or show in the committed offsets. Found neither.")
        query = partial(publication.consumer.query_offsets, publication.commits)
        offsets = self._retry.call("kafka", query)
        return publication.commits == {
            partition: (known.committed, known.metadata) for partition, known in offsets.items()
        }

    def _publish_transaction(self, publication: Publication) -> None:
        self._begin()
        with PROFILER("publish produce"):
            self._produce(publication.records)
        offsets = [
            KafkaPartition(*partition, offset, metadata=metadata)
            for partition, (offset, metadata) in publication.commits.items()
        ]
        group_metadata = publication.consumer.group_metadata()
        with PROFILER("publish offsets"):  # while records are on their way
            self._send_offsets(offsets, group_metadata)
        with PROFILER("publish flush"):
            self._clients.run_step(lambda: self._flush(publication.records))
        self._mark_step(Step.COMMIT)
        with PROFILER("publish commit"):
            self._commit()
        self._has_begun = False
        self._clients.switch()

    def _commit(self) -> None:
        attempts = 0

        def commit() -> None:
            nonlocal attempts
            attempts += 1
            self._producer.commit_transaction(self._clients.timeout_s())

        try:
            self._clients.run_call(commit)
        except TransactionAborted as error:
            if attempts == 1 and not isinstance(error, ClientFailed):
                raise
            raise CommitUnanswered(str(error)) from error

    def _send_offsets(self, offsets: list[KafkaPartition], group_metadata: Any) -> None:
        send = partial(
            self._producer.send_offsets_to_transaction, offsets, group_metadata, self._retry.bound(SEND_OFFSETS_S)
        )
        try:
            self._clients.run_call(lambda: self._bounded_calls.run(send))
        except CallAbandoned as error:
            self._clients.give_up("the client does not return from a call")
            raise TransactionAborted(f"Offsets should be sent to the transaction. Found: {error}") from error

    def _publish_acknowledged(self, publication: Publication) -> None:
        self._begin()
        self._produce(publication.records)
        self._clients.run_step(lambda: self._flush(publication.records))
        if self._failures:
            count, error = len(self._failures), self._failures[0].error.str()
            raise TransactionAborted(f"Every record should be acknowledged. Found {count} failed: {error}")
        self._mark_step(Step.COMMIT)
        positions = {partition: offset for partition, (offset, _) in publication.commits.items()}
        metadata = {partition: text for partition, (_, text) in publication.commits.items()}
        self._retry.call("kafka", lambda: publication.consumer.commit(positions, metadata))
        self._has_begun = False

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._failures.clear()
        self._refused.begin()
        self._clients.adopt_limits()
        if self._clients.are_transactional:
            self._clients.run_call(self._producer.begin_transaction)
        self._has_begun, self._sent_count, self._is_last_alone = True, 0, False

    def _produce(self, records: Sequence[OutgoingRecord]) -> None:
        self._clients.run_step(lambda: self._produce_rest(records))

    def _produce_rest(self, records: Sequence[OutgoingRecord]) -> None:
        """Hand the client the records that it does not have yet; raises `Unavailable` while it takes no more."""
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
                if is_alone or self._is_last_alone:  # records that are sent together are refused together
                    self._flush_all()
                # Empty headers would cost half as much as the rest of the call.
                hand_over = partial(produce, headers=list(headers)) if headers else produce
                try:
                    hand_over(topic, value, key, partition)
                except BufferError:  # the queue is full: wait for deliveries
                    self._flush_all()
                    hand_over(topic, value, key, partition)
                self._sent_count += 1
                self._is_last_alone = is_alone

    def _flush_all(self) -> None:
        """Wait until no record is on its way; raises `Unavailable`."""
        if waiting := self._producer.flush(self._clients.timeout_s()):
            raise Unavailable(f"Kafka should acknowledge records. Found {waiting} waiting.")

    def _flush(self, records: Sequence[OutgoingRecord]) -> None:
        with abort_on_error("acknowledge a batch"):
            unacknowledged = self._producer.flush(self._clients.timeout_s())
        if unacknowledged:
            missing = describe_missing_topics(self._producer, {record.topic for record in records})
            raise Unavailable(f"Kafka should acknowledge a batch. Found {unacknowledged} records waiting{missing}.")

    def _on_delivery(self, error: KafkaError, message: Message) -> None:
        self._failures.append(FailedDelivery(error, message.topic() or "", as_bytes(message.value())))

    def _recover(self) -> None:
        self._clients.recover()
        self._has_begun = False


@contextmanager
def abort_on_error(action: str) -> Iterator[None]:
    """Raise the client's errors as `TransactionAborted`; after a failed delivery report they are a SystemError."""
    try:
        yield
    except (KafkaException, SystemError, BufferError) as error:
        raise TransactionAborted(f"Kafka should {action}. Found: {error}") from error
    except RecordRefused as refused:
        raise TransactionAborted(str(refused)) from refused
