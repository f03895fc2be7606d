"""What tests of the worker share."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from tests.conftest import Broker
from tests.worker.stage import Stage

NewStage: TypeAlias = Callable[..., Stage]


@pytest.fixture
def stage(broker: Broker, redis_url: str, topic_prefix: str) -> Iterator[Stage]:
    """Over both brokers."""
    made = Stage(broker=broker, redis_url=redis_url, prefix=topic_prefix)
    yield made
    made.close()


@pytest.fixture
def apache_stage(apache_kafka: Broker, redis_url: str, topic_prefix: str) -> Iterator[Stage]:
    """Over Apache Kafka alone: for what the mock cluster cannot do."""
    made = Stage(broker=apache_kafka, redis_url=redis_url, prefix=topic_prefix)
    yield made
    made.close()
