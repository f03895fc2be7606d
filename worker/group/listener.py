"""What a pipeline gives a group consumer: where each partition that is assigned to it starts."""

from collections.abc import Mapping
from typing import Final, Protocol

from transport.records import TopicPartition

START_PENDING: Final = -1  # of a partition that is not read until `seek` sets its start


class RebalanceListener(Protocol):
    """Called for assigned and revoked partitions, within `GroupConsumer.poll` and `heartbeat` only.

    It may not call the consumer: the client would end the process at its next callback within the same poll.
    """

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The start offset of each new partition; `START_PENDING` where `seek` will set it."""

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        """These partitions are revoked now."""
