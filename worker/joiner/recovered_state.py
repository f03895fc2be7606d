"""What earlier lives of the joiner have left to this one, and what this one leaves to the next. Pure."""

from collections import Counter
from collections.abc import Mapping

from contract.joining.output import JoinOutput
from contract.settings import FeedbackSettings
from transport.records import PartitionOffsets, TopicPartition
from worker.joiner.commit_metadata import CommitMetadata, decode_all_metadata, encode_metadata
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.dedup_loader import start_offset
from worker.joiner.orphan_counter import OrphanCounter
from worker.joiner.partitioned_joiner import PartitionedJoiner


class RecoveredState:
    """What was said already, rows that were done with, and labels without a row that were counted."""

    def __init__(
        self,
        *,
        feedback: FeedbackSettings,
        offsets: Mapping[TopicPartition, PartitionOffsets],
        published: PublishedOutputs,
    ) -> None:
        """`held`: where this life begins to read, and the notes that were committed there."""
        self.metadata: Mapping[TopicPartition, CommitMetadata] = decode_all_metadata(offsets)
        self._orphan_counter = OrphanCounter(
            final=[metadata.orphans for metadata in self.metadata.values()], limit=feedback.parked_max
        )
        self._published, self._nothing_published = published, PublishedOutputs(limit=feedback.said_max)
        self._ends = {
            partition: partition_offsets.high
            for partition, partition_offsets in offsets.items()
            if partition_offsets.high > start_offset(partition_offsets)
        }

    @property
    def evicted(self) -> int:
        """How much was said that may be said twice."""
        return self._published.evicted

    def orphans(self) -> Counter[str]:
        """Labels without a row by task, each counted once over all lives."""
        return self._orphan_counter.total()

    def without_published(self, output: JoinOutput) -> tuple[JoinOutput, int]:
        """What of this was not said yet, and how much was; labels without a row are counted."""
        unpublished = self._published.without_published(output)
        self._orphan_counter.add(unpublished.orphans)
        withheld = (
            len(output.examples) + len(output.judgements) - len(unpublished.examples) - len(unpublished.judgements)
        )
        return unpublished, withheld

    def commit_metadata(
        self, joiner: PartitionedJoiner, positions: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, str]:
        """The notes to commit with these positions."""
        return {
            partition: encode_metadata(metadata)
            for partition, metadata in joiner.commit_metadata(self._orphan_counter.finalize(positions)).items()
        }

    def release_published(self, positions: Mapping[TopicPartition, int]) -> None:
        """Once nothing is open of what an earlier life can have read, nothing that it said can be said again."""
        if len(self._published) and all(positions.get(partition, 0) >= end for partition, end in self._ends.items()):
            self._published = self._nothing_published
