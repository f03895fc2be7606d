"""What one run of the joiner hands to the next, stored as the metadata of each committed offset. Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from contract.joining.labels import GRAPH_BY_KIND
from contract.messages import ScoredRow
from transport.records import PartitionOffsets, TopicPartition
from worker.erasure.kafka_owners import NOTHING_ERASED, ErasedOffsets


class CommitMetadata(Struct, frozen=True, gc=False, omit_defaults=True):
    """`orphans`: final counts of labels without a row by task, over the partitions of this number.

    Rows of this partition below offset `read` are closed if their event is before `since_ms`, and rows that are
    labelled as a whole (not item by item) also if it is before `judged_ms`. `writer` is the process that committed;
    without one it was a release whose single joiner counted `orphans` over all partitions. `erased`: how far that
    process had executed erasures, which confirmations wait for.
    """

    orphans: dict[str, int] = {}
    read: int = 0
    since_ms: int = 0
    judged_ms: int = 0
    writer: str = ""
    erased: ErasedOffsets = NOTHING_ERASED

    def is_closed(self, offset: int, row: ScoredRow) -> bool:
        """Whether a row that is read again can emit nothing more."""
        before_ms = max(self.since_ms, self.judged_ms) if row.kind in GRAPH_BY_KIND else self.since_ms
        return offset < self.read and row.ts_ms < before_ms

    def is_ahead_of(self, ms: int) -> bool:
        """Whether a record dated in the future moved the stream time of the run that committed this."""
        return max(self.since_ms, self.judged_ms) > ms

    def supersedes(self, other: "CommitMetadata") -> bool:
        """Whether it closes at least every row that `other` closes."""
        return self.read >= other.read and self.since_ms >= other.since_ms and self.judged_ms >= other.judged_ms


EMPTY_METADATA: Final = CommitMetadata()
to_json: Final = msgspec.json.Encoder(order="sorted").encode
from_json: Final = msgspec.json.Decoder(CommitMetadata).decode


def encode_metadata(metadata: CommitMetadata) -> str:
    return to_json(metadata).decode()


def decode_metadata(text: str) -> CommitMetadata:
    """The decoded metadata; empty if another program wrote the text."""
    try:
        return from_json(text or "{}")
    except msgspec.DecodeError:
        return EMPTY_METADATA


def decode_all_metadata(offsets: Mapping[TopicPartition, PartitionOffsets]) -> dict[TopicPartition, CommitMetadata]:
    return {partition: decode_metadata(partition_offsets.metadata) for partition, partition_offsets in offsets.items()}
