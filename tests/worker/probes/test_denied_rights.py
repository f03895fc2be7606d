"""Workers whose user of Apache Kafka lacks a right: probes, log and doctor name it, and the command that grants it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka.admin import AclOperation, ResourceType  # type: ignore[attr-defined]

from devservers.apache_kafka import ApacheKafka, unavailable_reason
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment
from tests.worker.probes.worker_process import WorkerProcess, send_orders

pytestmark = pytest.mark.apache_kafka

USER, PASSWORD = "shop", "secret"
READ, WRITE, DESCRIBE = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE
CONFIGS = AclOperation.DESCRIBE_CONFIGS
RIGHTS: Final[dict[str, tuple[Any, ...]]] = {
    "topics": (ResourceType.TOPIC, READ, WRITE, DESCRIBE, CONFIGS),
    "groups": (ResourceType.GROUP, READ),
    "transactional ids": (ResourceType.TRANSACTIONAL_ID, WRITE, DESCRIBE),
}


@pytest.fixture(scope="module")
def guarded_kafka() -> Iterator[ApacheKafka]:
    """A broker that lets a user do only what it is allowed."""
    if reason := unavailable_reason():
        pytest.skip(reason)
    with ApacheKafka(users={USER: PASSWORD}) as kafka:
        yield kafka


@pytest.fixture
def environment(
    guarded_kafka: ApacheKafka, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> RunEnvironment:
    redis_server.flush()
    environment = RunEnvironment(kafka=guarded_kafka, redis=redis_server, folder=tmp_path, prefix=topic_prefix)
    environment.create_topics()
    return environment


class User:
    """The user of one test, who may do everything with what has its prefix, but for what is taken away."""

    def __init__(self, kafka: ApacheKafka, environment: RunEnvironment) -> None:
        self._kafka, self._prefix = kafka, environment.prefix
        login = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
        }
        self.variables = {
            "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka.login_bootstrap,
            "SHOPSTREAM_KAFKA__CLIENT": json.dumps(login),
        }
        self.command = f"kafka-acls.sh --bootstrap-server {kafka.login_bootstrap} --add --allow-principal User:{USER}"

    def allow(self, *names: str) -> None:
        for name in names:
            self._kafka.allow(USER, RIGHTS[name][0], self._prefix, *RIGHTS[name][1:])

    def allow_topics(self, environment: RunEnvironment, kind: str, *operations: AclOperation) -> None:
        """Allow everything with all topics, but with that of one kind these operations alone."""
        for other, name in environment.topics.names_by_kind().items():
            granted = operations if other == kind else RIGHTS["topics"][1:]
            if granted:
                self._kafka.allow(USER, ResourceType.TOPIC, name, *granted)


@pytest.fixture
def user(guarded_kafka: ApacheKafka, environment: RunEnvironment) -> User:
    return User(guarded_kafka, environment)


def test_a_user_without_rights_on_groups_is_told_so_until_it_has_them(environment: RunEnvironment, user: User) -> None:
    user.allow("topics", "transactional ids")
    worker = WorkerProcess(environment, variables=user.variables)
    worker.start()
    try:
        grant = f"{user.command} --operation Read --group {environment.kafka_settings.group_prefix}"
        worker.wait_for(lambda: worker.says("/readyz", grant))
        worker.wait_for(lambda: worker.has_logged("Blocked (denied)", grant))
        user.allow("groups")
        worker.wait_for(worker.is_ready)
    finally:
        worker.kill()


@pytest.mark.parametrize(
    ("kind", "allowed", "denied"),
    [
        ("orders", (DESCRIBE, CONFIGS), "--operation Read"),
        ("decisions", (READ, DESCRIBE, CONFIGS), "--operation Write"),
        ("dead_letters", (), "--operation Write"),
    ],
)
def test_a_right_on_a_topic_that_is_denied_is_named_until_it_is_granted(
    environment: RunEnvironment, user: User, kind: str, allowed: tuple[AclOperation, ...], denied: str
) -> None:
    # given
    topic = environment.topics.topic_name(kind)
    user.allow("groups", "transactional ids")
    user.allow_topics(environment, kind, *allowed)
    send_orders(environment, "o1")
    worker = WorkerProcess(environment, variables=user.variables)
    worker.start()
    try:
        # then
        grant = f"{user.command} {denied} --topic {topic}"
        worker.wait_for(lambda: worker.says("/readyz", "denied: ", grant))
        worker.wait_for(lambda: worker.has_logged("Blocked (denied)", grant))
        assert "--create" not in worker.fetch("/readyz")[1]
        # when it is granted
        user.allow("topics")
        # then
        worker.wait_for(lambda: worker.is_ready() and worker.lag("orders") == 0)
    finally:
        worker.kill()


def test_a_worker_that_ends_for_lack_of_a_transactional_id_names_the_right(
    environment: RunEnvironment, user: User
) -> None:
    user.allow("groups", "topics")
    worker = WorkerProcess(environment, variables=user.variables)
    worker.start()
    try:
        grant = f"{user.command} --operation Write --operation Describe --transactional-id"
        worker.wait_for(lambda: worker.has_logged("Ending", grant))
    finally:
        worker.kill()


def test_the_doctor_names_each_right_that_is_missing(environment: RunEnvironment, user: User) -> None:
    # given a user without groups and transactional ids, who does not see one topic and may not read another
    topics = environment.topics
    user.allow_topics(environment, "orders")
    # when
    examination = subprocess.run(
        [sys.executable, "-m", "worker", "doctor", "--json"],
        env={**environment.env_variables(), **user.variables},
        capture_output=True,
        text=True,
        check=False,
    )
    # then
    commands = {finding["subject"]: finding["command"] for finding in json.loads(examination.stdout)}
    prefix = environment.kafka_settings.group_prefix
    assert commands[topics.orders] == f"{user.command} --operation Read --topic {topics.orders}"
    assert commands[f"group {prefix}-orders"].startswith(f"{user.command} --operation Read --group {prefix} ")
    assert f"--transactional-id {prefix} " in commands[f"transactional id {prefix}-doctor"]
    assert f"--group {topics.decisions}.owner" in commands[f"group {topics.decisions}.owner"]
    assert examination.returncode == 1
