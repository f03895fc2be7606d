"""Which records of a partition one transaction wrote, as the broker's own log file tells: readers are not told.

A segment is a row of record batches, each with a header of its own; a control batch of the same producer ends its
transaction. Source: Kafka's message format, https://kafka.apache.org/documentation/#recordbatch.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

# baseOffset, batchLength, leaderEpoch, magic, crc, attributes, lastOffsetDelta, baseTimestamp, maxTimestamp,
# producerId, producerEpoch, baseSequence, records
HEADER: Final = struct.Struct(">qiibIhiqqqhii")
BEFORE_LENGTH: Final = 12  # `batchLength` counts what stands behind it
CONTROL: Final = 0x20
MAGIC: Final = 2


class Transaction(NamedTuple):
    """What one transaction wrote to the partition: its offsets, and when the last of it was sent (ms since 1970)."""

    offsets: tuple[int, ...]
    last_ms: int


def parse_transactions(segment: bytes) -> Iterator[Transaction]:
    """The transactions of a segment in the order in which they ended; what is open at its end is left out."""
    open_: dict[int, Transaction] = {}
    position = 0
    while position + HEADER.size <= len(segment):
        base, length, _, magic, _, attributes, delta, _, max_ms, producer, *_ = HEADER.unpack_from(segment, position)
        position += BEFORE_LENGTH + length
        if magic != MAGIC or position > len(
            segment
        ):  # room that the broker has reserved, or a batch that is being written
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
    """Those of a partition in a broker's folder of logs."""
    segments = sorted((logs / f"{topic}-{partition}").glob("*.log"))
    return [transaction for segment in segments for transaction in parse_transactions(segment.read_bytes())]
