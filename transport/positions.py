"""Offsets by "topic/partition@id", as the learner's checkpoints and the manifests of bundles hold them.

Without the topic's id a recreated topic could not be told from the one before. Positions without an id are those of
brokers that have none, and of checkpoints that an earlier version wrote: they hold for any topic of that name.
"""

from collections.abc import Mapping
from typing import Final

from transport.records import TopicPartition

ID_MARK: Final = "@"  # no name of a topic contains it


def to_positions(offsets: Mapping[TopicPartition, int], topic_id: str | None = None) -> dict[str, int]:
    """Offsets of a topic's partitions as positions."""
    return {make_key(str(partition), topic_id): offset for partition, offset in offsets.items()}


def make_key(partition: str, topic_id: str | None) -> str:
    return f"{partition}{ID_MARK}{topic_id}" if topic_id else partition


def locate(key: str) -> str:
    """The "topic/partition" of a key of positions."""
    return key.partition(ID_MARK)[0]


def without_ids(positions: Mapping[str, int]) -> dict[str, int]:
    """The offsets by "topic/partition"; of several topics of one name the last."""
    return {locate(key): offset for key, offset in positions.items()}


def find_offset(positions: Mapping[str, int], partition: TopicPartition, topic_id: str | None) -> int | None:
    """The offset that holds for a partition of the topic with this id; id None: unknown, and any offset holds."""
    name = str(partition)
    offset = positions.get(make_key(name, topic_id), positions.get(name))
    return without_ids(positions).get(name) if offset is None and topic_id is None else offset
