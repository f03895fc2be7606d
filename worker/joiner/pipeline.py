"""The joiner's loop: reads records, publishes examples and judgements, commits positions that lag behind open rows.

After a crash all open rows are read again. Outputs that were published are loaded first and not published twice. With
transactions this is exact, because outputs and positions are committed together.
The joined topics may be read at different speeds; partitions that get ahead are paused.
Several joiners share the topics by partition number: each number is a shard of its own, which moves as a whole.
"""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Final

from contract.joining.output import JoinOutput, OutcomeCounts
from contract.messages import to_json, to_msgpack
from contract.profiles.record import JUDGED_TASKS
from contract.settings.reading import Settings
from transport.kafka_times import read_clock_ms
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.joiner.decoding import RecordDecoder
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.dedup_loader import DedupLoader, make_shard_header, start_offset
from worker.joiner.erasures import JoinerErasures
from worker.joiner.membership import JoinerMembership, PartitionsChanged
from worker.joiner.shard import JoinerShard, ShardSet
from worker.kafka.consumer import GroupConsumer
from worker.kafka.outgoing import OutgoingRecord, leave_out
from worker.kafka.producer import TransactionalProducer
from worker.ops import metrics
from worker.ops.retry import Retry
from worker.ops.steps import Step, StepMarker

