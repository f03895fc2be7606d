"""State recovered at start-up: published outputs that were re-read from Kafka, and commit metadata. Pure.

It is written back with each commit, for the next run.
"""

import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from contract.joining.output import JoinOutput, OrphanLabel
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
    ) -> None:
        """`offsets`: where this run starts to read, with the metadata committed there.

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
        )
        self._published = published
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

    def release_published(self, positions: Mapping[TopicPartition, int]) -> None:
        """Free the recovered outputs once the positions have passed every record that an earlier run may have read."""
        if len(self._published) and all(positions.get(partition, 0) >= end for partition, end in self._ends.items()):
            self._published = self._nothing_published


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

    def __init__(self, *, final: Iterable[Mapping[str, int]], limit: int) -> None:
        """`final`: the counts committed with each partition's position; the largest is the latest."""
        self._final: Counter[str] = max(map(Counter[str], final), key=Counter.total, default=Counter())
        self._limit = limit
        self._open: defaultdict[TopicPartition, list[tuple[int, str]]] = defaultdict(list)

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
        return dict(self._final)

    def total(self) -> Counter[str]:
        """All known orphans, final or not."""
        return self._final + Counter(task for waiting in self._open.values() for _, task in waiting)
