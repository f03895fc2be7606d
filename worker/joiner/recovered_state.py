"""State recovered at start-up: published outputs that were re-read from Kafka, and commit metadata. Pure.

It is written back with each commit, for the next run.
"""

import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from contract.joining.output import JoinOutput, OrphanLabel
from contract.joining.row_store import RowStore
from contract.settings.worker import FeedbackSettings
from transport.records import PartitionOffsets, TopicPartition
from worker.erasure.kafka_owners import ErasedOffsets
from worker.joiner.commit_metadata import CommitMetadata, decode_all_metadata, encode_metadata
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.dedup_loader import start_offset
from worker.joiner.partitioned_joiner import PartitionedJoiner
from worker.ops import metrics

log = logging.getLogger(__name__)
LEGACY_PARTITION = 0  # an earlier release committed the counts of all partitions with each


class OrphanState(Struct, frozen=True):
    """Counts of orphans as they are stored; `open`: topic, partition, and the offset and task of each open one."""

    final: dict[str, int]
    open: list[tuple[str, int, list[tuple[int, str]]]]


ORPHAN_STATE: Final = "orphans"
OUTPUT_STATE: Final = "outputs"
ROW_ID_STATE: Final = "row ids"  # of rows that earlier runs closed, so that their late labels are not orphans
to_msgpack: Final = msgspec.msgpack.Encoder().encode
decode_starts: Final = msgspec.msgpack.Decoder(list[tuple[str, int, int]]).decode
decode_orphans: Final = msgspec.msgpack.Decoder(OrphanState).decode


class RecoveredState:
    """Outputs that earlier runs published of the partitions of one number, rows that they closed, and labels without a
    row that they counted."""

    def __init__(
        self,
        *,
        feedback: FeedbackSettings,
        offsets: Mapping[TopicPartition, PartitionOffsets],
        published: PublishedOutputs,
        clock_limit_ms: int | None = None,
        rows: RowStore | None = None,
    ) -> None:
        """`offsets`: what earlier runs committed, from where this run reads unless it goes on with stored `rows`.

        Committed times after `clock_limit_ms` are not believed.
        """
        decoded = decode_all_metadata(offsets)
        self.metadata: Mapping[TopicPartition, CommitMetadata] = {
            partition: repair_times(partition, metadata, clock_limit_ms) for partition, metadata in decoded.items()
        }
        self._orphan_counter = OrphanCounter(
            final=[
                metadata.orphans
                for partition, metadata in self.metadata.items()
                if metadata.writer or partition.partition == LEGACY_PARTITION
            ],
            limit=feedback.parked_max,
            rows=rows,
        )
        self._published = published
        if rows and (row_ids := rows.read_state(ROW_ID_STATE)):
            published.merge_row_hashes(row_ids)
        self._are_row_ids_stored = False
        self._repeats_until_ms: int | None = None  # known once everything that earlier runs read was read
        self._nothing_published = PublishedOutputs(limit=feedback.said_max)
        self._ends = {
            partition: partition_offsets.high
            for partition, partition_offsets in offsets.items()
            if partition_offsets.high > start_offset(partition_offsets)
        }

    @property
    def evicted(self) -> int:
        """The number of published outputs beyond the limit, which may be published twice."""
        return self._published.evicted

    def orphans(self) -> Counter[str]:
        """Labels without a row by task, each counted once over all runs."""
        return self._orphan_counter.total()

    def without_published(self, output: JoinOutput) -> tuple[JoinOutput, int]:
        """The part of `output` that no run has published, and the number withheld; counts labels without a row."""
        unpublished = self._published.without_published(output)
        self._orphan_counter.add(unpublished.orphans)
        withheld = (
            len(output.examples) + len(output.judgements) - len(unpublished.examples) - len(unpublished.judgements)
        )
        return unpublished, withheld

    def commit_metadata(
        self, joiner: PartitionedJoiner, positions: Mapping[TopicPartition, int], writer: str, erased: ErasedOffsets
    ) -> dict[TopicPartition, str]:
        """The metadata to commit with these positions; `writer` names this process.

        Of partitions that were not read since the start, what an earlier run committed, with `erased` of this one.
        """
        orphans = self._orphan_counter.finalize(positions)
        unread = {
            partition: replace(metadata, writer=writer, erased=erased) for partition, metadata in self.metadata.items()
        }
        metadata = unread | joiner.commit_metadata(orphans, writer, erased)
        return {partition: encode_metadata(latest) for partition, latest in metadata.items()}

    def states(
        self,
        joiner: PartitionedJoiner,
        at_end: Iterable[TopicPartition],
        output_ends: Mapping[TopicPartition, int],
    ) -> dict[str, bytes]:
        """What is committed to the store with the rows; `output_ends`: the present ends of the output topics.

        A run that goes on with the store reads back the outputs that earlier runs may have published and the stored
        rows may emit: those after these ends, or all that this run has read back if it may still repeat them.
        """
        starts = self._published.starts if self._may_repeat(joiner, set(at_end)) else output_ends
        states = self._orphan_counter.states() | {OUTPUT_STATE: encode_starts(starts)}
        if not self._are_row_ids_stored:
            self._are_row_ids_stored = True
            states[ROW_ID_STATE] = self._published.row_hashes()
        return states

    def release_published(self, positions: Mapping[TopicPartition, int]) -> None:
        """Free the recovered outputs once the positions have passed every record that an earlier run may have read."""
        if self._published is not self._nothing_published and all(
            positions.get(partition, 0) >= end for partition, end in self._ends.items()
        ):
            self._published = self._nothing_published
            self._are_row_ids_stored = False

    def _may_repeat(self, joiner: PartitionedJoiner, at_end: set[TopicPartition]) -> bool:
        """Whether this run may still emit what an earlier one published.

        No longer, once it has read all that was there when it started, and the watermark has passed all of it: each
        event and each timer of the earlier runs has come then.
        """
        if not len(self._published):
            return False
        read = joiner.next_offsets()
        if self._repeats_until_ms is None and all(
            read.get(partition, 0) >= end or partition in at_end for partition, end in self._ends.items()
        ):
            self._repeats_until_ms = joiner.highest_ms
        return self._repeats_until_ms is None or (joiner.now_ms or 0) < self._repeats_until_ms


