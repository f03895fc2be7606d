"""Stores of profiles for the laws: each law runs over the in-memory one and over Redis."""

import uuid
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from contract.memory import InMemoryProfileStore, ProfileStore
from demo.servers.redis_server import RedisServer
from worker.profile_store import RedisProfileStore
from worker.redis_client import RedisClient

NewStore: TypeAlias = Callable[[], ProfileStore]


@pytest.fixture(scope="module", params=["memory", "redis"])
def new_store(request: pytest.FixtureRequest) -> Iterator[NewStore]:
    """Makes empty stores. For the whole module, since a property test asks for many in one run."""
    if request.param == "memory":
        yield InMemoryProfileStore
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    client = RedisClient(url=server.url, timeout_s=20)
    yield lambda: RedisProfileStore(client=client, prefix=f"{uuid.uuid4().hex}:")
    client.close()
    server.flush()
