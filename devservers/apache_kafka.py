"""Apache Kafka itself on one machine: a single KRaft node from the published jars, for tests, benches and the demo."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from contract.errors import Unavailable
from devservers.kafka_distribution import fetch_jars, format_log_folder, unavailable_reason
from devservers.process import ChildProcess, find_free_ports, is_port_open

__all__ = ["ApacheKafka", "unavailable_reason"]

START_TIMEOUT_S = 90.0
# The first compiler alone and the simplest collector: on few cores that is a start of 2 s instead of 3 s, and the cores
# belong to what is measured.
JAVA = ("java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/logs
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# By default no member may ask to be missed sooner than after 6 s.
group.min.session.timeout.ms=500
# After a kill the controller waits for the old session to end before it lets the broker in again: 9 s by default.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
# Old data are replayed with their own times: without this the broker would delete them by those times.
log.retention.ms=-1
"""


class ApacheKafka:
    """A broker on loopback ports of its own; address and records stay over `stop`, `kill` and `start`.

    It is a child process: start it from a thread that outlives the need for it. Its folder goes when it is closed.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="shopstream-kafka-")
        self.port, controller = find_free_ports(2)
        folder = Path(self._folder.name)
        shutil.copytree(format_log_folder(), folder / "logs")
        properties = folder / "server.properties"
        properties.write_text(_PROPERTIES.format(port=self.port, controller=controller, folder=folder))
        command = [*JAVA, "-cp", f"{fetch_jars()}/*", "kafka.Kafka", str(properties)]
        self.process = ChildProcess(command=command, output=folder / "broker.log")

    @property
    def bootstrap(self) -> str:
        """The address as `bootstrap.servers` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def log_folder(self) -> Path:
        """Where its records lie, a folder for each partition."""
        return Path(self._folder.name) / "logs"

    def start(self) -> Self:
        """Start, and return once it answers; raises `Unavailable` with what it printed if it does not."""
        self.process.start()
        self.process.wait_until(lambda: is_port_open(self.port), timeout_s=START_TIMEOUT_S)
        # The port is open a little before the node has taken up its work.
        admin = make_admin_client(self.bootstrap)
        self.process.wait_until(lambda: _is_ready(admin), timeout_s=START_TIMEOUT_S)
        return self

    def create_topics(self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Create topics, each with its number of partitions and all with `config`; those that exist stay as they are.

        Raises `Unavailable` if the broker refuses or does not answer.
        """
        create_topics(self.bootstrap, partitions, config)

    def stop(self) -> None:
        """End it in good order."""
        self.process.stop()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open and nobody answers."""
        self.process.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self.process.resume()

    def close(self) -> None:
        """End it and remove its records."""
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create_topics(bootstrap: str, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
    """`ApacheKafka.create_topics`, at a broker that may be another process's."""
    new_topics = [NewTopic(name, count, 1, config=dict(config or {})) for name, count in partitions.items()]
    admin = make_admin_client(bootstrap)  # Held until the answers are in: they end with it.
    for name, created in admin.create_topics(new_topics, operation_timeout=30).items():
        try:
            created.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise Unavailable(f"Kafka should create the topic `{name}`. Found: {error}") from error


def make_admin_client(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})


def _is_ready(admin: AdminClient) -> bool:
    try:
        return bool(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return False
