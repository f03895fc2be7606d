"""Profile stores for the laws: each law runs over the in-memory store and over Redis."""

import uuid
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from contract.profiles.store import InMemoryProfileStore, ProfileStore
from devservers.redis_server import RedisServer
from worker.redis.client import RedisClient
from worker.state.profile_store import RedisProfileStore

NewStore: TypeAlias = Callable[[], ProfileStore]


@pytest.fixture(scope="module", params=["memory", "redis"])
def new_store(request: pytest.FixtureRequest) -> Iterator[NewStore]:
    """Makes empty stores; module-scoped, since a property test needs many in one run."""
    if request.param == "memory":
        yield InMemoryProfileStore
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    client = RedisClient(url=server.url, timeout_s=20)
    yield lambda: RedisProfileStore(client=client, prefix=f"{uuid.uuid4().hex}:")
    client.close()
    server.flush()