log = logging.getLogger(__name__)
KINDS: Final = ("scored", "impressions", "clicks", "orders", "labels")
MISMATCH_CHECK_S: Final = 1.0
Positions = dict[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of this machine: steady seconds, and wall-clock milliseconds since 1970."""

    steady_s: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = read_clock_ms


class JoinerPipeline:
    """Moves batches from the consumer through the shards to the producer; the rebalance listener of the consumer."""

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        *,
        settings: Settings,
        consumer: GroupConsumer,
        membership: JoinerMembership,
        producer: TransactionalProducer,
        retry: Retry,
        step_marker: StepMarker | None = None,
        erasures: JoinerErasures | None = None,
        clocks: Clocks | None = None,
        load_published: Callable[[Mapping[TopicPartition, PartitionOffsets]], Mapping[int, PublishedOutputs]]
        | None = None,
    ) -> None:
        """`load_published` returns what earlier runs published of records from the given offsets on, by shard."""
        self._settings = self._shard_settings = settings
        self._clocks = clocks or Clocks()
        self._load_published = load_published or DedupLoader(settings=settings, on_poll=membership.heartbeat).load
        kinds_by_topic = {settings.topics.topic_name(kind): kind for kind in KINDS}
        self._topics = list(kinds_by_topic)
        self._decoder = RecordDecoder(kinds_by_topic=kinds_by_topic, clock_ms=self._clocks.wall_ms)
        self._tasks = {*JUDGED_TASKS, *(task.name for task in settings.tasks)}
        self._consumer = consumer
        self._membership = membership
        self._producer = producer
        self._retry = retry
        self._mark_step = step_marker or StepMarker()
        self._erasures = erasures or JoinerErasures()
        self._shards = ShardSet(
            lambda partitions: JoinerShard(
                settings=self._shard_settings, partitions=partitions, erasures=self._erasures.known
            )
        )
        self._writer = uuid.uuid4().hex[:12]
        self._paused: set[TopicPartition] = set()
        self._mismatch: str | None = None
        self._mismatch_due_s = 0.0
        self._have_orphans_changed = True

    @property
    def topics(self) -> list[str]:
        return self._topics

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Join exactly these partitions: new ones from their committed positions, the others from where they were."""
        self._paused = set()
        self._have_orphans_changed, self._mismatch_due_s = True, 0.0
        return self._shards.assign(partitions)

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        """Join nothing until the next assignment; the waiting rows are kept in case that it is the same."""
        self._membership.has_changed = True
        self._shards.revoke()

    def step(self) -> int:
        """Join one batch and publish the outputs that are ready; returns the number of records read."""
        worker = self._settings.worker
        self._mark_step(Step.IDLE)
        records = self._consumer.poll(worker.batch_max, worker.wait_ms)
        self._membership.has_changed = False  # no batch was in flight during the poll
        try:
            with self._membership.batch():
                if self._is_held():
                    return 0
                restarted = self._recover()
                for user_id, until_ms in self._erasures.poll():
                    self._shards.erase(user_id, until_ms)
                self._publish(self._join([record for record in records if record.topic_partition not in restarted]))
        except PartitionsChanged as changed:
            log.warning("Restarting the join from the committed positions: %s", changed)
            self._restart()
        return len(records)

    def progress(self) -> tuple[Positions, Positions]:
        """Position and end offset of each partition; ends only of those that are not paused."""
        ends = self._consumer.end_offsets()
        positions = {partition: end for partition, end in self._consumer.at_end.items() if partition in ends}
        for shard in self._shards:
            positions = shard.joiner.next_offsets() | positions
        return positions, {partition: end for partition, end in ends.items() if partition not in self._paused}

    def not_ready_reason(self) -> str | None:
        """Why the assigned partitions cannot be joined, or None: one consumer should read all records of a user."""
        if self._mismatch:
            return self._mismatch
        partitions = {
            topic: {p.partition for p in self._consumer.assignment if p.topic == topic} for topic in self._topics
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
        self._erasures.close()

    def _join(self, records: list[Record]) -> list[OutgoingRecord]:
        # Behind an open transaction a partition is silent, and yet its records are to come.
        at_end = self._consumer.at_end.keys() - self._consumer.held_back.keys()
        self._mark_step(Step.READ)
        for record in records:
            metrics.EVENTS.labels(self._decoder.kinds_by_topic[record.topic_partition.topic]).inc()
            self._shards[record.topic_partition.partition].push(record, self._decoder)
        outgoing: list[OutgoingRecord] = []
        outcomes: OutcomeCounts = Counter()
        for shard in self._shards:
            output, withheld = shard.advance(at_end, self._clocks.steady_s())
            outgoing += self._encode(output, shard.number)
            outcomes += shard.take_outcomes()
            metrics.EXAMPLES_WITHHELD.inc(withheld)
            self._have_orphans_changed |= bool(output.orphans)
            count_output(output, self._tasks)
        for (outcome, task), n in outcomes.items():
            metrics.JOINS.labels(outcome, task).inc(n)
        self._pause_only({partition for shard in self._shards for partition in shard.joiner.partitions_ahead()})
        return outgoing

    def _encode(self, output: JoinOutput, shard: int) -> list[OutgoingRecord]:
        topics, headers = self._settings.topics, [make_shard_header(shard)]
        return [
            *(OutgoingRecord(topics.feedback, e.user_id, to_msgpack(e), headers, leave_out) for e in output.examples),
            *(OutgoingRecord(topics.judgements, j.user_id, to_json(j), headers, leave_out) for j in output.judgements),
        ]

    def _publish(self, outgoing: list[OutgoingRecord]) -> None:
        erased = self._erasures.read_offsets()
        if outgoing or any(shard.has_moved(erased) for shard in self._shards):
            commits = [(shard, shard.make_commits(self._writer, erased)) for shard in self._shards]
            merged = {partition: commit for _, each in commits for partition, commit in each.items()}
            self._mark_step(Step.PUBLISH)
            self._producer.publish(
                outgoing,
                {partition: offset for partition, (offset, _) in merged.items()},
                self._consumer,
                {partition: metadata for partition, (_, metadata) in merged.items()},
            )
            for shard, shard_commits in commits:
                shard.mark_committed(shard_commits, erased)
        self._set_metrics()

    def _pause_only(self, partitions: set[TopicPartition]) -> None:
        if partitions != self._paused:
            self._consumer.pause_only(partitions)
            self._paused = partitions

    def _is_held(self) -> bool:
        """Whether the topics cannot be joined by partition number: then nothing is read, rather than joined wrongly."""
        now_s = self._clocks.steady_s()
        if self._shards.list_unverified() and now_s >= self._mismatch_due_s:
            self._mismatch_due_s = now_s + MISMATCH_CHECK_S
            was_held, self._mismatch = bool(self._mismatch), self._retry.call("kafka", self._find_mismatch)
            if self._mismatch:
                self._pause_only(set(self._consumer.assignment))
            elif was_held:
                self._drop_rows()  # records that were polled until now have to be read again
                return True
        return self._mismatch is not None

    def _recover(self) -> set[TopicPartition]:
        """Verify or recover the shards of a new assignment, before anything is published.

        Returns the partitions that are read again from elsewhere than where they were polled.
        """
        restarted: set[TopicPartition] = set()
        if not (unverified := self._shards.list_unverified()):
            return restarted
        if not all(shard.is_recovered for shard in unverified):
            # Ends a commit in flight of an earlier process of this instance either way.
            self._producer.fence_predecessors()
        partitions = {partition for shard in unverified for partition in shard.partitions}
        offsets = self._retry.call("kafka", partial(self._consumer.query_offsets, partitions))
        new = []
        for shard in unverified:
            own = {partition: offsets[partition] for partition in shard.partitions}
            if shard.is_recovered and shard.resume(own):
                continue
            if shard.is_recovered:
                restarted |= shard.partitions
            new.append((self._shards.replace(shard), own))
        if new:
            self._load(new)
            self._have_orphans_changed = True
        self._seek({partition: offsets[partition] for partition in restarted})
        return restarted

    def _load(self, shards: list[tuple[JoinerShard, dict[TopicPartition, PartitionOffsets]]]) -> None:
        """Load what earlier runs published of these shards, which start at these offsets."""
        offsets = {partition: known for _, own in shards for partition, known in own.items()}
        published = self._retry.call("kafka", partial(self._load_published, offsets))
        for shard, own in shards:
            shard.recover(own, published[shard.number], self._clocks.wall_ms())
        metrics.EXAMPLES_UNREMEMBERED.set(sum(outputs.evicted for outputs in published.values()))

    def _find_mismatch(self) -> str | None:
        """Why the topics cannot be joined by partition number, or None; sets the limits of each shard."""
        counts = self._consumer.count_partitions(self._topics)
        if len(set(counts.values())) > 1:
            count_texts = ", ".join(f"{topic}: {count}" for topic, count in counts.items())
            smaller = [topic for topic, count in counts.items() if count < max(counts.values())]
            return (
                f"The joined topics should have the same number of partitions. Found {count_texts}. "
                f"Nothing is joined until `kafka-topics.sh --alter --partitions {max(counts.values())} --topic` "
                f"has been run for {' and '.join(smaller)}."
            )
        self._shard_settings = divide_limits(self._settings, max(counts.values(), default=1))
        return None

    def _seek(self, offsets: Mapping[TopicPartition, PartitionOffsets]) -> None:
        starts = {
            partition: start_offset(known)
            for partition, known in offsets.items()
            if partition in self._consumer.assignment
        }
        self._retry.call("kafka", partial(self._consumer.seek, starts))

    def _set_metrics(self) -> None:
        shards = [shard for shard in self._shards if not shard.is_empty(self._consumer.at_end)]
        metrics.JOINER_SHARDS.set(len(self._shards))
        metrics.STREAM_TIME_SECONDS.set(min((shard.joiner.now_ms or 0 for shard in shards), default=0) / 1000)
        open_ms = [shard.joiner.oldest_ms for shard in shards]
        metrics.OLDEST_OPEN_SECONDS.set(min((ms for ms in open_ms if ms is not None), default=0) / 1000)
        if self._have_orphans_changed:
            self._have_orphans_changed = False
            self._set_orphan_metrics()

    def _set_orphan_metrics(self) -> None:
        orphans: Counter[str] = Counter()
        for shard in self._shards:
            orphans += shard.recovered.orphans()
        metrics.ORPHAN_LABELS.clear()
        for task, n in orphans.items():
            metrics.ORPHAN_LABELS.labels(task).set(n)

    def _restart(self) -> None:
        """Drop the open rows, and read again from the committed positions of the partitions that remain."""
        while self._membership.has_changed:
            self._membership.has_changed = False
            self._drop_rows()

    def _drop_rows(self) -> None:
        """Start all shards again at their committed positions."""
        self._producer.fence_predecessors()  # ends a commit in flight either way, before the positions are queried
        self._shards.reset()
        self._pause_only(set())
        partitions = set(self._consumer.assignment)
        self._seek(self._retry.call("kafka", partial(self._consumer.query_offsets, partitions)))


def count_output(output: JoinOutput, tasks: Set[str]) -> None:
    """Count what is published; tasks that are not the model's count together."""
    for task, n in Counter(task for example in output.examples for task in example.labels).items():
        metrics.EXAMPLES.labels(task if task in tasks else "other").inc(n)
    metrics.JUDGEMENTS.inc(len(output.judgements))


def divide_limits(settings: Settings, shards: int) -> Settings:
    """The settings of one of `shards` shards: all of them together keep the limits."""
    feedback = settings.feedback
    limits = {"rows_max": -(-feedback.rows_max // shards), "parked_max": -(-feedback.parked_max // shards)}
    return settings.model_copy(update={"feedback": feedback.model_copy(update=limits)})
