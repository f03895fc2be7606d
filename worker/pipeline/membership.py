"""The worker's membership in its consumer group while a batch is in flight.

A worker that waits for a server must go on taking part in its group, or its partitions move. If they move all the
same, the batch in flight is dropped: another member answers its records.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from contract.errors import ShopstreamError
from transport.records import TopicPartition
from worker.group.consumer import GroupConsumer
from worker.kafka.producer import TransactionalProducer


class BatchRevoked(ShopstreamError):
    """A partition of the batch in flight moved to another member while a server was away; the batch is dropped."""


class GroupMembership:
    """Knows the partitions of the batch in flight, and whether one of them was revoked."""

    def __init__(self, consumer: GroupConsumer) -> None:
        self._consumer = consumer
        self._in_flight: frozenset[TopicPartition] = frozenset()
        self._is_revoked = False

    @property
    def has_batch(self) -> bool:
        return bool(self._in_flight)

    @contextmanager
    def batch(self, partitions: Iterable[TopicPartition]) -> Iterator[None]:
        """A batch of these partitions is in flight."""
        self._in_flight, self._is_revoked = frozenset(partitions), False
        try:
            yield
        finally:
            self.drop_batch()

    def drop_batch(self) -> None:
        """No batch is in flight: a revocation concerns none."""
        self._in_flight, self._is_revoked = frozenset(), False

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions leave this member."""
        self._is_revoked = self._is_revoked or not self._in_flight.isdisjoint(partitions)

    def heartbeat(self) -> None:
        """Stay a member while a server does not answer; raises `BatchRevoked` if the batch in flight was revoked."""
        self._consumer.heartbeat()
        if self._is_revoked:
            raise BatchRevoked(
                "The partitions of the batch in flight should stay until it is merged. Found them revoked."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaClients:
    """The consumer with its membership in the group, and the producer that commits for it."""

    consumer: GroupConsumer
    membership: GroupMembership
    producer: TransactionalProducer
