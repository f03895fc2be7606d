"""The joiner's loop: reads records, publishes examples and judgements, commits positions that lag behind open rows.

After a crash all open rows are read again. Outputs that were published are loaded first and not published twice. With
transactions this is exact, because outputs and positions are committed together.
The joined topics may be read at different speeds; partitions that get ahead are paused.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from contract.errors import BadEvent
from contract.events import Event, clamp, decode
from contract.joining.output import JoinOutput, OutcomeCounts
from contract.messages import ScoredRow, read_scored_row, to_json, to_msgpack
from contract.profiles.record import JUDGED_TASKS
from contract.settings.reading import Settings
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.dedup_loader import DedupLoader, start_offset
from worker.joiner.membership import JoinerMembership, PartitionsChanged
from worker.joiner.partitioned_joiner import PartitionedJoiner
from worker.joiner.recovered_state import RecoveredState
from worker.joiner.watermarks import IdlePartitions
from worker.kafka.consumer import GroupConsumer
from worker.kafka.producer import OutgoingRecord, TransactionalProducer
from worker.ops import metrics
from worker.ops.retry import Retry

log = logging.getLogger(__name__)
KINDS: Final = ("scored", "impressions", "clicks", "orders", "labels")


class JoinerPipeline:
    """Moves batches from the consumer through the joiner to the producer; the rebalance listener of the consumer."""

    def __init__(
        self,
        *,
        settings: Settings,
        consumer: GroupConsumer,
        membership: JoinerMembership,
        producer: TransactionalProducer,
        retry: Retry,
        clock_s: Callable[[], float] = time.monotonic,
        load_published: Callable[[Mapping[TopicPartition, PartitionOffsets]], PublishedOutputs] | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """`load_published` returns the outputs that earlier runs published of records from the given offsets on.

        `on_progress` is called while that takes its time.
        """
        self._settings = settings
        self._clock_s = clock_s
        self._on_progress = on_progress
        self._load_published = load_published or DedupLoader(settings=settings, on_chunk=self._on_chunk).load
        self._kinds = {settings.topics.topic_name(kind): kind for kind in KINDS}
        self._tasks = {*JUDGED_TASKS, *(task.name for task in settings.tasks)}
        self._consumer = consumer
        self._membership = membership
        self._producer = producer
        self._retry = retry
        self._joiner = self._new_joiner()
        self._idle_partitions = IdlePartitions[TopicPartition](after_s=settings.feedback.idle_ms / 1000)
        self._committed: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._recovered = self._new_recovered_state({}, PublishedOutputs(limit=1))
        self._is_recovered = True

    @property
    def topics(self) -> list[str]:
        return list(self._kinds)

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Start new partitions at their committed positions, and restart joining if others were read before."""
        if self._joiner.next_offsets():
            self._membership.has_changed = True
        self._joiner.add_partitions(partitions)
        self._is_recovered = False
        return {}

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        """Restart joining: the open rows lack a part from now on, so the remaining partitions are read again."""
        self._membership.has_changed = True

    def step(self) -> int:
        """Join one batch and publish the outputs that are ready; returns the number of records read."""
        worker = self._settings.worker
        records = self._consumer.poll(worker.batch_max, worker.wait_ms)
        try:
            with self._membership.batch():
                self._recover()
                self._publish(self._join(records))
        except PartitionsChanged as changed:
            log.warning("Restarting the join from the committed positions: %s", changed)
            self._restart()
        return len(records)

    def progress(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Position and end offset of each partition; ends only of those that are not paused."""
        ends = self._consumer.end_offsets()
        at_end = {partition: end for partition, end in self._consumer.at_end.items() if partition in ends}
        return self._joiner.next_offsets() | at_end, {
            partition: end for partition, end in ends.items() if partition not in self._paused
        }

    def not_ready_reason(self) -> str | None:
        """Why the assigned partitions cannot be joined, or None: one consumer should read all records of a user."""
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
        """Leave the group; records after the committed positions will be read again."""
        self._consumer.close()
        self._producer.close()

    def _join(self, records: list[Record]) -> JoinOutput:
        read = {record.topic_partition for record in records}
        # Behind an open transaction a partition is silent, and yet its records are to come.
        at_end = self._consumer.at_end.keys() - self._consumer.held_back.keys()
        idle = self._idle_partitions.update(at_end, read, self._clock_s())
        counts_before = self._joiner.counts.copy()
        for record in records:
            kind = self._kinds[record.topic_partition.topic]
            metrics.EVENTS.labels(kind).inc()
            self._joiner.push(record.topic_partition, record.offset, decode_record(kind, record))
        output = self._drop_published(self._joiner.advance(idle))
        self._pause_only(self._joiner.partitions_ahead())
        self._count(output, self._joiner.counts - counts_before)
        return output

    def _on_chunk(self) -> None:
        self._on_progress()
        self._membership.heartbeat()

    def _drop_published(self, output: JoinOutput) -> JoinOutput:
        """The outputs that no run has published."""
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
                outgoing,
                positions,
                self._consumer,
                self._recovered.commit_metadata(self._joiner, positions),
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
        """Fence older producers and load the published outputs of records that are read again, before publishing."""
        while not self._is_recovered:
            self._is_recovered = True  # a rebalance during the queries below resets it
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
        """Drop the open rows, and read again from the committed positions of the partitions that remain."""
        while self._membership.has_changed:
            self._membership.has_changed = False
            self._is_recovered = False
            # Ends a commit in flight either way, before the positions are queried.
            self._producer.fence_predecessors()
            self._joiner = self._new_joiner()
            self._committed = {}
            self._pause_only(set())
            partitions = set(self._consumer.assignment)
            self._joiner.add_partitions(partitions)
            offsets = self._retry.call("kafka", partial(self._consumer.query_offsets, partitions))
            starts = {
                partition: start_offset(partition_offsets)
                for partition, partition_offsets in offsets.items()
                if partition in self._consumer.assignment
            }
            self._retry.call("kafka", partial(self._consumer.seek, starts))


def decode_record(kind: str, record: Record) -> ScoredRow | Event | None:
    """The scored row or event of a record; None if it is unreadable (the score worker writes its dead letter)."""
    try:
        if kind == "scored":
            return read_scored_row(record.value or b"")
        event, was_clamped = clamp(decode(kind, record.value), record.kafka_ms)
        metrics.CLAMPED_TIMESTAMPS.inc(was_clamped)
        return event
    except (BadEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning(
            "Skipping unreadable record %s: %s",
            record.topic_partition.log_text(record.offset),
            error,
            extra=record.topic_partition.log_fields(record.offset),
        )
        metrics.UNREADABLE_RECORDS.labels(kind).inc()
        return None
