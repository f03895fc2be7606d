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
from typing import Final, Protocol

from contract.joining.output import JoinOutput, OutcomeCounts
from contract.joining.row_store import BrokenStore
from contract.messages import to_json, to_msgpack
from contract.profiles.record import JUDGED_TASKS
from contract.settings.reading import Settings
from transport.kafka_times import read_clock_ms
from transport.record_reader import open_record_reader
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.erasure.kafka_owners import NOTHING_ERASED
from worker.group.consumer import GroupConsumer
from worker.joiner.decoding import JOINED_EVENTS, RecordDecoder
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.dedup_loader import DedupLoader, make_shard_header, start_offset
from worker.joiner.erasures import JoinerErasures
from worker.joiner.foreign_labels import ForeignLabelLog
from worker.joiner.membership import JoinerMembership, PartitionsChanged
from worker.joiner.recovered_state import read_output_starts
from worker.joiner.shard import JoinerShard, ShardSet
from worker.joiner.store.shard_store import ShardStore
from worker.joiner.store.store_folder import StoreFolder
from worker.kafka.outgoing import OutgoingRecord, leave_out
from worker.kafka.producer import OutcomeUnknown, TransactionalProducer
from worker.ops import metrics
from worker.ops.retry import Retry
from worker.ops.steps import Step, StepMarker
from worker.probes.progress import Pause, Progress
from worker.records.intake import make_event_readers

