"""Fixtures for tests of the worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment
from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment
from worker.redis.client import RedisClient


@pytest.fixture
def stage(broker: KafkaBroker, redis_url: str, topic_prefix: str) -> Iterator[WorkerEnvironment]:
    """An environment on each of both brokers."""
    environment = WorkerEnvironment(broker=broker, redis_url=redis_url, prefix=topic_prefix)
    yield environment
    environment.close()


@pytest.fixture
def apache_stage(apache_kafka: KafkaBroker, redis_url: str, topic_prefix: str) -> Iterator[WorkerEnvironment]:
    """An environment on Apache Kafka only, for what the mock cluster cannot do."""
    environment = WorkerEnvironment(broker=apache_kafka, redis_url=redis_url, prefix=topic_prefix)
    yield environment
    environment.close()


@pytest.fixture
def run_environment(
    apache_kafka: ApacheKafka, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> RunEnvironment:
    """An environment for worker processes, with its topics and an empty Redis."""
    redis_server.flush()
    environment = RunEnvironment(kafka=apache_kafka, redis=redis_server, folder=tmp_path, prefix=topic_prefix)
    environment.create_topics()
    return environment


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_server.url, timeout_s=20)
    yield client
    client.close()
