"""Redis that answers, but not as it should: full, read-only, slow, locked, cut off, evicting, with half a record.

A worker holds the batch in hand, says so, and goes on when the server is well again; where waiting would not help, it
ends and says what to do.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from bench.faults import MOMENTS, Fault, meet, refused
from bench.mortal import Mortal
from bench.scene import PORTION, Scene, Terms
from contract.errors import BadConfig, BadProfile
from transport.records import TopicPartition
from worker.redis.client import to_pairs

Commands = Sequence[Sequence[Any]]
WAITS: Final = 3
FULL: Final[Commands] = [("CONFIG", "SET", "maxmemory", "1")]
ROOMY: Final[Commands] = [("CONFIG", "SET", "maxmemory", "0")]
READ_ONLY: Final[Commands] = [("REPLICAOF", "127.0.0.1", "1")]
WRITABLE: Final[Commands] = [("REPLICAOF", "NO", "ONE")]
LOCKED: Final[Commands] = [("CONFIG", "SET", "requirepass", "another"), ("CLIENT", "KILL", "TYPE", "normal")]
OPEN: Final[Commands] = [("CONFIG", "SET", "requirepass", "")]


def ail(scene: Scene, *, trouble: Commands, cure: Commands) -> None:
    """The server is in trouble from some step of a worker on, until workers have waited some times."""
    worker = scene.rng.choice(scene.workers)
    waited: list[int] = []

    def end(waits: int) -> None:
        waited.append(waits)
        if len(waited) == WAITS:
            scene.redis.pipeline(cure)

    def begin() -> None:
        for each in scene.workers:  # who waits first keeps the others from going on
            each.stop.on_wait = end
        scene.redis.pipeline(trouble)

    meet(scene, worker, scene.rng.choice(("claim", "merge")), begin)
    scene.redis.pipeline(cure)
    if len(waited) < WAITS:
        raise RuntimeError(f"A worker should wait for a Redis in trouble. Found that it waited {len(waited)} times.")


def move_while_locked(scene: Scene) -> None:
    """Partitions move to a third worker while their owner waits for Redis, and go on waiting after that."""
    worker = scene.rng.choice(scene.workers)
    held, after = set[TopicPartition](), list[int]()

    def end(waits: int) -> None:
        if worker.intake.assignment != held:
            after.append(waits)
        if len(after) == WAITS:
            scene.redis.pipeline(OPEN)

    def begin() -> None:
        held.update(worker.intake.assignment)
        scene.redis.pipeline(LOCKED)
        third = scene.born("2")
        worker.stop.on_wait = third.stop.on_wait = end
        scene.workers.append(third)

    meet(scene, worker, scene.rng.choice(("claim", "merge")), begin)
    scene.until(scene.settled, feeding=True)
    if len(after) < WAITS:
        raise RuntimeError(f"A worker should wait on after its partitions moved. Found {len(after)} waits.")


def slow(scene: Scene) -> None:
    """Half a second for an answer, more often than not in the middle of a batch."""
    for _ in range(2):
        pause: Callable[[], Any] = partial(scene.redis.pipeline, [("CLIENT", "PAUSE", 500, "ALL")])
        meet(scene, scene.rng.choice(scene.workers), scene.rng.choice(MOMENTS), pause)


def cut_within(scene: Scene) -> None:
    """Connections are reset when half of a merge was carried out."""
    worker = scene.rng.choice(scene.workers)

    def cut() -> None:
        scene.redis.pipeline([("CLIENT", "KILL", "TYPE", "normal")])

    worker.redis.tear(merging=True, happening=cut)
    scene.until(lambda: worker.redis.whole, feeding=True)


def evicting(scene: Scene) -> None:
    """A server that may throw profiles away is refused when a worker starts."""
    scene.redis.pipeline([("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"), ("CONFIG", "SET", "maxmemory", "1gb")])
    try:
        for worker in scene.workers:
            refuses(worker)
    finally:
        scene.redis.pipeline([("CONFIG", "SET", "maxmemory-policy", "noeviction"), *ROOMY])


def refuses(worker: Mortal) -> None:
    try:
        worker.redis.check()
    except BadConfig as error:
        if "noeviction" in str(error):
            return
    raise RuntimeError("A worker should refuse a Redis that evicts. Found that it starts.")


def spoil(scene: Scene, change: Callable[[bytes], bytes]) -> None:
    """A seller's slices are not what this release wrote: a worker ends and says what to run, which is done."""
    scene.drain()
    (keys,) = scene.redis.pipeline([("KEYS", f"{scene.stage.redis_prefix}profile:*seller:*")])
    key = scene.rng.choice(sorted(keys))
    (held,) = scene.redis.pipeline([("HGETALL", key)])
    scene.redis.pipeline([("HSET", key, source, change(record)) for source, record in to_pairs(held)])
    scene.send(5 * PORTION)
    said = refused(scene, BadProfile, "redis-cli DEL")
    scene.redis.pipeline([("DEL", *re.findall("'([^']+)'", said))])
    for number in range(len(scene.workers)):
        scene.replace(number)


def ailing(trouble: Commands, cure: Commands) -> Fault:
    return Fault(lambda scene: ail(scene, trouble=trouble, cure=cure), Terms())


REDIS_FAULTS: Final[Mapping[str, Fault]] = {
    "Redis full": ailing(FULL, ROOMY),
    "Redis read-only": ailing(READ_ONLY, WRITABLE),
    "Redis locked": ailing(LOCKED, OPEN),
    "Redis locked while partitions move": Fault(move_while_locked, Terms()),
    "Redis slow": Fault(slow, Terms()),
    "connection reset within a merge": Fault(cut_within, Terms()),
    "Redis evicting": Fault(evicting, Terms()),
    "record cut short": Fault(lambda scene: spoil(scene, lambda record: record[:-1]), Terms()),
    "record of another layout": Fault(lambda scene: spoil(scene, lambda record: b"\x01" * 4 + record[4:]), Terms()),
}
