"""The protocol: one batch from poll to merge, in the one order that recovery understands.

    poll -> read -> score -> claim -> publish -> commit -> merge -> cache

A death before the commit repeats the batch with the same decisions, since they were claimed; a death after it folds the
batch again and answers nothing. Whatever a server's absence interrupts is tried again with the batch in hand.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from contract.errors import BadProfile, ShopstreamError, StaleState
from contract.profiles.entity_updates import UpdateBatch, to_updates
from contract.profiles.erasures import NO_ERASURES
from contract.profiles.store import FoldedBatch, fold
from contract.settings import Settings
from transport.records import Record, TopicPartition
from worker.kafka.consumer import START_PENDING
from worker.kafka.producer import OutgoingRecord
from worker.model.experiment import TrialModel
from worker.model.onnx_model import Model
from worker.ops import metrics
from worker.ops.retry import Retry
from worker.ops.steps import PROFILER, StepMarker, Timer
from worker.pipeline.answer_filter import AnswerFilter
from worker.pipeline.batch_size import AdaptiveBatchSize
from worker.pipeline.dead_letter_breaker import DeadLetterBreaker
from worker.pipeline.recovery import Recovery
from worker.records.batch import Batch, decode_records, report_rejects
from worker.records.lanes import Lane
from worker.scoring.results import BatchResults, Scorer
from worker.state.resources import KafkaClients, Stores

log = logging.getLogger(__name__)


class BatchRevoked(ShopstreamError):
    """A partition of the batch in hand went to another member while a server was waited for; the batch goes with it."""


class BatchPipeline:
    """Moves batches from the intake to the publisher and the state; nothing else decides what happens when."""

    def __init__(
        self,
        *,
        settings: Settings,
        lane: Lane,
        scorer: Scorer,
        kafka_clients: KafkaClients,
        stores: Stores,
        recovery: Recovery,
        retry: Retry,
        step_marker: StepMarker,
    ) -> None:
        self._settings, self._lane, self._scorer, self._stores = settings, lane, scorer, stores
        self._consumer, self._producer = kafka_clients.consumer, kafka_clients.producer
        self._recovery, self._offsets = recovery, recovery.offsets
        self._erasures = recovery.erasure_executor.erasures if recovery.erasure_executor else NO_ERASURES
        self._confirmed_topics = {settings.topics.topic_name(kind) for kind in lane.confirmed_kinds}
        self._retry, self._mark_step = retry, step_marker
        self._kinds = settings.topics.kinds_by_topic()
        self._answer_filter = AnswerFilter(offsets=self._offsets, erasures=self._erasures, kinds=self._kinds)
        self._in_flight: set[TopicPartition] = set()
        self._is_revoked = self._is_rebalancing = False
        self._stale_state: StaleState | None = None  # partitions came that can only be begun with all others
        self._breaker = DeadLetterBreaker(
            share_max=settings.worker.dead_letter_share_max, window=settings.worker.dead_letter_window
        )
        self._batch_size = AdaptiveBatchSize(batch_max=settings.worker.batch_max, latency_ms=settings.worker.latency_ms)
        self._model_version = ""
        retry.on_wait = self._heartbeat

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        """Answer with this line-up from the next batch on; no batch sees two, and so no user two models."""
        self._scorer.activate(model, trial_model)
        self._model_version = model.version if model else ""

    def progress(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """How far each partition is answered, and where it ends, as far as this member knows.

        A log that a transaction has written ends in a marker, which has an offset and is never read.
        """
        ends = {
            partition: end
            for partition, end in self._consumer.end_offsets().items()
            if partition.topic not in self._confirmed_topics
        }
        at_end = {partition: end for partition, end in ends.items() if partition in self._consumer.at_end}
        return self._offsets.committed | at_end, ends

    def close(self) -> None:
        """Leave the group, every bucket brought up; what is not committed will be read again."""
        self._consumer.close()
        self._producer.close()

    def on_assigned(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to start in new partitions; waits until Kafka and Redis have told."""
        if (
            not partitions
        ):  # how a rebalance ends for who only gave some up; who holds a batch drops it now, not much later
            return {}
        self._is_rebalancing = True
        try:
            with self._time_step("recover"):
                return self._retry.call(
                    "kafka and redis", lambda: self._recovery.recover_offsets(partitions, self._consumer)
                )
        except StaleState as error:
            self._stale_state = error
            return dict.fromkeys(partitions, START_PENDING)  # the next step begins anew with all that are held
        finally:
            self._is_rebalancing = False

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        """Let partitions go: bring every bucket up, once, for whoever comes next; a batch in hand is dropped."""
        self._is_revoked = self._is_revoked or bool(self._in_flight & set(partitions))
        try:
            if not self._in_flight:
                self.advance()
        except ShopstreamError as error:
            log.warning("Partitions leave before their buckets were brought up; the next owner folds more: %s", error)
        self._offsets.drop_partitions(partitions)

    def step(self, now_ms: Callable[[], int]) -> int:
        """Answer one batch, then remember it; returns the number of records that were read."""
        self._mark_step("idle")
        batch = Batch()
        try:
            with PROFILER("poll"):
                records = self._poll()
            began_s = time.monotonic()
            if self._stale_state:
                raise self._stale_state
            lane = self._lane
            with PROFILER("decode"):
                batch = decode_records(
                    records, self._kinds, self._offsets.sources, lane.watched_kinds, lane.inspected_kinds
                )
            self._in_flight, self._is_revoked = set(batch.end_offsets), False
            self._process(batch, now_ms)
            self._batch_size.update(len(batch), (time.monotonic() - began_s) * 1000)
            PROFILER.count_batch(len(batch))
        except (StaleState, BatchRevoked) as error:
            self.recover(error)
        finally:
            self._in_flight = set()
        return len(batch)

    def _poll(self) -> list[Record]:
        """The next records, but for those that are read by assignment and have only their positions here."""
        records = self._consumer.poll(self._batch_size.records_max, self._settings.worker.wait_ms)
        return [record for record in records if record.topic_partition.topic not in self._confirmed_topics]

    def recover(self, reason: Exception) -> None:
        """Go back to what Redis has; costs folding again what is there already, and never an answer."""
        log.warning("Going back to what Redis has: %s", reason)
        metrics.RECOVERIES.labels(type(reason).__name__).inc()
        self._in_flight, self._is_revoked, self._stale_state = (
            set(),
            False,
            None,
        )  # what is given up need not be noticed as gone
        with self._time_step("recover"):
            self._producer.abort()
            self._retry.call("kafka and redis", self._restart_partitions)

    def _restart_partitions(self) -> None:
        """One attempt; partitions may come and go between two of them, and not within one."""
        self._consumer.seek(self._recovery.recover_offsets(set(self._consumer.assignment), self._consumer))

    def advance(self) -> None:
        """Bring the buckets that no batch touched up to what is folded; one attempt.

        Raises `StaleState` if Redis forgot something, also where nothing is to be written: an idle worker notices too.
        """
        self._offsets.check_merged(self._stores.profiles.merged_offsets(self._offsets.sources.values()))
        after = self._offsets.find_lagging()
        if after:
            self._stores.profiles.merge({}, self._offsets.merged, after)
            self._offsets.record_merged(after)

    def publish_extra(self, records: Sequence[OutgoingRecord], end_offsets: Mapping[TopicPartition, int]) -> None:
        """Publish what belongs to no batch, together with how far that is, however long Kafka makes it wait.

        Raises `Dropped` if the partitions have gone meanwhile: they are another's to speak for.
        """
        self._in_flight, self._is_revoked = set(end_offsets), False
        try:
            self._producer.publish(records, end_offsets, self._consumer)
            self._offsets.record_committed(end_offsets)
        finally:
            self._in_flight = set()

    def _process(self, batch: Batch, now_ms: Callable[[], int]) -> None:
        self._offsets.check_order(batch.first_offsets)
        check_topics = self._recovery.request_topic_check(batch.first_offsets)
        self._answer_filter.drop_answered(batch)
        extra_entities = self._scorer.entities_to_read(batch, now_ms())
        if not batch and not extra_entities:
            return
        metrics.BATCH_RECORDS.observe(len(batch))
        with self._time_step("read"):
            touches = to_updates(batch.arrivals, extra_entities, self._erasures)
            memory = self._retry.call("redis", lambda: self._fold(touches))
        with self._time_step("score"):
            answers = self._scorer.answer(batch, self._answer_filter.rows_to_answer(batch), memory, now_ms())
        with self._time_step("claim"):
            if answers.decisions:
                answers.decisions = self._retry.call(
                    "redis", lambda: self._stores.decision_store.claim(answers.decisions)
                )
        self._retry.call("kafka", check_topics)
        with self._time_step("send"):
            outgoing = answers.to_records(self._settings.topics)
            self._producer.send(outgoing)
        with self._time_step("refresh"):
            refreshed = self._scorer.refresh(memory, now_ms())
            self._answer_filter.drop_erased(refreshed)
            outgoing += refreshed.to_records(self._settings.topics)
        answers.extend(refreshed)
        self._publish(batch, answers, outgoing)
        if decisions_to_delete := self._answer_filter.decisions_to_delete(
            batch
        ):  # before the merge: whoever dies here comes back to it
            self._retry.call("redis", lambda: self._stores.decision_store.delete_answered(decisions_to_delete))
        self._merge(batch, memory)
        with self._time_step("cache"):
            lists, rankings = [answer for answer, _ in answers.lists], [answer for answer, _ in answers.rankings]
            self._retry.call("redis", lambda: self._stores.answer_cache.write(lists, rankings))

    def _fold(self, touches: UpdateBatch) -> FoldedBatch:
        profiles = self._stores.profiles
        try:
            with PROFILER("read profiles"):
                slices = profiles.read(touches.entities)
            with PROFILER("read fold"):
                return fold(slices, touches)
        except BadProfile as error:
            raise BadProfile(f"{error} {profiles.suggest_repair(touches.entities)}") from error

    def _publish(self, batch: Batch, answers: BatchResults, outgoing: list[OutgoingRecord]) -> None:
        """Steps 3 and 4: everything the batch makes us say is out, and its positions are committed."""
        with self._time_step("publish"):
            end_offsets = {
                partition: offset
                for partition, offset in batch.end_offsets.items()
                if offset > self._offsets.committed.get(partition, -1)
            }
            rejects = [*batch.rejects, *answers.rejects]
            outgoing += [
                reject.to_dead_letter(self._settings.topics.dead_letters, self._model_version) for reject in rejects
            ]
            if not outgoing and not end_offsets:
                return
            self._producer.publish(outgoing, end_offsets, self._consumer)
            self._offsets.record_committed(end_offsets)
        answers.record_metrics()
        report_rejects(rejects)
        self._breaker.record(len(batch), len(rejects))

    def _merge(self, batch: Batch, memory: FoldedBatch) -> None:
        """Step 5: the slices of the batch, with the positions that they stand for."""
        with self._time_step("merge"):
            with PROFILER("merge pack"):
                writes = memory.slice_writes()
            after = self._offsets.compute_merged(batch.end_offsets, writes.buckets())
            if after:
                self._retry.call("redis", lambda: self._stores.profiles.merge(writes, self._offsets.merged, after))
            self._offsets.record_merged(after)
            self._offsets.record_folded(
                {
                    partition: offset
                    for partition, offset in batch.end_offsets.items()
                    if partition in self._offsets.sources
                }
            )

    def _heartbeat(self) -> None:
        """While a server is waited for: keep the membership in the group, and notice if the batch in hand is gone."""
        if self._is_rebalancing:  # a rebalance is handled inside of a poll, which cannot be entered twice
            return
        self._consumer.heartbeat()
        if self._is_revoked:
            raise BatchRevoked("The partitions of the batch in hand should stay until it is merged. Found them moved.")

    def _time_step(self, step: str) -> Timer:
        return self._mark_step.time(step)
