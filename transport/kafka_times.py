"""The Kafka times of a partition's records, also of those that have none."""

import time
from collections.abc import Callable, Sequence

from transport.records import TopicPartition


def read_clock_ms() -> int:
    """The wall-clock time."""
    return time.time_ns() // 1_000_000


class KafkaTimes:
    """Remembers the highest Kafka time of each partition so far.

    It takes the place of a time that is missing, so that events are clamped by it as by any other. Before the first
    one, the time of reading takes its place: then a later reading may clamp an event from the future to a later time.
    """

    def __init__(self, clock_ms: Callable[[], int] = read_clock_ms) -> None:
        self._clock_ms = clock_ms
        self._highest_ms: dict[TopicPartition, int] = {}

    def fill(self, partition: TopicPartition, kafka_ms: Sequence[int]) -> Sequence[int]:
        """The times of a partition's next records, with those that are missing (-1) replaced."""
        if not kafka_ms:
            return kafka_ms
        highest_ms = self._highest_ms.get(partition, -1)
        if min(kafka_ms) >= 0:
            self._highest_ms[partition] = max(highest_ms, max(kafka_ms))
            return kafka_ms
        filled = []
        for ms in kafka_ms:
            highest_ms = max(highest_ms, ms)
            filled.append(ms if ms >= 0 else highest_ms if highest_ms >= 0 else self._clock_ms())
        if highest_ms >= 0:
            self._highest_ms[partition] = highest_ms
        return filled
