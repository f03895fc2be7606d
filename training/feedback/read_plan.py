"""What to read of a topic from given positions to its present end, also after it was deleted and recreated.

Without the topic's id a new topic that is longer than the former one was read to would be read from the middle. Where
the id is not known, any position holds.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from transport.admin_connection import AdminConnection
from transport.log_reader import LogReader
from transport.positions import find_offset, locate, to_positions, without_ids
from transport.records import OffsetRange, TopicPartition
from transport.topic_watcher import fetch_topic_states

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Start and end offsets of the partitions that hold something after their position.

    `standing`: the offsets of all other partitions. `topic_id` None: unknown.
    """

    starts: dict[TopicPartition, int]
    ends: dict[TopicPartition, int]
    standing: dict[TopicPartition, int]
    topic_id: str | None = None

    def advance(self, positions: Mapping[str, int], reached: Mapping[TopicPartition, int]) -> dict[str, int]:
        """`positions` after these offsets were reached; those of a former topic are left out."""
        offsets = {**self.starts, **self.standing, **reached}
        names = set(map(str, offsets))
        kept = {key: offset for key, offset in positions.items() if locate(key) not in names}
        return kept | to_positions(offsets, self.topic_id)


class PlannedTopic:
    """A topic and a reader of it."""

    def __init__(self, *, kafka: KafkaSettings, topic: str) -> None:
        self.reader = LogReader(kafka=kafka, skips_gaps=True)
        self.name = topic
        self._connection, self._has_topic_ids = AdminConnection(kafka=kafka), kafka.topic_ids

    def plan(self, positions: Mapping[str, int], tail: int | None = None) -> ReadPlan:
        """What to read now; see `plan_read`. Raises `Unavailable`."""
        topic_id = self.fetch_id()
        return plan_read(self.reader.fetch_offset_ranges([self.name]), positions, tail, topic_id)

    def fetch_id(self) -> str | None:
        """The topic's id; None where the broker has none, or the topic does not exist. Raises `Unavailable`."""
        states = fetch_topic_states(self._connection, [self.name], has_topic_ids=self._has_topic_ids)
        return states[self.name].topic_id if self.name in states else None

    def confirm(self, plan: ReadPlan) -> None:
        """After a read: raise `Unavailable` if the topic was recreated in the meantime: what was read is of either."""
        if (topic_id := self.fetch_id()) != plan.topic_id:
            raise Unavailable(f"{self.name} should stay while it is read. Found it with the id {topic_id}.")

    def close(self) -> None:
        self.reader.close()


def plan_read(
    offset_ranges: Mapping[TopicPartition, OffsetRange],
    positions: Mapping[str, int],
    tail: int | None = None,
    topic_id: str | None = None,
) -> ReadPlan:
    """Plan to read all partitions from their positions to their ends.

    A partition without a position starts at its beginning, or `tail` records before its end; one whose position is of a
    topic with another id, or no longer in the log, at its beginning.
    """
    replaced = list[str]()
    starts, ends, standing = (dict[TopicPartition, int]() for _ in range(3))
    former = without_ids(positions)
    for partition, (low, high) in offset_ranges.items():
        first = low if tail is None else max(low, high - tail)
        name = str(partition)
        start = find_offset(positions, partition, topic_id)
        if start is None and name in former:
            replaced.append(f"{partition.log_text(former[name])} (of a topic with another id)")
            start = low
        elif start is not None and not low <= start <= high:
            replaced.append(f"{partition.log_text(start)} (it has {low} to {high})")
            start = low
        start = first if start is None else start
        if start < high:
            starts[partition], ends[partition] = start, high
        else:
            standing[partition] = start
    if replaced:
        log.warning(
            "Topics should hold what was not read yet. "
            "Found that they were recreated, or lost records; they are read from their beginning: %s.",
            ", ".join(replaced),
        )
    return ReadPlan(starts, ends, standing, topic_id)
