"""The batch pipeline: one batch from poll to merge, in the only order that recovery understands.

    poll -> read -> score -> claim -> publish -> commit -> merge -> cache

A crash before the commit repeats the batch with the same claimed answers. A crash after it folds the batch again and
answers nothing. While a server does not answer, the step is retried with the batch in flight. Kinds of answers and
events are the scorer's business: the pipeline treats all answers alike, by what `worker.records.answers` states.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from contract.errors import ShopstreamError, StaleState
from contract.profiles.entity_updates import Arrival, UpdateBatch, to_updates
from contract.profiles.store import FoldedBatch, fold
from contract.settings.reading import Settings
from transport.kafka_times import KafkaTimes
from transport.record_reader import open_record_reader
from transport.records import Record, TopicPartition
from worker.group.listener import START_PENDING
from worker.kafka.outgoing import OutgoingRecord
from worker.model.experiment import TrialModel, model_version
from worker.model.onnx_model import Model
from worker.ops import metrics
from worker.ops.retry import Retry
from worker.ops.steps import PROFILER, Step, StepMarker
from worker.pipeline.answer_filter import AnswerFilter
from worker.pipeline.history_check import HistoryCheck
from worker.pipeline.limits import AdaptiveBatchSize, DeadLetterBreaker
from worker.pipeline.membership import BatchRevoked, KafkaClients
from worker.pipeline.recovery import Recovery
from worker.pipeline.refreshes import Refreshes, measure_refreshing_s
from worker.probes.progress import Progress
from worker.recommend.item_share import ItemShare
from worker.records.batch import Batch, decode_records, report_rejects
from worker.records.guest_erasures import find_late_erasures
from worker.records.intake import make_event_readers
from worker.records.lanes import Lane
from worker.records.shared_ids import SharedIds
from worker.scoring.results import BatchResults
from worker.scoring.scorer import Scorer
from worker.state.resources import Stores

log = logging.getLogger(__name__)
# The `reason` of `recoveries_total` where it is not the error's name: dashboards hold these values.
RECOVERY_LABELS: Final = {"BatchRevoked": "Dropped", "RefoldNeeded": "FoldAgain"}


class BatchPipeline:
    """Moves batches from the consumer to the producer and the state; it alone decides the order of steps.

    `retry` should send the heartbeat of `kafka_clients.membership` while it waits.
    """

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
        self._settings = settings
        self._lane = lane
        self._scorer = scorer
        self._stores = stores
        self.consumer, self.producer = kafka_clients.consumer, kafka_clients.producer
        self._membership = kafka_clients.membership
        self._recovery = recovery
        self._offsets = recovery.offsets
        self._erasures = recovery.erasures
        self._confirmed_topics = {settings.topics.topic_name(kind) for kind in lane.confirmed_kinds}
        self.retry, self._mark_step = retry, step_marker
        self._readers, self._entity_kinds = make_event_readers(settings), settings.entity_kinds()
        self._record_reader = open_record_reader(settings, self._readers, retry.call)
        self._kafka_times, self._partition_counts = KafkaTimes(), dict[str, int]()
        self._answer_filter = AnswerFilter(offsets=self._offsets, erasures=self._erasures, kind_of=scorer.kind_of)
        self._refreshes = Refreshes(
            settings=settings, scorer=scorer, offsets=self._offsets, answer_filter=self._answer_filter, retry=retry
        )
        self._history_check, self.shared_ids = HistoryCheck(), SharedIds()
        self._unstarted: set[TopicPartition] = set()  # assigned since the last step
        self._breaker = DeadLetterBreaker(
            share_max=settings.worker.dead_letter_share_max, window=settings.worker.dead_letter_window
        )
        self._batch_size = AdaptiveBatchSize(batch_max=settings.worker.batch_max, latency_ms=settings.worker.latency_ms)
        self._model_version = ""
        self.recoveries = 0

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        """Use these models from the next batch on; one batch never mixes line-ups."""
        if model:
            self._history_check.expect(model.manifest)
        self._scorer.activate(model, trial_model)
        self._model_version = model_version(model)

    def progress(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """The answered offset of each partition, and its end as far as this member knows.

        A log that a transaction has written ends in a marker, which has an offset and is never read.
        """
        ends = {
            partition: end
            for partition, end in self.consumer.end_offsets().items()
            if partition.topic not in self._confirmed_topics
        }
        at_end = {partition: end for partition, end in self.consumer.at_end.items() if partition in ends}
        return self._offsets.committed | at_end, ends

    def knows_positions(self) -> bool:
        """Whether each partition is started; until it is, its position would be taken for 0."""
        return self._offsets.committed.keys() >= self.consumer.assignment

    def publish_progress(self, progress: Progress) -> None:
        """Tell the threads that watch this one how far it is."""
        progress.publish(*self.progress(), self._offsets.folded.copy(), self.recoveries, self.consumer.missing)

    def close(self) -> None:
        """Leave the group with every bucket advanced; records that are not committed will be read again."""
        self.consumer.close()
        self.producer.close()

    def on_assigned(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Leave it to the next step to start new partitions: a client may not be asked within its own callback."""
        self._unstarted.update(partitions)
        return dict.fromkeys(partitions, START_PENDING)

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        """Advance every bucket once for the next owner, unless a batch is in flight, which is dropped."""
        self._membership.revoke(partitions)
        try:
            if not self._membership.has_batch:
                self.advance()
        except ShopstreamError as error:
            log.warning("Partitions leave before their buckets were advanced; the next owner folds more: %s", error)
        self._unstarted.difference_update(partitions)
        self._forget_unanswered(partitions)
        self._scorer.release(frozenset(partitions))
        self._offsets.drop_partitions(partitions)

    def step(self, now_ms: Callable[[], int], *, polls: bool = True) -> int:
        """Answer and merge one batch; returns the number of records that were read.

        Without `polls` only answers by the clock are given.
        """
        self._mark_step(Step.IDLE)
        batch = Batch()
        try:
            with PROFILER("poll"):
                records = self._poll(now_ms()) if polls else []
            began_s, refreshing_s = time.monotonic(), measure_refreshing_s()
            if self._unstarted:
                started = self._start_partitions()
                kept = self.consumer.assignment - started  # others may have left while the start waited
                records = [record for record in records if record.topic_partition in kept]
            with PROFILER("decode"):
                batch = self._decode(records)
            with self._membership.batch(batch.end_offsets):
                self._process(batch, now_ms)
            took_s = time.monotonic() - began_s
            refreshing_s = self._refreshes.record_time(batch, took_s, measure_refreshing_s() - refreshing_s)
            self._batch_size.update(len(batch), took_s * 1000, refreshing_s * 1000)
            PROFILER.count_batch(len(batch))
        except (StaleState, BatchRevoked) as error:
            self.recover(error)
        return len(batch)

    def recover(self, reason: Exception) -> None:
        """Restart all partitions from the state in Redis; some events are folded again, none is answered twice."""
        log.warning("Recovering from the state in Redis: %s", reason)
        self.recoveries += 1
        error = type(reason).__name__
        metrics.RECOVERIES.labels(RECOVERY_LABELS.get(error, error)).inc()
        self._membership.drop_batch()
        self._refreshes.take_back()
        self._forget_unanswered(self._offsets.committed)
        with self._mark_step.time(Step.RECOVER):
            self.producer.abort()
            self._repair(reason)
            while not self._is_restarted():
                pass

    def find_share(self) -> ItemShare:
        """The lists for all users that this worker writes, by its partitions of the clicks."""
        topic = self._settings.topics.topic_name("clicks")
        owned = frozenset(partition.partition for partition in self.consumer.assignment if partition.topic == topic)
        return ItemShare(owned, self._partition_counts.get(topic, 0))

    def advance(self) -> None:
        """Record all folded offsets as merged in buckets that no batch touched; one attempt.

        Raises `StaleState` if Redis lost something, even where nothing is to be written: an idle worker notices too.
        """
        self._offsets.check_merged(self._stores.profiles.read_offsets(self._offsets.sources.values()))
        after = self._offsets.find_lagging()
        if after:
            self._stores.profiles.merge({}, self._offsets.merged, after)
            self._offsets.record_merged(after)

    def forget_erased(self, until_ms: Mapping[str, int]) -> None:
        """Forget what is held in memory of what these users (by id) did up to these times."""
        self._scorer.forget_erased(until_ms)
        self.shared_ids.forget(until_ms)

    def publish_extra(self, records: Sequence[OutgoingRecord], end_offsets: Mapping[TopicPartition, int]) -> None:
        """Publish records that belong to no batch, and commit these offsets with them; waits for Kafka.

        Raises `BatchRevoked` if the partitions were revoked in the meantime: their next owner publishes.
        """
        with self._membership.batch(end_offsets):
            self._commit(records, end_offsets)

    def _poll(self, now_ms: int) -> list[Record]:
        """The next records. Of confirmed topics only positions are kept here: they are read by assignment."""
        wait_ms = 0 if self._scorer.is_refresh_due(now_ms) else self._settings.worker.wait_ms
        records = self.consumer.poll(self._batch_size.records_max, wait_ms)
        return [record for record in records if record.topic_partition.topic not in self._confirmed_topics]

    def _decode(self, records: Sequence[Record]) -> Batch:
        lane = self._lane
        batch = decode_records(
            records,
            self._record_reader.kinds,
            self._offsets.sources,
            lane.watched_kinds,
            lane.inspected_kinds,
            kafka_times=self._kafka_times,
            readers=self._readers,
            record_reader=self._record_reader,
        )
        self.shared_ids.add(batch.arrivals, self._erasures)
        return batch

    def _forget_unanswered(self, partitions: Iterable[TopicPartition]) -> None:
        """Let the scorer forget what it has seen of these partitions and not published: it will be read again."""
        rereading = set(partitions)

        def is_reread(arrival: Arrival) -> bool:
            partition = TopicPartition(arrival.topic, arrival.partition)
            return partition in rereading and not self._offsets.is_answered(partition, arrival.offset)

        self._scorer.forget(is_reread)

    def _start_partitions(self) -> set[TopicPartition]:
        """Start the new partitions, and return them; waits until Kafka and Redis answer.

        Raises `StaleState` if they can only start together with all others.
        """
        with self._mark_step.time(Step.RECOVER):
            return self.retry.call("kafka and redis", lambda: self._start(self._unstarted))

    def _start(self, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        """One attempt; partitions may come and go between two attempts, but not within one."""
        started = self.consumer.assignment.intersection(partitions)
        if not started:
            return started
        self._partition_counts = self.consumer.count_partitions(
            [*self._record_reader.topics.kinds, self._settings.topics.scored]
        )
        self.consumer.seek(self._recovery.recover_offsets(started, self.consumer))
        self._unstarted -= started
        return started

    def _is_restarted(self) -> bool:
        """Restart all partitions, unless that meets an unreadable profile, which is repaired instead."""
        try:
            self.retry.call("kafka and redis", lambda: self._start(self.consumer.assignment))
        except StaleState as error:
            if not self._repair(error):
                raise
            return False
        return True

    def _repair(self, reason: Exception) -> bool:
        """Delete the profiles that a step found unreadable; whether there were any."""
        return self.retry.call(
            "kafka and redis", lambda: self._recovery.delete_unreadable_profiles(reason, self.consumer)
        )

    def _process(self, batch: Batch, now_ms: Callable[[], int]) -> None:
        self._offsets.check_order(batch.first_offsets)
        check_topics = self._recovery.request_topic_check(batch.first_offsets)
        self._refreshes.queue_waiting(batch, now_ms())
        batch = self._answer_filter.without_answered(batch)
        extra_entities = self._refreshes.list_entities(batch, self._batch_size.records_max, now_ms())
        if not batch and not extra_entities:
            return
        metrics.BATCH_RECORDS.observe(len(batch))
        with self._mark_step.time(Step.READ):
            updates = to_updates(batch.arrivals, extra_entities, self._erasures, self._entity_kinds)
            memory = self.retry.call("redis", lambda: self._fold(updates))
        results, outgoing = self._answer(batch, memory, now_ms, check_topics)
        with self._mark_step.time(Step.REFRESH):  # while the records of the batch are on their way
            refreshed = self._refreshes.give(memory, now_ms())
            outgoing += refreshed.to_records(self._settings.topics, self._partition_counts)
        results.extend(refreshed)
        self._publish(batch, results, outgoing)
        self._refreshes.record_published()
        claims = self._answer_filter.claims_to_delete(batch)
        if claims:  # before the merge, so that a crash here is repeated
            self.retry.call("redis", lambda: self._stores.claim_store.delete_answered(claims))
        try:
            self._merge(batch, memory)
        except StaleState:
            self._cache(results)  # what is published is not made again
            raise
        self._cache(results)

    def _fold(self, updates: UpdateBatch) -> FoldedBatch:
        with PROFILER("read profiles"):
            slices = self._stores.profiles.read(updates.entities, updates.bucket)
        self._history_check.observe(updates.entities, slices)
        with PROFILER("read fold"):
            return fold(slices, updates)

    def _answer(
        self, batch: Batch, memory: FoldedBatch, now_ms: Callable[[], int], check_topics: Callable[[], None]
    ) -> tuple[BatchResults, list[OutgoingRecord]]:
        """The batch's answers, and their records, most of which are on their way to Kafka by then."""
        topics = self._settings.topics
        with self._mark_step.time(Step.SCORE):
            results = self._scorer.answer(batch, self._answer_filter.rows_to_answer(batch), memory, now_ms())
        with self._mark_step.time(Step.CLAIM):
            results.answers = self.retry.call("redis", lambda: self._stores.claim_store.claim(results.answers))
        self.retry.call("kafka", check_topics)
        with self._mark_step.time(Step.SEND):
            outgoing = results.to_records(topics, self._partition_counts)
            outgoing += find_late_erasures(self._answer_filter.find_late_erased(batch), self._erasures, topics.erasures)
            self.producer.send(outgoing)
        return results, outgoing

    def _publish(self, batch: Batch, results: BatchResults, outgoing: list[OutgoingRecord]) -> None:
        """Publish all records of the batch and commit its offsets."""
        with self._mark_step.time(Step.PUBLISH):
            end_offsets = {
                partition: offset
                for partition, offset in batch.end_offsets.items()
                if offset > self._offsets.committed.get(partition, -1)
            }
            rejects = [*batch.rejects, *results.rejects]
            outgoing += [
                reject.to_dead_letter(self._settings.topics.dead_letters, self._model_version) for reject in rejects
            ]
            if not outgoing and not end_offsets:
                return
            self._commit(outgoing, end_offsets)
        results.record_metrics(self._scorer.answer_kinds)
        report_rejects(rejects)
        self._breaker.record(len(batch), len(rejects))

    def _commit(self, records: Sequence[OutgoingRecord], end_offsets: Mapping[TopicPartition, int]) -> None:
        """Publish records and commit offsets with them."""
        metadata = self._refreshes.describe_commit(end_offsets.keys())
        self.producer.publish(records, end_offsets, self.consumer, metadata)
        self._offsets.record_committed(end_offsets)

    def _cache(self, results: BatchResults) -> None:
        with self._mark_step.time(Step.CACHE):
            self.retry.call("redis", lambda: self._stores.answer_cache.write(results.answers))

    def _merge(self, batch: Batch, memory: FoldedBatch) -> None:
        """Merge the slices of the batch, together with the offsets that they contain.

        People are counted before: a crash in between counts them again, which changes nothing.
        """
        with self._mark_step.time(Step.MERGE):
            with PROFILER("merge people"):
                self.retry.call("redis", lambda: self._stores.people.add(memory.updates))
            with PROFILER("merge pack"):
                writes = memory.slice_writes()
            after = self._offsets.compute_merged(batch.end_offsets, writes.buckets())
            if after:
                self.retry.call("redis", lambda: self._stores.profiles.merge(writes, self._offsets.merged, after))
            self._offsets.record_merged(after)
            sources = self._offsets.sources
            self._offsets.record_folded(
                {partition: offset for partition, offset in batch.end_offsets.items() if partition in sources}
            )