def encode_starts(starts: Mapping[TopicPartition, int]) -> bytes:
    return to_msgpack([(*partition, offset) for partition, offset in starts.items()])


def read_output_starts(rows: RowStore) -> dict[TopicPartition, int]:
    """From where to read back the outputs that stored rows may emit again."""
    starts = decode_starts(rows.read_state(OUTPUT_STATE) or to_msgpack([]))
    return {TopicPartition(topic, partition): offset for topic, partition, offset in starts}


def repair_times(partition: TopicPartition, metadata: CommitMetadata, clock_limit_ms: int | None) -> CommitMetadata:
    """The metadata without times that no clock has reached: then rows that are read again may be joined again.

    A record dated in the future had moved the stream time of an earlier release, which closed every open row at once.
    """
    if clock_limit_ms is None or not metadata.is_ahead_of(clock_limit_ms):
        return metadata
    log.warning(
        "The stream time committed for %s should not be in the future. Found %d ms since 1970; it is reset. Rows that "
        "an earlier release closed because of it got negative labels too early; their later labels are orphans.",
        partition.log_text(),
        max(metadata.since_ms, metadata.judged_ms),
        extra=partition.log_fields(),
    )
    metrics.STREAM_TIMES_RESET.inc()
    return replace(metadata, read=0, since_ms=0, judged_ms=0)


class OrphanCounter:
    """Counts labels that stayed without a row, by task, each once however often its record is read again.

    An orphan is final when the committed position has passed its record, so no run reads it again. The final counts are
    committed with the positions, and the next run continues from them. At most `limit` orphans of a partition wait to
    become final; beyond it the oldest is taken as final.
    """

    def __init__(self, *, final: Iterable[Mapping[str, int]], limit: int, rows: RowStore | None = None) -> None:
        """`final`: the counts committed with each partition's position; the largest is the latest.

        A run that goes on with stored rows starts with the orphans that they reflect, and counts those after them
        again. Until then `final` is what it commits.
        """
        self._committed: Counter[str] = max(map(Counter[str], final), key=Counter.total, default=Counter())
        self._final = self._committed.copy()
        self._limit = limit
        self._open: defaultdict[TopicPartition, list[tuple[int, str]]] = defaultdict(list)
        if rows and (state := rows.read_state(ORPHAN_STATE)):
            saved = decode_orphans(state)
            self._final = Counter(saved.final)
            for topic, partition, waiting in saved.open:
                self._open[TopicPartition(topic, partition)] = waiting

    def states(self) -> dict[str, bytes]:
        """The counts, to be committed with the rows that they belong to."""
        waiting = [(*partition, entries) for partition, entries in self._open.items()]
        return {ORPHAN_STATE: to_msgpack(OrphanState(dict(self._final), waiting))}

    def add(self, orphans: Iterable[OrphanLabel]) -> None:
        for task, _, origin in orphans:
            if origin is None:
                self._final[task] += 1
                continue
            waiting = self._open[TopicPartition(origin.topic, origin.partition)]
            heapq.heappush(waiting, (origin.offset, task))
            if len(waiting) > self._limit:
                self._final[heapq.heappop(waiting)[1]] += 1

    def finalize(self, positions: Mapping[TopicPartition, int]) -> dict[str, int]:
        """The final counts to commit with these positions."""
        for partition, position in positions.items():
            waiting = self._open[partition]
            while waiting and waiting[0][0] < position:
                self._final[heapq.heappop(waiting)[1]] += 1
        return dict(self._final | self._committed)

    def total(self) -> Counter[str]:
        """All known orphans, final or not."""
        return (self._final + Counter(task for waiting in self._open.values() for _, task in waiting)) | self._committed
