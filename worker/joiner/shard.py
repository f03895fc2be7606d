"""Shards: the partitions of one number of all joined topics, joined by themselves.

All records of a user are in partitions of one number, if the topics have as many partitions and their producers the
same partitioner. So a shard can move to another joiner, and the other shards of both keep their waiting rows.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from contract.joining.output import JoinOutput, OutcomeCounts
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.settings.reading import Settings
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.erasure.kafka_owners import NOTHING_ERASED, ErasedOffsets
from worker.joiner.decoding import CLOCK_LEAD_MS, RecordDecoder
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.partitioned_joiner import PartitionedJoiner
from worker.joiner.recovered_state import RecoveredState
from worker.joiner.watermarks import IdlePartitions

Commits = Mapping[TopicPartition, tuple[int, str]]  # position and metadata


class JoinerShard:
    """One shard: its waiting rows, and what earlier runs published and committed of it."""

    def __init__(
        self, *, settings: Settings, partitions: frozenset[TopicPartition], erasures: Erasures = NO_ERASURES
    ) -> None:
        """`erasures`: those known so far; they are not joined."""
        self.partitions = partitions
        self.is_verified = False  # nothing was committed by another process since this one's last commit
        self.joiner = PartitionedJoiner(feedback=settings.feedback, tasks=settings.tasks, erasures=erasures)
        self.joiner.add_partitions(partitions)
        self._feedback = settings.feedback
        self._recovered: RecoveredState | None = None
        self._idle = IdlePartitions[TopicPartition](after_s=settings.feedback.idle_ms / 1000)
        self._timely: set[TopicPartition] = set()
        self._untimely: set[TopicPartition] = set()
        self._committed: dict[TopicPartition, tuple[int | None, str]] = {}
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

    def recover(
        self, offsets: Mapping[TopicPartition, PartitionOffsets], published: PublishedOutputs, now_ms: int
    ) -> None:
        """Continue earlier runs, which committed `offsets` and published these outputs of records after them."""
        self._recovered = RecoveredState(
            feedback=self._feedback, offsets=offsets, published=published, clock_limit_ms=now_ms + CLOCK_LEAD_MS
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
            or any(self._committed.get(partition, (None,))[0] != offset for partition, offset in positions.items())
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

    def _find_positions(self) -> dict[TopicPartition, int]:
        """The positions of the partitions that were read, by this process or an earlier one."""
        committed = {partition: offset for partition, (offset, _) in self._committed.items() if offset is not None}
        return committed | self.joiner.safe_offsets()

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
        self._revoked = {}
        return starts

    def revoke(self) -> None:
        """No partition is assigned until the next assignment."""
        self._revoked |= self._shards
        self._shards = {}

    def erase(self, user_id: str, until_ms: int) -> None:
        """Remove what a user's erasure covers from all shards, also from those that wait for the next assignment."""
        for shard in (*self._shards.values(), *self._revoked.values()):
            shard.joiner.erase(user_id, until_ms)

    def list_unverified(self) -> list[JoinerShard]:
        """The shards that are new, or that another process may have joined in between."""
        return [shard for shard in self._shards.values() if not shard.is_verified]

    def replace(self, shard: JoinerShard) -> JoinerShard:
        """Drop the waiting rows of a shard; returns the empty one in its place."""
        self._shards[shard.number] = self._create(shard.partitions)
        return self._shards[shard.number]

    def reset(self) -> None:
        """Drop all waiting rows."""
        self._revoked = {}
        for shard in list(self._shards.values()):
            self.replace(shard)
