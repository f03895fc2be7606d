"""What tests of the worker share."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment

NewStage: TypeAlias = Callable[..., WorkerEnvironment]


@pytest.fixture
def stage(broker: KafkaBroker, redis_url: str, topic_prefix: str) -> Iterator[WorkerEnvironment]:
    """Over both brokers."""
    made = WorkerEnvironment(broker=broker, redis_url=redis_url, prefix=topic_prefix)
    yield made
    made.close()


@pytest.fixture
def apache_stage(apache_kafka: KafkaBroker, redis_url: str, topic_prefix: str) -> Iterator[WorkerEnvironment]:
    """Over Apache Kafka alone: for what the mock cluster cannot do."""
    made = WorkerEnvironment(broker=apache_kafka, redis_url=redis_url, prefix=topic_prefix)
    yield made
    made.close()
