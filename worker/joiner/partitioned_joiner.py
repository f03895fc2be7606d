"""The joiner over partitions, and the offset from which each has to be read again after a crash. Pure.

Rows that wait for labels are in memory only. So the position committed for a partition is that of its earliest record
that an open row may need.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from contract.events import Event
from contract.joining.joiner import Joiner
from contract.joining.output import JoinOutput, Origin, OutcomeCounts
from contract.messages import ScoredRow
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task
from transport.records import TopicPartition
from worker.erasure.kafka_owners import NOTHING_ERASED, ErasedOffsets
from worker.joiner.commit_metadata import EMPTY_METADATA, CommitMetadata
from worker.joiner.offset_index import TimeOffsetIndex
from worker.joiner.watermarks import RecordTime, Watermarks


class PartitionedJoiner:
    """Joins partitions that are read at different speeds."""

    def __init__(self, *, feedback: FeedbackSettings, tasks: Sequence[Task], erasures: Erasures = NO_ERASURES) -> None:
        """`erasures`: those known so far; a record that one covers is not joined."""
        self._erasures = erasures
        self._joiner = Joiner(feedback=feedback, tasks=tasks)
        self._watermarks = Watermarks[TopicPartition]()
        self._offset_indexes: dict[TopicPartition, TimeOffsetIndex] = {}
        self._metadata: dict[TopicPartition, CommitMetadata] = {}
        # Records further ahead than this would only be kept as early events until the slower topics have caught up.
        self._lead_ms = feedback.grace_s * 1000
        self._judged_wait_ms = (feedback.fraud_window_s + feedback.grace_s) * 1000  # how long a labelled row stays open
        longest_s = max(feedback.fraud_window_s, feedback.purchase_window_s, feedback.impression_wait_s)
        self._longest_wait_ms = (longest_s + feedback.grace_s) * 1000
        self._timely_from_ms: int | None = None

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
            if not self._metadata.get(partition, EMPTY_METADATA).is_closed(offset, message):
                self._joiner.add_row(message)
        else:
            self._joiner.add_event(message, Origin(*partition, offset))
        return time is not None and (self._timely_from_ms is None or time.ms >= self._timely_from_ms)

    def erase(self, user_id: str, until_ms: int) -> None:
        """Remove what a user's erasure covers from what waits."""
        self._joiner.erase(user_id, until_ms)

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
        """Leave out rows that an earlier run closed."""
        self._metadata = dict(metadata)

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


def name_user(message: ScoredRow | Event) -> str:
    """The user of a record; a product has none, and stands for itself."""
    return str(getattr(message, "user_id", "")) or message.event_id
