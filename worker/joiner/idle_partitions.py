"""Quiet partitions: those read to their ends that have had nothing new for a while. Pure; the clock is an argument.

A joiner that has caught up is at the end of every partition nearly always. Whether a topic has nothing to tell, or has
only not told it yet, shows in how long it stays silent: rows follow their events by what scoring takes.
"""

from collections.abc import Iterable

from transport.records import TopicPartition


class IdlePartitions:
    """Remembers since when each partition is at its end without a new record."""

    def __init__(self, *, after_s: float) -> None:
        self._after_s = after_s
        self._since_s: dict[TopicPartition, float] = {}

    def update(
        self, at_end: Iterable[TopicPartition], read: Iterable[TopicPartition], now_s: float
    ) -> set[TopicPartition]:
        """The quiet ones, when just now those in `read` had records and those in `ended` have no more."""
        for partition in read:
            self._since_s.pop(partition, None)
        self._since_s = {partition: self._since_s.get(partition, now_s) for partition in at_end}
        return {partition for partition, since_s in self._since_s.items() if now_s - since_s >= self._after_s}
