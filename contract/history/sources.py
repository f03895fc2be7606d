"""The sources of a history in profiles: `orders~history.DIGEST/3`. No topic id has a dot."""

import zlib
from typing import Final

DIGEST_CHARS: Final = 12
MARK: Final = "~history."


def history_source(kind: str, digest: str, partition: int) -> str:
    """The source of the events of one kind that a history with this digest has in a partition."""
    return f"{kind}{MARK}{digest[:DIGEST_CHARS]}/{partition}"


def is_history_source(source: str) -> bool:
    """Whether a source is one of a history."""
    return MARK in source


def source_partition(source: str) -> int:
    """The partition number of a source."""
    return int(source.rpartition("/")[2])


def partition_of(user_id: str, partitions: int) -> int:
    """The partition of a user's events: as librdkafka distributes keys by default (`consistent_random`)."""
    return zlib.crc32(user_id.encode()) % partitions
