"""Servers for all tests, and what each test gets of them for itself.

A server starts when the first test asks for it and serves the whole run. A test that stops a server, or wants one with
other settings, makes its own: `with ApacheKafka() as kafka`.
"""

import os
import uuid
from collections.abc import Iterator
from typing import TypeAlias

import pytest

from devservers.apache_kafka import ApacheKafka, unavailable_reason
from devservers.embedded import EmbeddedKafka, EmbeddedValkey
from devservers.redis_server import RedisServer

KafkaBroker: TypeAlias = EmbeddedKafka | ApacheKafka


@pytest.fixture(scope="session")
def embedded_kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as kafka:
        yield kafka


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[ApacheKafka]:
    if reason := unavailable_reason():
        pytest.skip(reason)
    with ApacheKafka() as kafka:
        yield kafka


@pytest.fixture(params=["embedded_kafka", pytest.param("apache_kafka", marks=pytest.mark.apache_kafka)])
def broker(request: pytest.FixtureRequest) -> KafkaBroker:
    """The same test over librdkafka's mock cluster and over Apache Kafka."""
    kafka: KafkaBroker = request.getfixturevalue(request.param)
    return kafka


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of a Redis without any key."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def topic_prefix() -> str:
    """What this test's topics, groups and transactions begin with: servers outlive tests."""
    return f"t{uuid.uuid4().hex[:8]}."


@pytest.fixture
def topic(broker: KafkaBroker, topic_prefix: str) -> str:
    """An empty topic of four partitions on `broker`."""
    name = f"{topic_prefix}topic"
    broker.create_topics({name: 4})
    return name


@pytest.fixture
def seed() -> int:
    """The seed of what a test draws; printed, so that a failure shows it, and set by SHOPSTREAM_SEED to try others."""
    chosen = int(os.environ.get("SHOPSTREAM_SEED", "20111209"))
    print(f"seed = {chosen}")
    return chosen
