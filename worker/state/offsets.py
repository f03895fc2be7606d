"""Offsets of each partition: committed (answers are published) and merged (state is in Redis). No I/O.

For every source, `merged[bucket]` is the exclusive offset up to which all events of the bucket are in Redis. A batch
writes it in the buckets that it touches; `find_lagging` gives the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from contract.errors import LostLog, StaleState
from contract.hashing import BUCKETS
from contract.profiles.store import MergedOffsets
from transport.records import PartitionOffsets, TopicPartition

WAITING: Final = " waiting="


class OffsetMetadata(NamedTuple):
    """What is committed with an offset: the topic by its source, and the first event whose user waits for an answer."""

    source: str = ""
    waiting_from: int | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        source, _, offset = text.partition(WAITING)
        return cls(source, int(offset) if offset.isdecimal() else None)

    def __str__(self) -> str:
        return self.source + (f"{WAITING}{self.waiting_from}" if self.waiting_from is not None else "")


@dataclass(frozen=True, slots=True)
class StartOffsets:
    """Where to start in a partition: fold from `offset`, answer from `committed`; `lost` records were deleted."""

    offset: int
    committed: int
    lost: int = 0


def find_start(offsets: PartitionOffsets, merged: Iterable[int | None], log_start: int = 0) -> StartOffsets:
    """min(committed, merged of every bucket); `merged` is None for buckets without the source.

    A group that never committed, over a state without the source, is a first start: at the first record. Otherwise a
    bucket without the source needs the log from `log_start` on, where this state begins. Needed records that were
    deleted are `lost`. Where a rebuilt state has more than the group ever committed, the group still starts at the
    first record, since that has no answer yet.
    """
    bucket_offsets = list(merged)
    committed = offsets.committed if offsets.committed is not None and offsets.committed <= offsets.high else None
    if committed is None and all(offset is None for offset in bucket_offsets):
        return StartOffsets(offsets.low, offsets.low)
    needed = min(
        [log_start if offset is None else offset for offset in bucket_offsets]
        + ([committed] if committed is not None else [])
    )
    answered = max(offsets.low, committed if committed is not None else offsets.low)
    return StartOffsets(min(max(offsets.low, needed), answered), answered, max(0, offsets.low - needed))


def raise_if_lost(partition: TopicPartition, start: StartOffsets) -> None:
    """Raise `LostLog` if records that the state needs were deleted."""
    if start.lost:
        raise LostLog(
            f"{partition} should still hold every record that is not merged. Found the first {start.lost} deleted: "
            'set worker.on_lost_log to "accept" to go on without them, or rebuild the state.'
        )


def raise_if_log_replaced(partition: TopicPartition, offsets: PartitionOffsets, merged: Iterable[int | None]) -> None:
    """Raise `LostLog` if the committed offset and the merged ones of all buckets lie beyond the log's end.

    Going on would mix two logs in one slice.
    """
    bucket_offsets = [offset for offset in merged if offset is not None]
    reached = min([*bucket_offsets, *([offsets.committed] if offsets.committed is not None else [])], default=0)
    if reached > offsets.high:
        raise LostLog(
            f"{partition} should reach {reached}, where its state ends. Found its end at {offsets.high}: it lost "
            "records, or the topic was recreated. Rebuild the state."
        )


@dataclass(slots=True)
class OffsetTracker:
    """The offsets of one worker's partitions. `sources` names those whose events it folds."""

    sources: dict[TopicPartition, str] = field(default_factory=dict)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    folded: dict[TopicPartition, int] = field(default_factory=dict)  # exclusive; merged in the touched buckets
    merged: MergedOffsets = field(default_factory=lambda: {bucket: {} for bucket in range(BUCKETS)})
    # Answered events from here on are read again, since their users may wait for an answer by the clock.
    waiting_from: dict[TopicPartition, int] = field(default_factory=dict)

    def is_answered(self, partition: TopicPartition, offset: int) -> bool:
        """Whether the answer to this record is published already, so that it is only folded."""
        return offset < self.committed.get(partition, 0)

    def may_wait(self, partition: TopicPartition, offset: int) -> bool:
        """Whether this record is answered, and its user may wait for an answer by the clock."""
        return self.waiting_from.get(partition, offset + 1) <= offset and self.is_answered(partition, offset)

    def end_waiting(self, end_offsets: Mapping[TopicPartition, int]) -> None:
        """Note that all answered events of these partitions up to `end_offsets` have been read again."""
        for partition, offset in end_offsets.items():
            if offset >= self.committed.get(partition, 0):
                self.waiting_from.pop(partition, None)

    def check_order(self, first_offsets: Mapping[TopicPartition, int]) -> None:
        """Raise `StaleState` if a partition has gone back: its topic was recreated."""
        for partition, offset in first_offsets.items():
            expected = self.committed.get(partition, 0)
            expected = self.folded.get(partition, min(expected, self.waiting_from.get(partition, expected)))
            if offset < expected:
                raise StaleState(f"{partition} should go on from {expected}. Found {offset}.")

    def check_merged(self, stored: MergedOffsets) -> None:
        """Raise `StaleState` if the merged offsets of a bucket are not those that this worker wrote."""
        if lost := [
            b
            for b, expected in self.merged.items()
            if any(stored[b].get(s) != offset for s, offset in expected.items())
        ]:
            raise StaleState(f"Buckets {lost} should be merged as this worker left them. Found other positions.")

    def compute_merged(self, end_offsets: Mapping[TopicPartition, int], buckets: Iterable[int]) -> MergedOffsets:
        """The merged offsets of the touched buckets after a batch with these end offsets."""
        ends_by_source = {
            self.sources[partition]: offset for partition, offset in end_offsets.items() if partition in self.sources
        }
        return {
            bucket: {
                source: max(offset, self.merged[bucket].get(source, 0)) for source, offset in ends_by_source.items()
            }
            for bucket in buckets
        }

    def find_lagging(self) -> MergedOffsets:
        """The merged offsets of all buckets that lag behind the folded offsets; empty if none lags."""
        after = {
            bucket: {
                source: self.folded[partition]
                for partition, source in self.sources.items()
                if partition in self.folded and self.folded[partition] > merged.get(source, -1)
            }
            for bucket, merged in self.merged.items()
        }
        return {bucket: sources for bucket, sources in after.items() if sources}

    def record_merged(self, after: MergedOffsets) -> None:
        for bucket, sources in after.items():
            self.merged[bucket].update(sources)

    def record_committed(self, end_offsets: Mapping[TopicPartition, int]) -> None:
        for partition, offset in end_offsets.items():
            self.committed[partition] = max(offset, self.committed.get(partition, 0))

    def record_folded(self, end_offsets: Mapping[TopicPartition, int]) -> None:
        for partition, offset in end_offsets.items():
            self.folded[partition] = max(offset, self.folded.get(partition, 0))

    def drop_partitions(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            source = self.sources.pop(partition, None)
            self.committed.pop(partition, None)
            self.folded.pop(partition, None)
            self.waiting_from.pop(partition, None)
            for merged in self.merged.values():
                merged.pop(source or "", None)
