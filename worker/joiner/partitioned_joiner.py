"""The joiner over partitions, and the offset from which each has to be read again after a crash. Pure.

The log is what a joiner without a store of waiting rows is restored from. So the position committed for a partition is
that of its earliest record that an open row may need.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from contract.events.model import Event
from contract.hashing import hash_text
from contract.joining.joiner import Joiner
from contract.joining.output import JoinOutput, Origin, OutcomeCounts
from contract.joining.row_store import RowStore, TableChanges
from contract.messages import ScoredRow
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task
from transport.records import TopicPartition
from worker.erasure.kafka_owners import NOTHING_ERASED, ErasedOffsets
from worker.joiner.commit_metadata import EMPTY_METADATA, CommitMetadata
from worker.joiner.offset_index import OffsetIndexState, TimeOffsetIndex
from worker.joiner.watermarks import RecordTime, UserTimes, Watermarks


class PartitionState(Struct, frozen=True):
    """A partition as it is stored: where it was read to, and the times of its latest users."""

    topic: str
    partition: int
    index: OffsetIndexState | None
    by_user: dict[str, RecordTime]
    earliest: RecordTime | None


class ReadState(Struct, frozen=True):
    """The input that the stored rows reflect: its partitions and the watermark."""

    partitions: list[PartitionState] = []
    now_ms: int | None = None


READ_STATE: Final = "read"
encode_read: Final = msgspec.msgpack.Encoder().encode
decode_read: Final = msgspec.msgpack.Decoder(ReadState).decode


class PartitionedJoiner:
    """Joins partitions that are read at different speeds. With `rows` it goes on with what was committed there."""

    def __init__(
        self,
        *,
        feedback: FeedbackSettings,
        tasks: Sequence[Task],
        erasures: Erasures = NO_ERASURES,
        rows: RowStore | None = None,
    ) -> None:
        """`erasures`: those known so far; a record that one covers is not joined."""
        self._erasures = erasures
        self._joiner = Joiner(feedback=feedback, tasks=tasks, rows=rows)
        self._watermarks = Watermarks[TopicPartition]()
        self._offset_indexes: dict[TopicPartition, TimeOffsetIndex] = {}
        self._metadata: dict[TopicPartition, CommitMetadata] = {}  # the latest that was committed
        self._closed: Mapping[TopicPartition, CommitMetadata] = {}  # of a run whose rows this one lacks
        # Records further ahead than this would only be kept as early events until the slower topics have caught up.
        self._lead_ms = feedback.grace_s * 1000
        self._judged_wait_ms = (feedback.fraud_window_s + feedback.grace_s) * 1000  # how long a labelled row stays open
        longest_s = max(feedback.fraud_window_s, feedback.purchase_window_s, feedback.impression_wait_s)
        self._longest_wait_ms = (longest_s + feedback.grace_s) * 1000
        self._timely_from_ms: int | None = None
        if rows and (state := rows.read_state(READ_STATE)):
            self._load(decode_read(state))

    @property
    def counts(self) -> OutcomeCounts:
        return self._joiner.counts

    @property
    def now_ms(self) -> int | None:
        """The watermark; None before there is one."""
        return self._watermarks.now_ms()

    @property
    def oldest_ms(self) -> int | None:
        """The event time of the oldest row or event that is open; None if none is."""
        return self._joiner.oldest_pending_ms()

    @property
    def highest_ms(self) -> int:
        """The highest event time of all partitions; 0 without any."""
        return max((index.highest_ms for index in self._offset_indexes.values()), default=0)

    @property
    def uncommitted(self) -> int:
        """The number of rows and events that the next commit of the store writes or deletes."""
        return self._joiner.uncommitted

    def __len__(self) -> int:
        """The number of rows and events that wait."""
        return len(self._joiner)

    def add_partitions(self, partitions: Iterable[TopicPartition]) -> None:
        """Hold the watermark back for these partitions from now on."""
        self._watermarks.add_partitions(partitions)

    def push(
        self, partition: TopicPartition, offset: int, message: ScoredRow | Event | None, time: RecordTime | None
    ) -> bool:
        """Join the next record of a partition; None for one that could not be decoded.

        `time` moves the watermark, None does not. Returns whether the record is timely: near the time of the other
        partitions, so that more of its kind may have to be waited for.
        """
        index = self._offset_indexes.setdefault(partition, TimeOffsetIndex())
        if message is None:
            index.skip(offset)
            return False
        # A time that cannot be trusted would keep the position here until it has come.
        index.observe(offset, message.ts_ms if time else min(message.ts_ms, index.highest_ms))
        if time:
            self._watermarks.observe(partition, name_user(message), time)
        if self._is_erased(message):
            pass  # as if it were not there
        elif isinstance(message, ScoredRow):
            # A closed row may be read again without all of its events, and would be joined to fewer of them.
            if not self._closed.get(partition, EMPTY_METADATA).is_closed(offset, message):
                self._joiner.add_row(message)
        else:
            self._joiner.add_event(message, Origin(*partition, offset))
        return time is not None and (self._timely_from_ms is None or time.ms >= self._timely_from_ms)

    def erase(self, user_id: str, until_ms: int) -> int:
        """Remove what a user's erasure covers from what waits; returns how many rows and events."""
        return self._joiner.erase(user_id, until_ms)

    def advance(self, idle: Iterable[TopicPartition]) -> JoinOutput:
        """The outputs that are ready, with exactly the partitions in `idle` holding no watermark back."""
        self._watermarks.set_at_end(idle)
        now_ms = self.now_ms
        if now_ms is not None:
            self._joiner.advance(now_ms)
        latest_ms = self._watermarks.find_latest_ms()
        self._timely_from_ms = None if latest_ms is None else latest_ms - self._longest_wait_ms
        return self._joiner.drain()

    def safe_offsets(self) -> dict[TopicPartition, int]:
        """The offset from which each partition that was read has to be read again; never goes back."""
        oldest_ms = self.oldest_ms
        return {partition: index.safe_offset(oldest_ms) for partition, index in self._offset_indexes.items()}

    def restore(self, metadata: Mapping[TopicPartition, CommitMetadata]) -> None:
        """Commit nothing that closes fewer rows than `metadata` does, which an earlier run committed.

        Rows that it closed are left out. A joiner that goes on with stored rows has all of them, as of their positions,
        and joins what follows as the earlier run did.
        """
        self._metadata = dict(metadata)
        self._closed = {} if self._offset_indexes else metadata

    def changes(self) -> list[TableChanges]:
        """The rows that have changed since the last commit of the store."""
        return self._joiner.changes()

    def states(self) -> dict[str, bytes]:
        """The input that the rows reflect, to be committed with them."""
        partitions = [
            PartitionState(
                *partition,
                index.state() if (index := self._offset_indexes.get(partition)) else None,
                times.by_user,
                times.earliest,
            )
            for partition, times in self._watermarks.times_by_partition().items()
        ]
        return {READ_STATE: encode_read(ReadState(partitions, self.now_ms))}

    def confirm_commit(self) -> None:
        """The changes and states were committed to the store."""
        self._joiner.confirm_commit()

    def commit_metadata(
        self, orphans: Mapping[str, int], writer: str, erased: ErasedOffsets = NOTHING_ERASED
    ) -> dict[TopicPartition, CommitMetadata]:
        """The metadata to commit for each partition that was read; never closes fewer rows than before."""
        oldest_ms = self.oldest_ms
        judged_ms = max(0, (self.now_ms or 0) - self._judged_wait_ms)
        for partition, index in self._offset_indexes.items():
            since_ms = index.highest_ms + 1 if oldest_ms is None else oldest_ms
            current = CommitMetadata(read=index.next_offset, since_ms=since_ms, judged_ms=judged_ms)
            earlier = self._metadata.get(partition, EMPTY_METADATA)
            latest = current if current.supersedes(earlier) else earlier
            self._metadata[partition] = replace(latest, orphans=dict(orphans), writer=writer, erased=erased)
        return {partition: self._metadata[partition] for partition in self._offset_indexes}

    def next_offsets(self) -> dict[TopicPartition, int]:
        """The offset after the last record that was read of each partition."""
        return {partition: index.next_offset for partition, index in self._offset_indexes.items()}

    def next_offset(self, partition: TopicPartition) -> int:
        """The offset after the last record that was read of a partition; 0 before the first."""
        index = self._offset_indexes.get(partition)
        return index.next_offset if index else 0

    def _is_erased(self, message: ScoredRow | Event) -> bool:
        if isinstance(message, ScoredRow):
            return self._erasures.covers(message.user_id, message.ts_ms)
        return self._erasures.covers_event(message)

    def partitions_ahead(self) -> set[TopicPartition]:
        """Partitions to pause until the slower ones have caught up."""
        return self._watermarks.partitions_ahead(self._lead_ms)

    def measure_held_ms(self) -> dict[TopicPartition, int]:
        """How far each partition that is not idle holds the watermark back, in event time."""
        return self._watermarks.measure_held_ms()

    def _load(self, state: ReadState) -> None:
        times_by_partition = dict[TopicPartition, UserTimes]()
        for saved in state.partitions:
            partition = TopicPartition(saved.topic, saved.partition)
            times_by_partition[partition] = UserTimes(saved.by_user, saved.earliest)
            if saved.index:
                self._offset_indexes[partition] = TimeOffsetIndex(saved.index)
        self._watermarks.restore(times_by_partition, state.now_ms)


def name_user(message: ScoredRow | Event) -> str:
    """A hash of the user of a record, since it is stored; a product has none, and stands for itself."""
    return f"{hash_text(str(getattr(message, 'user_id', '')) or message.event_id):x}"
