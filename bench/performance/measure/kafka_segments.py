"""Finds the records of each transaction in a broker's log files; consumers cannot see transaction boundaries.

A segment is a sequence of record batches, each with its own header; a control batch of the same producer ends its
transaction. Source: Kafka's message format, https://kafka.apache.org/documentation/#recordbatch.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

# baseOffset, batchLength, leaderEpoch, magic, crc, attributes, lastOffsetDelta, baseTimestamp, maxTimestamp,
# producerId, producerEpoch, baseSequence, records
HEADER: Final = struct.Struct(">qiibIhiqqqhii")
BEFORE_LENGTH: Final = 12  # `batchLength` counts the bytes after it
CONTROL: Final = 0x20
MAGIC: Final = 2


class Transaction(NamedTuple):
    """The offsets that a transaction wrote to the partition, and the timestamp of its last record."""

    offsets: tuple[int, ...]
    last_ms: int


def parse_transactions(segment: bytes) -> Iterator[Transaction]:
    """The transactions of a segment in the order of their ends, without those still open at its end."""
    open_: dict[int, Transaction] = {}
    position = 0
    while position + HEADER.size <= len(segment):
        base, length, _, magic, _, attributes, delta, _, max_ms, producer, *_ = HEADER.unpack_from(segment, position)
        position += BEFORE_LENGTH + length
        is_incomplete = position > len(segment)
        if magic != MAGIC or is_incomplete:  # preallocated space, or a batch that is being written
            return
        if attributes & CONTROL:
            if (written := open_.pop(producer, None)) is not None:
                yield written
        elif producer >= 0:
            before = open_.get(producer, Transaction((), 0))
            open_[producer] = Transaction(
                (*before.offsets, *range(base, base + delta + 1)), max(before.last_ms, max_ms)
            )


def read_transactions(logs: Path, topic: str, partition: int = 0) -> list[Transaction]:
    """The transactions of a partition in a broker's log folder."""
    segments = sorted((logs / f"{topic}-{partition}").glob("*.log"))
    return [transaction for segment in segments for transaction in parse_transactions(segment.read_bytes())]
