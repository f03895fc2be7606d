"""A fault of Redis in a chaos run ends, also where its beginning got no answer."""

import random
from collections.abc import Iterator
from typing import Any, cast

import pytest

from contract.errors import Unavailable
from devservers.redis_server import RedisServer
from testkit.chaos import redis_faults, scene
from testkit.chaos.scene import Scene
from testkit.faults.redis_faults import LOCKED


@pytest.fixture
def redis_scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A scene with a Redis of its own, and no wait between attempts."""
    monkeypatch.setattr(scene, "RETRY_S", 0.0)
    with RedisServer() as server:
        environment = type("Environment", (), {"redis": server})
        yield Scene(
            environment=cast(Any, environment),
            kafka=cast(Any, None),
            fleet=cast(Any, None),
            traffic=cast(Any, None),
            rng=random.Random(1),
            report=print,
        )


@pytest.mark.parametrize("was_locked", [False, True])
def test_redis_is_unlocked_also_where_only_an_unanswered_attempt_has_locked_it(
    redis_scene: Scene, was_locked: bool
) -> None:
    # given
    if was_locked:
        redis_scene.run_redis(*LOCKED)
    # when
    course = redis_faults.lock(redis_scene)
    next(course)
    with pytest.raises(Unavailable):
        redis_scene.run_redis(("PING",))
    course.close()  # type: ignore[attr-defined]  # a generator
    # then
    assert redis_scene.run_redis(("PING",)) == [b"PONG"]


def test_an_unlocked_redis_stays_so(redis_scene: Scene) -> None:
    redis_faults.remove_password(redis_scene)

    assert redis_scene.run_redis(("PING",)) == [b"PONG"]


def test_a_fault_whose_beginning_fails_is_repaired(redis_scene: Scene) -> None:
    # given a beginning that sets a password, and gets no answer
    def begin(_: Scene) -> None:
        redis_scene.run_redis(*LOCKED)
        raise TimeoutError

    # when
    with pytest.raises(TimeoutError):
        next(redis_faults.interrupt("broken", begin, redis_faults.remove_password)(redis_scene))
    # then
    assert redis_scene.run_redis(("PING",)) == [b"PONG"]
