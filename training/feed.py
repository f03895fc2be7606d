"""The door to Kafka in training: the feedback topic, read from given positions to where it ended when asked."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from contract.errors import Unavailable
from contract.settings import Kafka

TIMEOUT_S: Final = 10.0
SILENCE_MAX_S: Final = 30.0
RECORDS_MAX: Final = 1_000
WAIT_S: Final = 0.1  # a batch that does not fill is waited for so long

Take = Callable[[Message], None]


@dataclass(frozen=True, slots=True)
class Fed:
    """The values of records, those of one partition in their order, and where to go on: "topic/partition" -> offset.

    `newest_ms`: the latest time that Kafka has of these records, 0 if none. `more`: there was more than was asked for.
    """

    values: list[bytes]
    positions: dict[str, int]
    newest_ms: int = 0
    more: bool = False


class Feed:
    """Reads committed records of one topic by assignment, outside any group: positions are kept by who asks."""

    def __init__(self, *, kafka: Kafka, topic: str) -> None:
        configuration: dict[str, Any] = {
            "isolation.level": "read_committed",
            **kafka.connection(),
            "group.id": f"{kafka.group_prefix}-unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 3,
            "error_cb": lambda error: None,  # what cannot be reached is told once, by the question that fails
        }
        self._consumer = Consumer(configuration)
        self._topic = topic

    def read(self, positions: Mapping[str, int], records_max: int = sys.maxsize) -> Fed:
        """What lies between `positions` (a partition without one: its beginning) and the present ends.

        At most so many records; the rest is for the next time. A position that the topic no longer has is taken as its
        beginning. Raises `Unavailable`.
        """
        messages = list[Message]()
        found, more = self._read(positions, messages.append, records_max)
        newest_ms = max((message.timestamp()[1] for message in messages), default=0)
        return Fed([value_of(message) for message in messages], found, max(newest_ms, 0), more)

    def each(self, positions: Mapping[str, int], take: Callable[[bytes], None]) -> dict[str, int]:
        """The same, each value given to `take` as it comes and none kept; returns where to go on."""
        return self._read(positions, lambda message: take(value_of(message)))[0]

    def positions_at(self, ms: int) -> dict[str, int]:
        """Where the first record of that time or later lies, its end where there is none; raises `Unavailable`."""
        try:
            found = self._consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic]
            asked = [TopicPartition(self._topic, partition, ms) for partition in found.partitions]
            told = self._consumer.offsets_for_times(asked, TIMEOUT_S)
            ends = {p.partition: self._consumer.get_watermark_offsets(p, TIMEOUT_S)[1] for p in told if p.offset < 0}
        except KafkaException as error:
            raise Unavailable(f"Kafka should tell of `{self._topic}`. Found: {error.args[0].str()}") from error
        return {f"{self._topic}/{p.partition}": ends.get(p.partition, p.offset) for p in told}

    def close(self) -> None:
        self._consumer.close()

    def _read(self, positions: Mapping[str, int], take: Take, most: int = sys.maxsize) -> tuple[dict[str, int], bool]:
        """Give messages to `take`; returns where to go on, and whether there were more than `most`."""
        try:
            starts, ends = self._ask(positions)
            self._consumer.assign([TopicPartition(self._topic, *start) for start in starts.items()])
            self._collect(starts, ends, take, most)
            self._consumer.unassign()
        except KafkaException as error:
            raise Unavailable(f"Kafka should let `{self._topic}` be read. Found: {error.args[0].str()}") from error
        return {**positions, **{f"{self._topic}/{p}": at for p, at in starts.items()}}, bool(ends)

    def _ask(self, positions: Mapping[str, int]) -> tuple[dict[int, int], dict[int, int]]:
        """Where to start in each partition that has something new, and where it ends now."""
        found = self._consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic]
        starts, ends = dict[int, int](), dict[int, int]()
        for partition in found.partitions:
            place = TopicPartition(self._topic, partition)
            low, high = self._consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
            start = positions.get(f"{self._topic}/{partition}", low)
            start = start if low <= start <= high else low
            if start < high:
                starts[partition], ends[partition] = start, high
        return starts, ends

    def _collect(self, starts: dict[int, int], ends: dict[int, int], take: Take, most: int) -> None:
        """Read until every partition has come to its end, or there is enough, moving `starts` along, `ends` away."""
        taken, heard_s = 0, time.monotonic()
        while ends and taken < most:
            messages = self._consumer.consume(min(RECORDS_MAX, most - taken), WAIT_S)
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > SILENCE_MAX_S:
                raise Unavailable(f"`{self._topic}` should be read to its end. Found silence for {SILENCE_MAX_S:g} s.")
            for message in messages:
                partition, error = message.partition() or 0, message.error()
                if error is None:
                    take(message)
                    taken += 1
                    starts[partition] = (message.offset() or 0) + 1
                if is_end(error) or starts[partition] >= ends.get(partition, 0):
                    ends.pop(partition, None)  # at an open transaction a partition ends earlier than it seemed


def value_of(message: Message) -> bytes:
    return value if isinstance(value := message.value(), bytes) else b""


def is_end(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError._PARTITION_EOF
