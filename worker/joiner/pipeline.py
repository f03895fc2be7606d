"""Joining as a loop: records in, examples and judgements out, and positions that lag behind what still waits.

After a crash everything open is read again. What was published is read back first and not published twice; with
transactions that is exact, since what was said and how far it was read are committed as one.
The joined topics may be read at different speeds; partitions that get ahead are held.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from contract.errors import BadEvent, ShopstreamError
from contract.events import Event, clamp, decode
from contract.joining.output import JoinOutput, OutcomeCounts
from contract.messages import ScoredRow, read_scored_row, to_json, to_msgpack
from contract.profiles.record import JUDGED_TASKS
from contract.settings import Settings
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.dedup_loader import DedupLoader
from worker.joiner.idle_partitions import IdlePartitions
from worker.joiner.partitioned_joiner import PartitionedJoiner
from worker.joiner.recovered_state import RecoveredState
from worker.kafka.consumer import GroupConsumer
from worker.kafka.producer import OutgoingRecord, TransactionalProducer
from worker.ops import metrics
from worker.ops.retry import Retry

log = logging.getLogger(__name__)
KINDS: Final = ("scored", "impressions", "clicks", "orders", "labels")


class PartitionsChanged(ShopstreamError):
    """Partitions left while a batch was in hand: what waits is not whole any more, and joining begins anew."""


class JoinerPipeline:
    """Moves batches from the intake through the joiner to the publisher. It listens to the intake's partitions."""

    def __init__(
        self,
        *,
        settings: Settings,
        consumer: GroupConsumer,
        producer: TransactionalProducer,
        retry: Retry,
        clock_s: Callable[[], float] = time.monotonic,
        load_published: Callable[[Mapping[TopicPartition, PartitionOffsets]], PublishedOutputs] | None = None,
    ) -> None:
        """`recall`: what earlier lives have said of what is read from these positions on."""
        self._settings, self._clock_s = settings, clock_s
        self._load_published = load_published or DedupLoader(settings=settings, on_chunk=self._heartbeat).load
        self._kinds = {settings.topics.topic_name(kind): kind for kind in KINDS}
        self._tasks = {*JUDGED_TASKS, *(task.name for task in settings.tasks)}
        self._consumer, self._producer, self._retry = consumer, producer, retry
        self._joiner = self._new_joiner()
        self._idle_partitions = IdlePartitions(after_s=settings.feedback.idle_ms / 1000)
        self._committed: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._partitions_changed = self._in_batch = False
        self._recovered, self._is_recovered = self._new_recovered_state({}, PublishedOutputs(limit=1)), True
        retry.on_wait = self._heartbeat

    @property
    def topics(self) -> list[str]:
        return list(self._kinds)

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        """New partitions start at their committed positions; what was joined without them is joined anew."""
        self._partitions_changed = self._partitions_changed or bool(self._joiner.next_offsets())
        self._joiner.add_partitions(partitions)
        self._is_recovered = False
        return {}

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        """What waits lacks a part from now on, so everything that stays is read again."""
        self._partitions_changed = True

    def step(self) -> int:
        """Join one batch and publish what is ready; returns the number of records that were read."""
        worker = self._settings.worker
        records = self._consumer.poll(worker.batch_max, worker.wait_ms)
        self._in_batch = True
        try:
            self._raise_if_changed()
            self._recover()
            self._publish(self._join(records))
        except PartitionsChanged as changed:
            log.warning("Joining begins anew: %s", changed)
            self._in_batch = False  # nothing more can be taken away
            self._restart()
        finally:
            self._in_batch = False
        return len(records)

    def progress(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """How far each partition is read, and where it ends; of those that are not held."""
        ends = self._consumer.end_offsets()
        at_end = {partition: end for partition, end in ends.items() if partition in self._consumer.at_end}
        return self._joiner.next_offsets() | at_end, {
            partition: end for partition, end in ends.items() if partition not in self._paused
        }

    def not_ready_reason(self) -> str | None:
        """What is wrong if the partitions of this member cannot be joined: one user's records need one reader."""
        partitions = {
            topic: {p.partition for p in self._consumer.assignment if p.topic == topic} for topic in self._kinds
        }
        if not self._consumer.assignment:
            return "The joiner should have partitions to read. Found none so far."
        if len(set(map(frozenset, partitions.values()))) > 1:
            assignment = ", ".join(f"{topic}: {sorted(numbers)}" for topic, numbers in partitions.items())
            return f"The joiner should read the same partitions of each topic. Found {assignment}."
        return None

    def close(self) -> None:
        """Leave; what is not committed will be read again."""
        self._consumer.close()
        self._producer.close()

    def _join(self, records: list[Record]) -> JoinOutput:
        read = {record.topic_partition for record in records}
        idle = self._idle_partitions.update(self._consumer.at_end, read, self._clock_s())
        counts_before = self._joiner.counts.copy()
        for record in records:
            kind = self._kinds[record.topic_partition.topic]
            metrics.EVENTS.labels(kind).inc()
            self._joiner.push(record.topic_partition, record.offset, decode_record(kind, record))
        output = self._drop_published(self._joiner.advance(idle))
        self._pause_only(self._joiner.partitions_ahead())
        self._count(output, self._joiner.counts - counts_before)
        return output

    def _drop_published(self, output: JoinOutput) -> JoinOutput:
        """What no earlier life has said."""
        unpublished, withheld = self._recovered.without_published(output)
        metrics.EXAMPLES_WITHHELD.inc(withheld)
        if unpublished.orphans:
            self._set_orphan_metrics()
        return unpublished

    def _publish(self, output: JoinOutput) -> None:
        topics = self._settings.topics
        outgoing = [
            OutgoingRecord(topics.feedback, example.user_id, to_msgpack(example)) for example in output.examples
        ]
        outgoing += [
            OutgoingRecord(topics.judgements, judgement.user_id, to_json(judgement)) for judgement in output.judgements
        ]
        positions = self._joiner.safe_offsets()
        if outgoing or positions != self._committed:
            self._producer.publish(
                outgoing, positions, self._consumer, self._recovered.commit_metadata(self._joiner, positions)
            )
            self._committed = positions
            self._recovered.release_published(positions)
        metrics.STREAM_TIME_SECONDS.set((self._joiner.now_ms or 0) / 1000)
        metrics.OLDEST_OPEN_SECONDS.set((self._joiner.oldest_ms or 0) / 1000)

    def _count(self, output: JoinOutput, outcomes: OutcomeCounts) -> None:
        for task, n in Counter(task for example in output.examples for task in example.labels).items():
            metrics.EXAMPLES.labels(task if task in self._tasks else "other").inc(n)
        metrics.JUDGEMENTS.inc(len(output.judgements))
        for (outcome, task), n in outcomes.items():
            metrics.JOINS.labels(outcome, task).inc(n)

    def _pause_only(self, partitions: set[TopicPartition]) -> None:
        if partitions != self._paused:
            self._consumer.pause_only(partitions)
            self._paused = partitions

    def _new_joiner(self) -> PartitionedJoiner:
        return PartitionedJoiner(feedback=self._settings.feedback, tasks=self._settings.tasks)

    def _recover(self) -> None:
        """Read back what was said of what is read now, before anything is said; nobody else speaks from then on."""
        while not self._is_recovered:
            self._is_recovered = True  # partitions may come while others are asked about
            self._producer.fence_predecessors()
            offsets = self._retry.call("kafka", partial(self._consumer.query_offsets, set(self._consumer.assignment)))
            self._recovered = self._new_recovered_state(
                offsets, self._retry.call("kafka", partial(self._load_published, offsets))
            )
            self._joiner.restore(self._recovered.metadata)
            metrics.EXAMPLES_UNREMEMBERED.set(self._recovered.evicted)
            self._set_orphan_metrics()

    def _new_recovered_state(
        self, offsets: Mapping[TopicPartition, PartitionOffsets], published: PublishedOutputs
    ) -> RecoveredState:
        return RecoveredState(feedback=self._settings.feedback, offsets=offsets, published=published)

    def _set_orphan_metrics(self) -> None:
        metrics.ORPHAN_LABELS.clear()
        for task, n in self._recovered.orphans().items():
            metrics.ORPHAN_LABELS.labels(task).set(n)

    def _restart(self) -> None:
        """Forget what waits, and read again from the committed positions of the partitions that are left."""
        while self._partitions_changed:
            self._partitions_changed = self._is_recovered = False
            self._producer.fence_predecessors()  # so that what was being committed is, or never will be
            self._joiner, self._committed = self._new_joiner(), {}
            self._pause_only(set())
            partitions = set(self._consumer.assignment)
            self._joiner.add_partitions(partitions)
            offsets = self._retry.call("kafka", partial(self._consumer.query_offsets, partitions))
            starts = {
                partition: max(partition_offsets.low, partition_offsets.committed or 0)
                for partition, partition_offsets in offsets.items()
                if partition in self._consumer.assignment
            }
            self._retry.call("kafka", partial(self._consumer.seek, starts))

    def _heartbeat(self) -> None:
        """While Kafka is waited for: keep the membership in the group, and notice if partitions left."""
        self._consumer.heartbeat()
        self._raise_if_changed()

    def _raise_if_changed(self) -> None:
        if self._partitions_changed and self._in_batch:
            raise PartitionsChanged("The partitions of the joiner should stay while it joins. Found some taken away.")


def decode_record(kind: str, record: Record) -> ScoredRow | Event | None:
    """The scored row or event of a record; None for what cannot be read, whose dead letter the score worker writes."""
    try:
        if kind == "scored":
            return read_scored_row(record.value or b"")
        event, was_clamped = clamp(decode(kind, record.value), record.kafka_ms)
        metrics.CLAMPED_TIMESTAMPS.inc(was_clamped)
        return event
    except (BadEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("Passing a record of %s/%d at %d by: %s", *record.topic_partition, record.offset, error)
        metrics.UNREADABLE_RECORDS.labels(kind).inc()
        return None
