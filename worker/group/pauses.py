"""Partitions of a member that its client does not fetch for now: some that the caller chose, all during a wait."""

from collections.abc import Iterable

from confluent_kafka import TopicPartition as KafkaPartition

from transport.records import TopicPartition
from worker.group.member import GroupMember


class PartitionPauses:
    """Knows why a partition is paused, so that it is resumed only where neither reason is left."""

    def __init__(self, member: GroupMember) -> None:
        self._member = member
        self._by_caller: set[TopicPartition] = set()
        self._by_wait: set[TopicPartition] = set()  # while the worker waits for a server

    def pause_only(self, partitions: Iterable[TopicPartition]) -> None:
        """Pause exactly these partitions of the assignment for the caller."""
        wanted = self._member.assignment.intersection(partitions)
        self._member.client.pause([KafkaPartition(*partition) for partition in wanted - self._by_caller])
        self._member.client.resume(
            [KafkaPartition(*partition) for partition in self._by_caller - wanted - self._by_wait]
        )
        self._by_caller = wanted

    def begin_wait(self) -> None:
        """Pause all partitions, also those that were assigned since the last call."""
        if unpaused := self._member.assignment - self._by_wait:
            self._member.client.pause([KafkaPartition(*partition) for partition in unpaused])
            self._by_wait |= unpaused

    def end_wait(self) -> None:
        """Resume what the caller has not paused."""
        if self._by_wait:
            self._member.client.resume([KafkaPartition(*partition) for partition in self._by_wait - self._by_caller])
            self._by_wait.clear()

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These have left the assignment."""
        self._by_caller.difference_update(partitions)
        self._by_wait.difference_update(partitions)
