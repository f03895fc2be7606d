"""Reads topics from beginning to end with read-committed isolation, and queries the offsets of consumer groups."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final, NamedTuple

from confluent_kafka import TopicPartition

from contract.settings.servers import KafkaSettings
from transport.group_offsets import query_committed
from transport.log_consumer import create_consumer
from transport.log_reader import LogReader
from transport.records import Record

TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.1
Offsets = dict[tuple[str, int], int]  # (topic, partition) -> offset


class RecordPosition(NamedTuple):
    """Topic, partition and offset of a record."""

    topic: str
    partition: int
    offset: int


class KafkaLog:
    """A reader of one cluster, without membership in a group."""

    def __init__(self, *, bootstrap: str) -> None:
        self._kafka = KafkaSettings(bootstrap_servers=bootstrap)

    def read(self, topic: str) -> Iterator[Record]:
        """Every committed record of a topic from its beginning to its present end, each partition in order."""
        with closing(LogReader(kafka=self._kafka)) as reader:
            ends = {partition: offsets.high for partition, offsets in reader.fetch_offset_ranges([topic]).items()}
            for records in reader.read(ends):
                yield from records

    def read_end_offsets(self, topics: Iterable[str]) -> Offsets:
        """The next offset of each partition."""
        with closing(LogReader(kafka=self._kafka)) as reader:
            ranges = reader.fetch_offset_ranges(topics)
        return {(topic, partition): offsets.high for (topic, partition), offsets in ranges.items()}

    def read_committed_offsets(self, group: str, partitions: Iterable[tuple[str, int]]) -> Offsets:
        """The committed offset of each partition; -1001 where the group has committed none."""
        requested = [TopicPartition(*partition) for partition in partitions]
        with closing(create_consumer(self._kafka, {"group.id": group})) as consumer:
            return {(tp.topic, tp.partition): tp.offset for tp in query_committed(consumer, requested, TIMEOUT_S)}

    def find_uncommitted(self, group: str, ends: Mapping[tuple[str, int], int]) -> Offsets:
        """The committed offsets of those partitions that the group has not committed to their ends."""
        committed = self.read_committed_offsets(group, ends)
        return {partition: committed[partition] for partition, end in ends.items() if committed[partition] < end > 0}

    def wait_until_committed(self, group: str, topics: Iterable[str], timeout_s: float) -> None:
        """Return when the group has committed the present ends; raises RuntimeError after `timeout_s`."""
        ends, deadline = self.read_end_offsets(topics), time.monotonic() + timeout_s
        while uncommitted := self.find_uncommitted(group, ends):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{group} should commit everything in {timeout_s:g} s. Found {uncommitted} of {ends}."
                )
            time.sleep(POLL_S)
