"""Records and partitions of Kafka topics, as every reader of this project passes them on."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

Headers: TypeAlias = Sequence[Any]  # pairs of a name and bytes, as the client takes and returns them


class TopicPartition(NamedTuple):
    """One partition of one topic, `topic/partition` as text."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"

    def log_text(self, offset: int | None = None) -> str:
        """`topic[partition]@offset`, as log lines name a position."""
        return f"{self.topic}[{self.partition}]" + ("" if offset is None else f"@{offset}")

    def log_fields(self, offset: int | None = None) -> dict[str, str | int]:
        """The position as fields of a JSON log line: what a logger takes as `extra`."""
        fields: dict[str, str | int] = {"topic": self.topic, "partition": self.partition}
        return fields if offset is None else {**fields, "offset": offset}


NO_METADATA: Final[Mapping[TopicPartition, str]] = MappingProxyType({})


class Record(NamedTuple):
    """One record of a topic; `kafka_ms` is its timestamp (-1: it has none)."""

    topic_partition: TopicPartition
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    kafka_ms: int


class PartitionOffsets(NamedTuple):
    """Offsets of a partition in the cluster: the group's committed one (None: never), the first and the next one.

    `metadata` was committed along with the offset.
    """

    committed: int | None
    low: int
    high: int
    metadata: str = ""


class OffsetRange(NamedTuple):
    """The first offset that a partition still holds, and its next one."""

    low: int
    high: int


def as_bytes(value: bytes | str | None) -> bytes | None:
    """The client returns bytes where no deserialiser is set; its type hints allow more."""
    return value.encode() if isinstance(value, str) else value
