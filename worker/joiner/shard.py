"""Shards: the partitions of one number of all joined topics, joined by themselves.

All records of a user are in partitions of one number, if the topics have as many partitions and their producers the
same partitioner. So a shard can move to another joiner, and the other shards of both keep their waiting rows.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from contract.joining.output import JoinOutput, OutcomeCounts
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.settings.reading import Settings
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.erasure.kafka_owners import NOTHING_ERASED, ErasedOffsets
from worker.joiner.decoding import CLOCK_LEAD_MS, RecordDecoder
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.dedup_loader import start_offset
from worker.joiner.partitioned_joiner import PartitionedJoiner
from worker.joiner.recovered_state import RecoveredState
from worker.joiner.store.shard_store import ShardStore
from worker.joiner.watermarks import IdlePartitions
from worker.ops.retry import Retry

Commits = Mapping[TopicPartition, tuple[int, str]]  # position and metadata


class JoinerShard:
    """One shard: its waiting rows, and what earlier runs published and committed of it."""

    def __init__(
        self, *, settings: Settings, partitions: frozenset[TopicPartition], erasures: Erasures = NO_ERASURES
    ) -> None:
        """`erasures`: those known so far; they are not joined."""
        self.partitions = partitions
        self.store: ShardStore | None = None  # without one, rows wait in memory only
        self._settings, self._erasures = settings, erasures
        self.is_verified = False  # nothing was committed by another process since this one's last commit
        self.joiner = PartitionedJoiner(feedback=settings.feedback, tasks=settings.tasks, erasures=erasures)
        self.joiner.add_partitions(partitions)
        self._feedback = settings.feedback
        self._recovered: RecoveredState | None = None
        self._idle = IdlePartitions[TopicPartition](after_s=settings.feedback.idle_ms / 1000)
        self._timely: set[TopicPartition] = set()
        self._untimely: set[TopicPartition] = set()
        self._committed: dict[TopicPartition, tuple[int | None, str]] = {}
        self._saved: dict[TopicPartition, int] = {}
        self._has_erased = False  # since the last save
        self._committed_erased = NOTHING_ERASED

    @property
    def number(self) -> int:
        """The number of its partitions."""
        return next(iter(self.partitions)).partition

    @property
    def is_recovered(self) -> bool:
        return self._recovered is not None

    @property
    def recovered(self) -> RecoveredState:
        """What earlier runs left; only after `recover`."""
        assert self._recovered is not None
        return self._recovered

    def use_store(self, store: ShardStore | None) -> None:
        """Keep the waiting rows in this store from now on, and go on with those that are there."""
        self.store = store
        if store:
            feedback, tasks = self._settings.feedback, self._settings.tasks
            self.joiner = PartitionedJoiner(feedback=feedback, tasks=tasks, erasures=self._erasures, rows=store.rows)
            self.joiner.add_partitions(self.partitions)
            for entity, until_ms in self._erasures.until_ms.items():  # some were published after the store was written
                self.erase(entity.removeprefix("user:"), until_ms)
            self._saved = self.joiner.next_offsets()

    @property
    def is_stored(self) -> bool:
        """Whether it goes on with stored rows; else it reads the log from the committed positions."""
        return self.store is not None and not self.store.is_new

    def starts(self, offsets: Mapping[TopicPartition, PartitionOffsets]) -> dict[TopicPartition, int]:
        """Where to read on: after what the stored rows reflect, else at these committed offsets."""
        return {partition: start_offset(known) for partition, known in offsets.items()} | self.joiner.next_offsets()

    def recover(
        self, offsets: Mapping[TopicPartition, PartitionOffsets], published: PublishedOutputs, now_ms: int
    ) -> None:
        """Continue earlier runs, which committed `offsets` and published these outputs of records after them."""
        self._recovered = RecoveredState(
            feedback=self._feedback,
            offsets=offsets,
            published=published,
            clock_limit_ms=now_ms + CLOCK_LEAD_MS,
            rows=self.store.rows if self.store else None,
        )
        self.joiner.restore(self._recovered.metadata)
        self._committed = {partition: (known.committed, known.metadata) for partition, known in offsets.items()}
        self.is_verified = True

    def resume(self, offsets: Mapping[TopicPartition, PartitionOffsets]) -> bool:
        """Go on after the partitions were revoked and assigned again; False if another process has committed.

        Each commit names its writer, so equal commits prove that no other process joined these partitions.
        """
        committed = {partition: (known.committed, known.metadata) for partition, known in offsets.items()}
        self.is_verified = self.is_recovered and committed == self._committed
        self._idle = IdlePartitions(after_s=self._feedback.idle_ms / 1000)
        return self.is_verified

    def erase(self, user_id: str, until_ms: int) -> None:
        """Remove what a user's erasure covers from what waits."""
        self._has_erased |= self.joiner.erase(user_id, until_ms) > 0

    def push(self, record: Record, decoder: RecordDecoder) -> None:
        """Join a record; one that is fetched again after a rebalance is skipped."""
        partition = record.topic_partition
        if record.offset < self.joiner.next_offset(partition):
            return
        message, time = decoder.decode(record)
        is_timely = self.joiner.push(partition, record.offset, message, time)
        (self._timely if is_timely else self._untimely).add(partition)

    def advance(self, at_end: Iterable[TopicPartition], now_s: float) -> tuple[JoinOutput, int]:
        """The outputs that are ready and that no run has published, and the number of those withheld.

        `at_end`: partitions of any shard that have been read to their ends.
        """
        idle = self._idle.update(
            self.partitions.intersection(at_end), self._timely, self._untimely - self._timely, now_s
        )
        self._timely.clear()
        self._untimely.clear()
        return self.recovered.without_published(self.joiner.advance(idle))

    def take_outcomes(self) -> OutcomeCounts:
        """The outcomes since the last call."""
        outcomes = self.joiner.counts.copy()
        self.joiner.counts.clear()
        return outcomes

    def has_moved(self, erased: ErasedOffsets) -> bool:
        """Whether a position, or how far erasures are executed, is not yet committed."""
        positions = self._find_positions()
        return bool(positions) and (
            erased != self._committed_erased
            or any(self._get_committed(partition) != offset for partition, offset in positions.items())
        )

    def make_commits(self, writer: str, erased: ErasedOffsets) -> Commits:
        """The positions with their metadata; `writer` names this process, which has executed erasures to `erased`."""
        positions = self._find_positions()
        metadata = self.recovered.commit_metadata(self.joiner, positions, writer, erased)
        return {partition: (offset, metadata[partition]) for partition, offset in positions.items()}

    def mark_committed(self, commits: Commits, erased: ErasedOffsets) -> None:
        self._committed.update(commits)
        self._committed_erased = erased
        self.recovered.release_published({partition: offset for partition, (offset, _) in commits.items()})

    @property
    def uncommitted(self) -> int:
        """The number of rows and events that the next commit of the store writes or deletes; 0 without a store."""
        return self.joiner.uncommitted if self.store else 0

    def has_unsaved(self) -> bool:
        """Whether the store lacks records that were read, or outputs that were emitted."""
        return self.store is not None and (self.uncommitted > 0 or self.joiner.next_offsets() != self._saved)

    def save(self, at_end: Iterable[TopicPartition], output_ends: Mapping[TopicPartition, int], retry: Retry) -> None:
        """Write to the store what was committed to Kafka; `output_ends`: of the output topics since that commit."""
        if self.store:
            changes = self.joiner.changes()
            states = self.joiner.states() | self.recovered.states(self.joiner, at_end, output_ends)
            retry.call("store", partial(self.store.commit, changes, states))
            if self._has_erased:
                retry.call("store", self.store.purge)
                self._has_erased = False
            self.joiner.confirm_commit()
            self._saved = self.joiner.next_offsets()

    def close(self) -> None:
        """Close the store, for the next shard of this number to go on with."""
        if self.store:
            self.store.close()
            self.store = None

    def discard_store(self) -> None:
        """Throw the store away: its rows cannot be read."""
        if self.store:
            self.store.discard()
            self.store = None

    def _find_positions(self) -> dict[TopicPartition, int]:
        """The positions of the partitions that were read, by this process or an earlier one.

        Never before committed ones, which a store may be behind for a while.
        """
        committed = {partition: offset for partition, (offset, _) in self._committed.items() if offset is not None}
        safe = self.joiner.safe_offsets()
        return committed | {partition: max(offset, committed.get(partition, 0)) for partition, offset in safe.items()}

    def _get_committed(self, partition: TopicPartition) -> int | None:
        return self._committed.get(partition, (None,))[0]

    def is_empty(self, at_end: Iterable[TopicPartition]) -> bool:
        """Whether its partitions hold no record."""
        return not self.joiner.next_offsets() and self.partitions.issubset(at_end)