log = logging.getLogger(__name__)
KINDS: Final = ("scored", *JOINED_EVENTS)
MISMATCH_CHECK_S: Final = 1.0
UNSAVED_MAX: Final = 50_000  # changed rows and events that are in memory until they are saved
Positions = dict[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of this machine: steady seconds, and wall-clock milliseconds since 1970."""

    steady_s: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = read_clock_ms


class PublishedLog(Protocol):
    """Reads the output topics; each call raises `Unavailable`."""

    def load(self, offsets: Mapping[TopicPartition, PartitionOffsets]) -> Mapping[int, PublishedOutputs]:
        """By shard, the outputs that earlier runs published of records at or after these offsets of the input."""

    def load_from(self, numbers: Set[int], starts: Positions) -> Mapping[int, PublishedOutputs]:
        """By shard, the outputs at or after these offsets of the output."""

    def fetch_ends(self) -> Positions:
        """The present ends of the output."""


@dataclass(frozen=True, slots=True)
class JoinerRecovery:
    """What a restarted joiner goes on with: earlier outputs (by default read from Kafka), and rows on disk, if any."""

    outputs: PublishedLog | None = None
    stores: StoreFolder | None = None


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
        recovery: JoinerRecovery | None = None,
    ) -> None:
        self._settings = self._shard_settings = settings
        self._clocks = clocks or Clocks()
        recovery = recovery or JoinerRecovery()
        self._outputs = recovery.outputs or DedupLoader(settings=settings, on_poll=membership.heartbeat)
        self._stores = recovery.stores
        self._save_due_s = 0.0
        self._saved_erased = NOTHING_ERASED
        readers = make_event_readers(settings)
        reader = open_record_reader(settings, readers, retry.call)
        self._topics = [settings.topics.scored, *reader.topics.names_of(JOINED_EVENTS)]
        kinds_by_topic = {topic: reader.topics.kinds[topic][0] for topic in self._topics[1:]}
        self._decoder = RecordDecoder(
            kinds_by_topic={settings.topics.scored: "scored", **kinds_by_topic},
            clock_ms=self._clocks.wall_ms,
            readers=readers,
            record_reader=reader,
        )
        self._tasks = {*JUDGED_TASKS, *(task.name for task in settings.tasks)}
        self.consumer = consumer
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
        self._foreign_labels = ForeignLabelLog(self._clocks.steady_s)

    @property
    def topics(self) -> list[str]:
        return self._topics

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Join exactly these partitions: new ones from their committed positions, the others from where they were."""
        self._paused = set()
        self._membership.has_changed = True  # a batch in flight does not know these shards
        self._have_orphans_changed, self._mismatch_due_s = True, 0.0
        return self._shards.assign(partitions)

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        """Join nothing until the next assignment; the waiting rows are kept in case that it is the same."""
        self._membership.has_changed = True
        self._paused = set()  # the member forgets its own
        self._shards.revoke()

    def step(self) -> int:
        """Join one batch and publish the outputs that are ready; returns the number of records read."""
        worker = self._settings.worker
        self._mark_step(Step.IDLE)
        records = self.consumer.poll(worker.batch_max, worker.wait_ms)
        self._membership.has_changed = False  # no batch was in flight during the poll
        try:
            with self._membership.batch():
                if self._is_held():
                    return 0
                restarted = self._recover()
                for user_id, until_ms in self._erasures.poll():
                    self._shards.erase(user_id, until_ms)
                    self._save_due_s = 0.0  # an erasure is executed once the stores lack the user's rows
                self._membership.raise_if_changed()  # else shards that came during a wait would not be recovered
                self._publish(self._join([record for record in records if record.topic_partition not in restarted]))
        except (PartitionsChanged, OutcomeUnknown) as changed:
            self._membership.has_changed = True
            log.warning("Restarting the join from the committed positions: %s", changed)
            self._restart()
        except BrokenStore as broken:
            log.error("The stored rows are thrown away, and the log is read again: %s", broken)
            metrics.STORES_DISCARDED.inc()
            for shard in self._shards:
                shard.discard_store()
            self._drop_rows()
        return len(records)

    def progress(self) -> tuple[Positions, Positions]:
        """Position and end offset of each partition."""
        ends = self.consumer.end_offsets()
        positions = {partition: max(0, start) for partition, start in self.consumer.starts.items()}
        for shard in self._shards:
            positions |= shard.joiner.next_offsets()
        positions |= {partition: end for partition, end in self.consumer.at_end.items() if partition in ends}
        return positions, ends

    def publish_progress(self, progress: Progress) -> None:
        """Tell the threads that watch this one how far it is.

        A paused partition advances as long as some partition of its shard does.
        """
        positions, ends = self.progress()
        read = {
            partition: sum(positions.get(other, 0) for other in shard.partitions)
            for shard in self._shards
            for partition in shard.partitions & self._paused
        }
        missing = self.consumer.missing
        progress.publish(positions, ends, folded=read, missing=missing, paused=self._find_pauses())

    def name_held_back(self) -> None:
        """Show which partitions hold the stream time back: those that are neither read to their ends nor idle."""
        metrics.STREAM_TIME_HELD_SECONDS.clear()
        for shard in self._shards:
            for (topic, number), held_ms in shard.joiner.measure_held_ms().items():
                metrics.STREAM_TIME_HELD_SECONDS.labels(topic, str(number)).set(held_ms / 1000)

    def _find_pauses(self) -> dict[TopicPartition, Pause]:
        """For what each paused partition waits."""
        pauses = dict.fromkeys(self._paused, Pause())
        for shard in self._shards if not self._mismatch else ():
            held_ms = shard.joiner.measure_held_ms()
            if reading := held_ms.keys() - self._paused:
                slowest = max(reading, key=held_ms.__getitem__)
                pause = Pause(slowest, slowest in self.consumer.at_end)
                pauses |= dict.fromkeys(shard.partitions & self._paused, pause)
        return pauses

    def not_ready_reason(self) -> str | None:
        """Why the assigned partitions cannot be joined, or None: one consumer should read all records of a user."""
        if self._mismatch:
            return self._mismatch
        partitions = {
            topic: {p.partition for p in self.consumer.assignment if p.topic == topic} for topic in self._topics
        }
        if not self.consumer.assignment:
            return "The joiner should have partitions to read. Found none so far."
        if len(set(map(frozenset, partitions.values()))) > 1:
            assignment = ", ".join(f"{topic}: {sorted(numbers)}" for topic, numbers in partitions.items())
            return f"The joiner should read the same partitions of each topic. Found {assignment}."
        return None

    def close(self) -> None:
        """Leave the group; records after the committed positions will be read again."""
        self.consumer.close()
        self._producer.close()
        self._shards.close()
        self._erasures.close()

    def _join(self, records: list[Record]) -> list[OutgoingRecord]:
        # Behind an open transaction a partition is silent, and yet its records are to come.
        at_end = self.consumer.at_end.keys() - self.consumer.held_back.keys()
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
            self._foreign_labels.report(output.foreign)
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
        executed = self._erasures.read_offsets()
        saved = self._list_saved()
        erased = self._saved_erased if self._stores else executed
        if outgoing or saved or any(shard.has_moved(erased) for shard in self._shards):
            commits = [(shard, shard.make_commits(self._writer, erased)) for shard in self._shards]
            merged = {partition: commit for _, each in commits for partition, commit in each.items()}
            self._mark_step(Step.PUBLISH)
            self._producer.publish(
                outgoing,
                {partition: offset for partition, (offset, _) in merged.items()},
                self.consumer,
                {partition: metadata for partition, (_, metadata) in merged.items()},
            )
            for shard, shard_commits in commits:
                shard.mark_committed(shard_commits, erased)
        if saved:
            self._save(saved)
        if not any(shard.has_unsaved() for shard in self._shards):
            self._saved_erased = executed
        self._set_metrics()

    def _list_saved(self) -> list[JoinerShard]:
        """The shards to save after this batch: all that have changed, from time to time or when much has."""
        is_due = self._clocks.steady_s() >= self._save_due_s
        unsaved = [shard for shard in self._shards if shard.has_unsaved()]
        return unsaved if is_due or sum(shard.uncommitted for shard in unsaved) > UNSAVED_MAX else []

    def _save(self, shards: list[JoinerShard]) -> None:
        """Save shards after their commit to Kafka, never before: outputs that are not published would be lost."""
        output_ends = self._retry.call("kafka", self._outputs.fetch_ends)
        for shard in shards:
            shard.save(self.consumer.at_end.keys(), output_ends, self._retry)
        metrics.STORE_BYTES.set(sum(shard.store.size_bytes() for shard in self._shards if shard.store))
        self._save_due_s = self._clocks.steady_s() + self._settings.feedback.save_ms / 1000

    def _pause_only(self, partitions: set[TopicPartition]) -> None:
        if partitions != self._paused:
            self.consumer.pause_only(partitions)
            self._paused = partitions

    def _is_held(self) -> bool:
        """Whether the topics cannot be joined by partition number: then nothing is read, rather than joined wrongly."""
        now_s = self._clocks.steady_s()
        if self._shards.list_unverified() and now_s >= self._mismatch_due_s:
            self._mismatch_due_s = now_s + MISMATCH_CHECK_S
            was_held, self._mismatch = bool(self._mismatch), self._retry.call("kafka", self._find_mismatch)
            if self._mismatch:
                self._pause_only(set(self.consumer.assignment))
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
        offsets = self._retry.call("kafka", partial(self.consumer.query_offsets, partitions))
        new = []
        for shard in unverified:
            own = {partition: offsets[partition] for partition in shard.partitions}
            if shard.is_recovered and shard.resume(own):
                continue
            if shard.is_recovered:
                restarted |= shard.partitions
            new.append((self._shards.replace(shard), own))
        if new:
            self._open_stores(new)
            self._load(new)
            self._have_orphans_changed = True
            restarted |= {p for shard, _ in new if shard.joiner.next_offsets() for p in shard.partitions}
        starts = {partition: start for shard, own in new for partition, start in shard.starts(own).items()}
        self._seek({partition: starts[partition] for partition in restarted})
        return restarted

    def _open_stores(self, shards: list[tuple[JoinerShard, dict[TopicPartition, PartitionOffsets]]]) -> None:
        """Let the shards go on with their stored rows, and delete those of shards that have moved away."""
        if self._stores:
            self._stores.keep_only({shard.number for shard in self._shards})
            for shard, own in shards:
                shard.use_store(self._retry.call("kafka", partial(self._stores.open, own)))

    def _load(self, shards: list[tuple[JoinerShard, dict[TopicPartition, PartitionOffsets]]]) -> None:
        """Load what earlier runs published of these shards, which start at these offsets."""
        from_log = {
            partition: known for shard, own in shards if not shard.is_stored for partition, known in own.items()
        }
        published = dict(self._load_after({s.number: s.store for s, _ in shards if s.store and s.is_stored}))
        if from_log:
            published |= self._retry.call("kafka", partial(self._outputs.load, from_log))
        for shard, own in shards:
            shard.recover(own, published[shard.number], self._clocks.wall_ms())
        metrics.EXAMPLES_UNREMEMBERED.set(sum(outputs.evicted for outputs in published.values()))

    def _load_after(self, stores: Mapping[int, ShardStore]) -> Mapping[int, PublishedOutputs]:
        """Load what was published after the stores of these shards were written."""
        starts: Positions = {}
        for store in stores.values():
            for partition, offset in read_output_starts(store.rows).items():
                starts[partition] = min(offset, starts.get(partition, offset))
        return self._retry.call("kafka", partial(self._outputs.load_from, stores.keys(), starts)) if stores else {}

    def _find_mismatch(self) -> str | None:
        """Why the topics cannot be joined by partition number, or None; sets the limits of each shard."""
        counts = self.consumer.count_partitions(self._topics)
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

    def _seek(self, starts: Positions) -> None:
        assigned = {partition: start for partition, start in starts.items() if partition in self.consumer.assignment}
        self._retry.call("kafka", partial(self.consumer.seek, assigned))

    def _set_metrics(self) -> None:
        shards = [shard for shard in self._shards if not shard.is_empty(self.consumer.at_end)]
        metrics.JOINER_SHARDS.set(len(self._shards))
        metrics.WAITING_ROWS.set(sum(len(shard.joiner) for shard in self._shards))
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
        # The assignment of each attempt: it may change during a wait.
        offsets = self._retry.call("kafka", lambda: self.consumer.query_offsets(set(self.consumer.assignment)))
        self._seek({partition: start_offset(known) for partition, known in offsets.items()})


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
