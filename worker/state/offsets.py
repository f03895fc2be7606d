"""Positions: how far each partition is committed (answers are out) and merged (state is in Redis). Pure bookkeeping.

For every source, `merged[bucket]` is the exclusive offset up to which all that concerns the bucket is in Redis. A batch
writes it in the buckets that it touches; `advance` says what brings the untouched ones up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from contract.errors import LostLog, StaleState
from contract.hashing import BUCKETS
from contract.profiles.store import MergedOffsets
from transport.records import PartitionOffsets, TopicPartition


@dataclass(frozen=True, slots=True)
class StartOffsets:
    """Where to go on in a partition: fold from `offset`, answer from `committed`; `lost` records are gone."""

    offset: int
    committed: int
    lost: int = 0


def find_start(offsets: PartitionOffsets, merged: Iterable[int | None], log_start: int = 0) -> StartOffsets:
    """min(committed, merged of every bucket), `merged` being None for buckets that know nothing of the source.

    A group that never committed over a state that knows nothing is a first start: it begins with the first record there
    is. Otherwise a bucket that knows nothing needs the log from where it `begins` for this state. Needed records that
    are gone are `lost`. Where a state knows more than a group has ever committed, as one that was built beside it, the
    group begins with the first record all the same: nobody has answered it.
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
    """Raise `LostLog` if records that the state needs are gone."""
    if start.lost:
        raise LostLog(
            f"{partition.topic}/{partition.partition} should still hold every record that is not merged. Found the first "
            f'{start.lost} gone: set worker.on_lost_log to "accept" to go on without them, or rebuild the state.'
        )


def raise_if_log_replaced(partition: TopicPartition, offsets: PartitionOffsets, merged: Iterable[int | None]) -> None:
    """Raise `LostLog` if all buckets that know it have seen more than the log holds, as has what is committed, if any.

    To go on would mix two logs in one slice.
    """
    bucket_offsets = [offset for offset in merged if offset is not None]
    reached = min([*bucket_offsets, *([offsets.committed] if offsets.committed is not None else [])], default=0)
    if reached > offsets.high:
        raise LostLog(
            f"{partition.topic}/{partition.partition} should reach {reached}, where its state ends. Found its end at "
            f"{offsets.high}: it lost records, or the topic is another one of that name. Rebuild the state."
        )


@dataclass(slots=True)
class OffsetTracker:
    """What one worker knows of its partitions. `sources` has a name for each partition whose events it folds."""

    sources: dict[TopicPartition, str] = field(default_factory=dict)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    folded: dict[TopicPartition, int] = field(default_factory=dict)  # exclusive; merged in the touched buckets
    merged: MergedOffsets = field(default_factory=lambda: {bucket: {} for bucket in range(BUCKETS)})

    def is_answered(self, partition: TopicPartition, offset: int) -> bool:
        """Whether the answer of this record is out already, so that it is only folded."""
        return offset < self.committed.get(partition, 0)

    def check_order(self, first_offsets: Mapping[TopicPartition, int]) -> None:
        """Raise `StaleState` if a partition went back by itself: its topic was deleted and created anew."""
        for partition, offset in first_offsets.items():
            expected = self.folded[partition] if partition in self.folded else self.committed.get(partition, 0)
            if offset < expected:
                raise StaleState(
                    f"{partition.topic}/{partition.partition} should go on from {expected}. Found {offset}."
                )

    def check_merged(self, stored: MergedOffsets) -> None:
        """Raise `StaleState` if a bucket of Redis is not where this worker left it."""
        if lost := [
            b
            for b, expected in self.merged.items()
            if any(stored[b].get(s) != offset for s, offset in expected.items())
        ]:
            raise StaleState(f"Buckets {lost} should be merged as this worker left them. Found other positions.")

    def merged_after(self, end_offsets: Mapping[TopicPartition, int], buckets: Iterable[int]) -> MergedOffsets:
        """What `merged` becomes in the touched buckets, once the batch that ends at these positions is folded."""
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
        """What brings every bucket up to what has been folded; empty if none lags."""
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
            for merged in self.merged.values():
                merged.pop(source or "", None)
