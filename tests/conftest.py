"""Servers shared by all tests, and the topic names and empty Redis that separate the tests.

A server starts when the first test requests it and runs until the end of the session; with xdist each worker process
has its own. A test that stops a server, or needs other settings, starts its own: `with ApacheKafka() as kafka`.
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
def shared_brokers() -> list[ApacheKafka]:
    """The brokers that tests share, as far as they were started."""
    return []


@pytest.fixture(scope="session")
def apache_kafka(shared_brokers: list[ApacheKafka]) -> Iterator[ApacheKafka]:
    if reason := unavailable_reason():
        pytest.skip(reason)
    with ApacheKafka() as kafka:
        shared_brokers.append(kafka)
        yield kafka
        shared_brokers.remove(kafka)


@pytest.fixture
def own_kafka() -> Iterator[ApacheKafka]:
    """A broker of this test alone, which may pause, kill or fill it."""
    if reason := unavailable_reason():
        pytest.skip(reason)
    with ApacheKafka() as kafka:
        yield kafka


@pytest.fixture(params=["embedded_kafka", pytest.param("apache_kafka", marks=pytest.mark.apache_kafka)])
def broker(request: pytest.FixtureRequest) -> KafkaBroker:
    """Runs a test on librdkafka's mock cluster and on Apache Kafka."""
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
    """The address of an empty Redis."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def topic_prefix(shared_brokers: list[ApacheKafka]) -> Iterator[str]:
    """A unique prefix for the topics, groups and transactional ids of a test, because tests share a broker.

    The topics are deleted afterwards: thousands of partitions would slow the broker down, until it fences itself.
    """
    prefix = f"t{uuid.uuid4().hex[:8]}."
    yield prefix
    for broker in shared_brokers:
        broker.delete_topics(prefix)


@pytest.fixture
def topic(broker: KafkaBroker, topic_prefix: str) -> str:
    """An empty topic of four partitions on `broker`."""
    name = f"{topic_prefix}topic"
    broker.create_topics({name: 4})
    return name


@pytest.fixture
def seed() -> int:
    """The seed of random test data, from SHOPSTREAM_SEED if set; printed, so that the report of a failure has it."""
    value = int(os.environ.get("SHOPSTREAM_SEED", "20111209"))
    print(f"seed = {value}")
    return value
