"""Erasures as the joiner executes them: what a person's erasure covers is neither joined nor published any more.

The topic is read to its end before anything is joined, and followed from then on. What is already published is on
topics: those who read them leave erased people out.
"""

from collections.abc import Iterator

from contract.profiles.erasures import NO_ERASURES, Erasures
from worker.erasure.kafka_owners import NOTHING_ERASED, ErasedOffsets
from worker.erasure.topic import ErasureConsumer
from worker.ops.retry import Retry


class JoinerErasures:
    """Follows the erasures topic; without a `consumer` there is none."""

    def __init__(self, consumer: ErasureConsumer | None = None) -> None:
        self._consumer = consumer

    @property
    def known(self) -> Erasures:
        """Those read so far; always the same object."""
        return self._consumer.erasures if self._consumer else NO_ERASURES

    def load(self, retry: Retry) -> None:
        """Read all that the topic holds now; waits while Kafka is unavailable."""
        if self._consumer:
            retry.call("kafka", self._consumer.open)
            while not self._consumer.is_ready:
                retry.call("kafka", self._consumer.poll)

    def poll(self) -> Iterator[tuple[str, int]]:
        """The users of new erasures, and the times up to which they are erased; does not wait."""
        if self._consumer:
            for user_id in self._consumer.poll():
                yield user_id, self.known.until_ms[f"user:{user_id}"]

    def read_offsets(self) -> ErasedOffsets:
        """How far the topic is read, as it is committed once all of that is executed."""
        if not self._consumer or not self._consumer.read_offsets:
            return NOTHING_ERASED
        offsets = {f"{partition.partition}": offset for partition, offset in self._consumer.read_offsets.items()}
        return ErasedOffsets(self._consumer.topic_id or "", offsets)

    def close(self) -> None:
        if self._consumer:
            self._consumer.close()
