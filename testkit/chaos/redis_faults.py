"""Faults of Redis: away, paused, slow, full, read-only, locked, disconnected, flushed, set back to a snapshot."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from contract.errors import Unavailable
from testkit.chaos.scene import Course, Scene
from testkit.faults.redis_faults import FULL, LOCKED, READ_ONLY, UNLIMITED, UNLOCKED, WRITABLE

AWAY_S: Final = (1.0, 8.0)
PASSWORD: Final = "another"  # of `LOCKED`


def slow_redis(scene: Scene) -> Course:
    scene.record("Redis slow")
    for _ in range(scene.rng.randint(5, 15)):
        scene.run_redis(("CLIENT", "PAUSE", scene.rng.choice((50, 300, 800)), "ALL"))
        yield 1.0


def disconnect(scene: Scene) -> Course:
    scene.record("Redis connections reset")
    for _ in range(scene.rng.randint(1, 5)):
        scene.run_redis(("CLIENT", "KILL", "TYPE", "normal"))
        yield scene.rng.uniform(0.0, 0.5)


def flush(scene: Scene) -> Course:
    scene.loses_claims = True
    scene.record("Redis flushed")
    scene.environment.redis.flush()
    yield 0


def set_back(scene: Scene) -> Course:
    """A snapshot is taken, events go on, then Redis is restored from it."""
    snapshot = scene.environment.redis.save_snapshot()
    yield scene.rng.uniform(1, 20)
    scene.loses_claims = True
    scene.record("Redis set back to a snapshot")
    scene.environment.redis.restore_snapshot(snapshot)


def interrupt(name: str, begin: Callable[[Scene], object], end: Callable[[Scene], object]) -> Callable[[Scene], Course]:
    """Redis is in another state for some seconds."""

    def course(scene: Scene) -> Course:
        scene.record(f"Redis {name}")
        try:
            begin(scene)
            yield scene.rng.uniform(*AWAY_S)
        finally:
            end(scene)

    return course


def refuse(name: str, breaking: Sequence[Sequence[Any]], repair: Sequence[Sequence[Any]]) -> Callable[[Scene], Course]:
    """Redis answers, but refuses commands until it is repaired."""
    return interrupt(name, lambda scene: scene.run_redis(*breaking), lambda scene: scene.run_redis(*repair))


def set_password(scene: Scene) -> None:
    """Lock Redis; a first attempt that gets no answer in time may have done so, and refuses the next ones."""
    try:
        scene.run_redis(*LOCKED)
    except Unavailable:
        scene.run_redis(("PING",), password=PASSWORD)


def remove_password(scene: Scene) -> None:
    """Unlock Redis, which a client with the password only may do; an unanswered attempt may have done so."""
    try:
        scene.run_redis(*UNLOCKED, password=PASSWORD)
    except Unavailable:
        scene.run_redis(*UNLOCKED)


stop_redis = interrupt(
    "away", lambda scene: scene.environment.redis.stop(), lambda scene: scene.environment.redis.start()
)
pause_redis = interrupt(
    "paused", lambda scene: scene.environment.redis.pause(), lambda scene: scene.environment.redis.resume()
)
fill = refuse("full", FULL, UNLIMITED)
demote = refuse("read-only", READ_ONLY, WRITABLE)
lock = interrupt("locked", set_password, remove_password)
