"""The joiner's membership in its consumer group: heartbeats while it waits, and whether a rebalance spoilt its rows."""

from collections.abc import Iterator
from contextlib import contextmanager

from contract.errors import ShopstreamError
from worker.group.consumer import GroupConsumer


class PartitionsChanged(ShopstreamError):
    """The assignment changed during a batch: the open rows are incomplete, so joining restarts."""


class JoinerMembership:
    """Records changes of the assignment, and interrupts the batch in flight after one."""

    def __init__(self, consumer: GroupConsumer) -> None:
        self._consumer = consumer
        self._in_batch = False
        self.has_changed = False  # until the pipeline has restarted the join

    @contextmanager
    def batch(self) -> Iterator[None]:
        """A batch is in flight; raises `PartitionsChanged` if the assignment has changed."""
        self._in_batch = True
        try:
            self.raise_if_changed()
            yield
        finally:
            self._in_batch = False

    def heartbeat(self) -> None:
        """Stay a member of the group while a call waits; raises `PartitionsChanged` if the batch lost partitions."""
        self._consumer.heartbeat()
        self.raise_if_changed()

    def raise_if_changed(self) -> None:
        """Raise `PartitionsChanged` if the assignment has changed since the batch in flight was read."""
        if self.has_changed and self._in_batch:
            raise PartitionsChanged("The joiner's partitions should stay assigned during a batch. Found a rebalance.")