class ShardSet:
    """The shards of this process, by their number; those that were revoked wait for the next assignment."""

    def __init__(self, create: Callable[[frozenset[TopicPartition]], JoinerShard]) -> None:
        self._create = create
        self._shards: dict[int, JoinerShard] = {}
        self._revoked: dict[int, JoinerShard] = {}

    def __iter__(self) -> Iterator[JoinerShard]:
        return iter(self._shards.values())

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, number: int) -> JoinerShard:
        return self._shards[number]

    def assign(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Exactly these partitions are assigned; returns where to go on in the shards that this process had before."""
        by_number = defaultdict[int, set[TopicPartition]](set)
        for partition in partitions:
            by_number[partition.partition].add(partition)
        leaving = self._shards | self._revoked
        self._shards = {}
        starts: dict[TopicPartition, int] = {}
        for number, members in by_number.items():
            shard = self._revoked.get(number)
            if shard and shard.is_recovered and shard.partitions == members:
                shard.is_verified = False
                starts |= shard.joiner.next_offsets()
            else:
                shard = self._create(frozenset(members))
            self._shards[number] = shard
        for shard in leaving.values():
            if shard not in self._shards.values():
                shard.close()
        self._revoked = {}
        return starts

    def revoke(self) -> None:
        """No partition is assigned until the next assignment."""
        self._revoked |= self._shards
        self._shards = {}

    def erase(self, user_id: str, until_ms: int) -> None:
        """Remove what a user's erasure covers from all shards, also from those that wait for the next assignment."""
        for shard in (*self._shards.values(), *self._revoked.values()):
            shard.erase(user_id, until_ms)

    def list_unverified(self) -> list[JoinerShard]:
        """The shards that are new, or that another process may have joined in between."""
        return [shard for shard in self._shards.values() if not shard.is_verified]

    def replace(self, shard: JoinerShard) -> JoinerShard:
        """Drop the waiting rows of a shard; returns the empty one in its place."""
        shard.close()
        self._shards[shard.number] = self._create(shard.partitions)
        return self._shards[shard.number]

    def reset(self) -> None:
        """Drop all waiting rows."""
        self.close_revoked()
        for shard in list(self._shards.values()):
            self.replace(shard)

    def close(self) -> None:
        """Close the stores of all shards."""
        self.close_revoked()
        for shard in self:
            shard.close()

    def close_revoked(self) -> None:
        for shard in self._revoked.values():
            shard.close()
        self._revoked = {}
