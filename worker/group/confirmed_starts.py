"""Checks that reading begins where a partition was sought.

A chaos run showed partitions that went on behind the offset to which they were sought during a rebalance: records were
never read. A gap may be right, since markers of transactions and deleted records have offsets too. So a start that
differs is sought a second time, and counts where the client finds the same position again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from transport.records import TopicPartition


@dataclass(slots=True)
class ConfirmedStarts:
    """The offsets at which partitions were sought, and the position that was found there, until both are confirmed."""

    _sought: dict[TopicPartition, int] = field(default_factory=dict)
    _found: dict[TopicPartition, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether any start is not confirmed."""
        return bool(self._sought)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """The partition is sought."""
        self._sought[partition] = offset
        self._found.pop(partition, None)

    def find_skipped(self, partition: TopicPartition, position: int) -> int | None:
        """The offset to seek again where reading begins at another `position` for the first time, else None."""
        sought = self._sought.get(partition)
        if sought is None:
            return None
        if position == sought or self._found.get(partition) == position:
            self.forget([partition])
            return None
        self._found[partition] = position
        return sought

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These are read from elsewhere, or no more."""
        for partition in partitions:
            self._sought.pop(partition, None)
            self._found.pop(partition, None)
