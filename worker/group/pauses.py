"""Partitions of a member that its client does not fetch for now.

Those that the caller chose, all during a wait, and those that are assigned and whose start is not known yet. The latter
were once assigned at the end of their logs, for which a client asks the broker. The client asked again half a second
after the start was sought, and went on at the end: a chaos run lost the orders of that time.
"""

from collections.abc import Iterable

from confluent_kafka import TopicPartition as KafkaPartition

from transport.records import TopicPartition
from worker.group.member import GroupMember


class PartitionPauses:
    """Knows why a partition is paused, so that it is resumed only where no reason is left."""

    def __init__(self, member: GroupMember) -> None:
        self._member = member
        self._by_caller: set[TopicPartition] = set()
        self._by_wait: set[TopicPartition] = set()  # while the worker waits for a server
        self.unstarted: set[TopicPartition] = set()  # assigned, and not sought yet

    def pause_only(self, partitions: Iterable[TopicPartition]) -> None:
        """Pause exactly these partitions of the assignment for the caller."""
        wanted = self._member.assignment.intersection(partitions)
        self._member.client.pause([KafkaPartition(*partition) for partition in wanted - self._by_caller])
        self._resume(self._by_caller - wanted - self._by_wait)
        self._by_caller = wanted

    def begin_wait(self) -> None:
        """Pause all partitions, also those that were assigned since the last call."""
        if unpaused := self._member.assignment - self._by_wait:
            self._member.client.pause([KafkaPartition(*partition) for partition in unpaused])
            self._by_wait |= unpaused

    def end_wait(self) -> None:
        """Resume what the caller has not paused."""
        if self._by_wait:
            self._resume(self._by_wait - self._by_caller)
            self._by_wait.clear()

    def hold(self, partitions: Iterable[TopicPartition]) -> None:
        """Pause these, which were assigned, until they are started."""
        self.unstarted.update(partitions)
        self._member.client.pause([KafkaPartition(*partition) for partition in partitions])

    def start(self, partition: TopicPartition) -> None:
        """Read a partition from where it was sought."""
        if partition in self.unstarted:
            self.unstarted.remove(partition)
            self._resume({partition} - self._by_wait - self._by_caller)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These have left the assignment."""
        self._by_caller.difference_update(partitions)
        self._by_wait.difference_update(partitions)
        self.unstarted.difference_update(partitions)

    def _resume(self, partitions: set[TopicPartition]) -> None:
        self._member.client.resume([KafkaPartition(*partition) for partition in partitions - self.unstarted])
