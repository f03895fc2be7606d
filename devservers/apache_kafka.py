"""Apache Kafka on this machine: a single KRaft node from the published jars, for tests and benches."""

import math
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from contract.errors import Unavailable
from devservers.kafka_distribution import fetch_jars, format_log_folder, unavailable_reason
from devservers.librdkafka import SILENT
from devservers.process import ChildProcess, find_free_ports, is_port_open

__all__ = ["ApacheKafka", "unavailable_reason"]

START_TIMEOUT_S = 90.0
REQUEST_S = 20.0
AWAIT_S = 0.02
STEADY_S = 1.0  # two heartbeats to its controller
# Only the C1 compiler and the serial collector: on few cores the broker starts in 2 s instead of 3 s, and leaves more
# CPU time for what is measured.
JAVA = ("java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
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
# The default forbids session timeouts below 6 s.
group.min.session.timeout.ms=500
# A killed broker may rejoin only once its old session has expired. A broker that is starved of CPU for that long is
# fenced, and clients that ask it then lose it.
broker.session.timeout.ms=9000
broker.heartbeat.interval.ms=500
# Old data are replayed with their original timestamps, and the broker would delete them by those.
log.retention.ms=-1
"""

_LOGIN_PROPERTIES = """
listener.name.login.sasl.enabled.mechanisms=PLAIN
listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
# Who comes without a login: tests, and the node itself.
super.users=User:ANONYMOUS
"""


class ApacheKafka:
    """A broker on free loopback ports; it keeps its address and records over `stop`, `kill` and `start`.

    It is a child process, which ends with the thread that started it. `close` removes its folder.
    """

    def __init__(self, users: Mapping[str, str] | None = None) -> None:
        """`users`: passwords by name, for clients of `login_bootstrap`, which may do what `allow` has granted."""
        self._folder = tempfile.TemporaryDirectory(prefix="shopstream-kafka-")
        self.port, self.login_port, controller = find_free_ports(3)
        folder = Path(self._folder.name)
        shutil.copytree(format_log_folder(), folder / "logs")
        properties = folder / "server.properties"
        listeners, more = f"PLAINTEXT://{self.bootstrap}", ""
        if users:
            listeners += f",LOGIN://{self.login_bootstrap}"
            more = _LOGIN_PROPERTIES.format(users=" ".join(f'user_{name}="{users[name]}"' for name in users))
        properties.write_text(_PROPERTIES.format(listeners=listeners, controller=controller, folder=folder) + more)
        command = [*JAVA, "-cp", f"{fetch_jars()}/*", "kafka.Kafka", str(properties)]
        self.process = ChildProcess(command=command, output=folder / "broker.log")

    @property
    def bootstrap(self) -> str:
        """The value for `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    @property
    def login_bootstrap(self) -> str:
        """The value for `bootstrap.servers` of clients that log in with SASL/PLAIN, where there are users."""
        return f"127.0.0.1:{self.login_port}"

    def allow(self, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Grant a user operations on what has a name that begins with `name`."""
        acls = [make_acl(AclBinding, user, kind, name, operation) for operation in operations]
        admin = make_admin_client(self.bootstrap)  # a local variable, because the futures fail when the client is freed
        for created in admin.create_acls(acls, request_timeout=REQUEST_S).values():
            created.result()

    def revoke(self, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Take back what `allow` has granted."""
        acls = [make_acl(AclBindingFilter, user, kind, name, operation) for operation in operations]
        admin = make_admin_client(self.bootstrap)
        for deleted in admin.delete_acls(acls, request_timeout=REQUEST_S).values():
            deleted.result()

    @property
    def log_folder(self) -> Path:
        """The folder of its log segments, with one subfolder for each partition."""
        return Path(self._folder.name) / "logs"

    def start(self) -> Self:
        """Start, and wait until it answers; raises `Unavailable` with the end of its output if it does not."""
        self.process.start()
        self.process.wait_until(lambda: is_port_open(self.port), timeout_s=START_TIMEOUT_S)
        # The port opens shortly before the node answers requests.
        self.process.wait_until(self.is_ready, timeout_s=START_TIMEOUT_S)
        return self

    def is_ready(self) -> bool:
        """Whether it answers a new client, and lists itself."""
        try:
            return bool(make_admin_client(self.bootstrap).list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def create_topics(self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Create topics with these numbers of partitions, all with `config`; existing topics are not changed.

        Raises `Unavailable` if the broker rejects the request or does not answer.
        """
        create_topics(self.bootstrap, partitions, config)

    def delete_topics(self, prefix: str) -> None:
        """Delete the topics whose names begin with `prefix`; returns before their records are gone."""
        admin = make_admin_client(self.bootstrap)
        names = [name for name in admin.list_topics(timeout=REQUEST_S).topics if name.startswith(prefix)]
        if names:
            wait(admin.delete_topics(names, request_timeout=REQUEST_S).values())

    def stop(self) -> None:
        """Shut it down cleanly."""
        self.process.stop()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()

    def pause(self) -> None:
        """Suspend it: its connections stay open, but it does not answer."""
        self.process.pause()

    def resume(self) -> None:
        """Continue it after `pause`; it may answer that it has no broker for a moment, until `wait_until_steady`."""
        self.process.resume()

    def wait_until_steady(self) -> None:
        """Wait until it lists itself for longer than its controller takes to notice that its session ran out.

        A client that asks before that may lose its brokers permanently. Raises `Unavailable`.
        """
        steady_since_s = math.inf

        def is_steady() -> bool:
            nonlocal steady_since_s
            steady_since_s = min(steady_since_s, time.monotonic()) if self.is_ready() else math.inf
            return time.monotonic() - steady_since_s > STEADY_S

        self.process.wait_until(is_steady, timeout_s=START_TIMEOUT_S)

    def close(self) -> None:
        """Kill it and remove its records."""
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:  # also an interrupt: the block, which would end it, is not entered
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create_topics(bootstrap: str, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
    """`ApacheKafka.create_topics` for any broker."""
    new_topics = [NewTopic(name, count, 1, config=dict(config or {})) for name, count in partitions.items()]
    admin = make_admin_client(bootstrap)  # a local variable, because the futures fail when the client is freed
    for name, created in admin.create_topics(new_topics, operation_timeout=30).items():
        try:
            created.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise Unavailable(f"Kafka should create the topic `{name}`. Found: {error}") from error
    await_topics(admin, partitions)


def await_topics(admin: AdminClient, names: Iterable[str]) -> None:
    """Wait until the broker names the topics: the controller creates them, the broker hears of it later."""
    give_up_s = time.monotonic() + REQUEST_S
    while missing := set(names) - set(admin.list_topics(timeout=REQUEST_S).topics):
        if time.monotonic() > give_up_s:
            raise Unavailable(f"Kafka should name the topics that it created. Found none of {sorted(missing)}.")
        time.sleep(AWAIT_S)


def make_acl(shape: Any, user: str, kind: ResourceType, name: str, operation: AclOperation) -> Any:
    """An `AclBinding` or `AclBindingFilter` for names that begin with `name`, from any host."""
    pattern, allows = ResourcePatternType.PREFIXED, AclPermissionType.ALLOW
    return shape(kind, name, pattern, f"User:{user}", "*", operation, allows)


def make_admin_client(bootstrap: str) -> AdminClient:
    settings: dict[str, Any] = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 200, **SILENT}
    return AdminClient(settings)
