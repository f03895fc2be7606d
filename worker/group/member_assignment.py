"""The partitions of a group's member, as the consumer protocol writes them."""

import struct
from typing import Final

from transport.records import TopicPartition

SHORT: Final = struct.Struct(">h")
INT: Final = struct.Struct(">i")


def decode_assignment(data: bytes) -> set[TopicPartition]:
    """Decode the member assignment of the classic protocol; empty for a member that has none yet.

    Layout: version (int16), then for each topic its name (int16 length, bytes) and its partitions (int32 count, int32
    each); see `ConsumerProtocolAssignment.json` of Apache Kafka.
    """
    if not data:
        return set()
    partitions = set[TopicPartition]()
    (topics,), position = INT.unpack_from(data, SHORT.size), SHORT.size + INT.size
    for _ in range(topics):
        (length,) = SHORT.unpack_from(data, position)
        topic = data[position + SHORT.size : position + SHORT.size + length].decode()
        position += SHORT.size + length
        (count,) = INT.unpack_from(data, position)
        numbers = struct.unpack_from(f">{count}i", data, position + INT.size)
        position += INT.size * (1 + count)
        partitions.update(TopicPartition(topic, number) for number in numbers)
    return partitions
