"""Fixtures for tests of the worker."""

from collections.abc import Iterator

import pytest

from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment


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
