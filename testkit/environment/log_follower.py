"""Reads what is new on topics since the last call, with read-committed isolation."""

from collections.abc import Iterable
from contextlib import closing
from typing import Final

from contract.settings.servers import KafkaSettings
from testkit.environment.kafka_log import Offsets
from transport.log_reader import LogReader
from transport.records import Record, TopicPartition


class LogFollower:
    """A reader of one cluster that remembers how far it has read."""

    def __init__(self, *, bootstrap: str) -> None:
        self._kafka: Final = KafkaSettings(bootstrap_servers=bootstrap)
        self._positions: dict[TopicPartition, int] = {}
        self.record_ends: Offsets = {}  # the offset after the last record of each partition; markers do not count

    def read_new(self, topics: Iterable[str]) -> list[Record]:
        """The committed records that no call has returned, each partition in order; raises `Unavailable`."""
        with closing(LogReader(kafka=self._kafka, skips_gaps=True)) as reader:
            ends = {partition: offsets.high for partition, offsets in reader.fetch_offset_ranges(topics).items()}
            records = [record for chunk in reader.read(ends, self._positions) for record in chunk]
        for record in records:
            self.record_ends[record.topic_partition.topic, record.topic_partition.partition] = record.offset + 1
        self._positions.update(ends)
        return records

    def forget(self, topic: str) -> None:
        """Start at the beginning of a topic that was recreated."""
        for partition in [partition for partition in self._positions if partition.topic == topic]:
            del self._positions[partition]
            self.record_ends.pop((partition.topic, partition.partition), None)
