"""The faults of the matrix: each a function that lets one thing go wrong in a scene, at a moment that the seed chooses.

A fault returns when it has happened; what came of it is counted afterwards by the scene.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from bench.mortal import Happening, Mortal
from bench.scene import WITHIN_S, Scene, Terms
from contract.errors import LostLog, ShopstreamError
from contract.hashing import BUCKETS
from transport.records import TopicPartition
from worker.ops import metrics
from worker.ops.steps import STEPS

MOMENTS: Final = tuple(step for step in STEPS if step not in ("idle", "recover"))
DEATHS: Final = tuple(step for step in STEPS if step != "idle")
MISSED_SOON: Final = {"session.timeout.ms": 1_500}
ASLEEP_SOON: Final = {"session.timeout.ms": 1_500, "max.poll.interval.ms": 2_000}


class Fault(NamedTuple):
    """What goes wrong, and on which terms."""

    happen: Callable[[Scene], None]
    terms: Terms


def die_at(scene: Scene, step: str) -> None:
    """One of the workers dies when it begins `step`; in `recover` of the life after one that died with a batch."""
    number = scene.rng.randrange(len(scene.workers))
    worker = scene.workers[number]
    if step == "recover":
        meet(scene, worker, scene.rng.choice(MOMENTS), worker.die)
        worker = scene.workers[number]
    meet(scene, worker, step, worker.die)


def meet(scene: Scene, worker: Mortal, step: str, happening: Happening) -> None:
    """Let it happen when this worker begins `step`, with orders to do so."""
    worker.moments.at(step, happening, scene.rng.randint(1, 2) if step != "recover" else 1)
    scene.until(lambda: not worker.moments.waiting, feeding=True)


def die_everywhere(scene: Scene) -> None:
    """A death in each step, in any order."""
    for step in scene.rng.sample(DEATHS, len(DEATHS)):
        die_at(scene, step)


def die_within(scene: Scene, *, merging: bool) -> None:
    """A worker dies when half of a pipeline was carried out."""
    worker = scene.rng.choice(scene.workers)
    worker.redis.tear(merging=merging, happening=worker.die)
    scene.until(lambda: worker.redis.whole, feeding=True)


def flush(scene: Scene) -> None:
    scene.redis.pipeline([("FLUSHALL",)])


def flush_and_cut(scene: Scene) -> None:
    scene.redis.pipeline([("FLUSHALL",), ("CLIENT", "KILL", "TYPE", "normal")])


def flush_at_a_moment(scene: Scene, happening: Callable[[Scene], None]) -> None:
    worker = scene.rng.choice(scene.workers)
    meet(scene, worker, scene.rng.choice(MOMENTS), lambda: happening(scene))


def flush_within_a_merge(scene: Scene) -> None:
    worker = scene.rng.choice(scene.workers)
    worker.redis.tear(merging=True, happening=lambda: flush(scene))
    scene.until(lambda: worker.redis.whole, feeding=True)


def flush_while_idle(scene: Scene) -> None:
    """Nothing comes in any more, and Redis forgets everything: the workers notice by themselves."""
    scene.drain()
    flush(scene)


def restore_older(scene: Scene) -> None:
    """Redis goes back to what it held some batches ago."""
    keys = ("KEYS", f"{scene.stage.redis_prefix}*")
    ((held),) = scene.redis.pipeline([keys])
    dumps = scene.redis.pipeline([("DUMP", key) for key in held])
    for _ in range(scene.rng.randint(1, 3)):
        scene.send()
        scene.turn()

    def restore() -> None:
        flush(scene)
        scene.redis.pipeline([("RESTORE", key, 0, dump) for key, dump in zip(held, dumps, strict=True)])

    meet(scene, scene.rng.choice(scene.workers), scene.rng.choice(MOMENTS), restore)


def lose_a_bucket(scene: Scene) -> None:
    bucket = scene.rng.randrange(BUCKETS)

    def lose() -> None:
        (keys,) = scene.redis.pipeline([("KEYS", f"{scene.stage.redis_prefix}*{{{bucket}}}*")])
        scene.redis.pipeline([("DEL", *keys)])

    meet(scene, scene.rng.choice(scene.workers), scene.rng.choice(MOMENTS), lose)


def sleep_and_wake(scene: Scene, step: str) -> None:
    """A worker falls asleep when `step` begins; the other one takes over and goes on; the zombie wakes and goes on."""
    asleep, awake = scene.rng.sample(scene.workers, 2)

    def sleep() -> None:
        mine = set(asleep.intake.assignment)
        scene_of_one = [awake]
        both, scene.workers = scene.workers, scene_of_one
        scene.until(lambda: mine <= awake.intake.assignment)
        scene.send()
        for _ in range(scene.rng.randint(0, 6)):
            scene.turn()
        scene.workers = both

    meet(scene, asleep, step, sleep)
    scene.until(scene.settled, feeding=True)


def join(scene: Scene) -> None:
    """A third worker comes while events flow."""
    scene.send()
    scene.workers.append(scene.born("2"))
    scene.until(scene.settled, feeding=True)


def leave(scene: Scene) -> None:
    """One of the workers goes for good while events flow: in order, or by dying in some step."""
    scene.send()
    gone = scene.rng.choice(scene.workers)
    for _ in range(scene.rng.randint(0, 3)):
        scene.turn()
    scene.workers.remove(gone)
    gone.close(in_order=bool(scene.rng.randrange(2)))
    scene.until(scene.settled, feeding=True)


def add_partitions(scene: Scene) -> None:
    """A topic gets more partitions while events flow."""
    kind = scene.rng.choice(("orders", "orders", "reviews"))
    scene.add_partitions(scene.stage.topics.topic_name(kind), 6)
    scene.until(scene.settled, feeding=True)
    scene.send()


def create_anew(scene: Scene) -> None:
    """A topic is deleted, and created again under its name, with less or more in it than before."""
    topic = scene.stage.topics.topic_name(scene.rng.choice(("orders", "reviews")))
    scene.drain()
    scene.recreate(topic)
    scene.send(scene.rng.choice((4, 40, 160)))


def send_twice(scene: Scene) -> None:
    """A producer that retries: some orders come again, next to one another and batches later."""
    for _ in range(6):
        scene.send(6)
        scene.flows[-1].repeat(scene.rng.randint(1, 4))
        scene.turn()


def retention(scene: Scene) -> None:
    """The log has lost its beginning and Redis everything: the workers refuse, and go on when they are told to."""
    scene.drain()
    ends = scene.log.ends(scene.topics)
    low = {TopicPartition(*place): scene.rng.randint(1, end) for place, end in ends.items() if end}
    scene.delete_before(low)
    flush(scene)
    refused(scene, LostLog, "on_lost_log")
    accept_loss(scene, sum(low.values()))


def overtaken(scene: Scene) -> None:
    """Retention removes what a running worker has not read yet."""
    scene.drain()
    scene.remember()
    ends = {TopicPartition(*place): end for place, end in scene.log.ends(scene.topics).items()}
    for worker in scene.workers:
        worker.intake.pause_only(worker.intake.assignment)
    scene.send(60)
    now = {TopicPartition(*place): end for place, end in scene.log.ends(scene.topics).items()}
    low = {place: scene.rng.randint(end + 1, now[place]) for place, end in ends.items() if now[place] > end + 1}
    scene.delete_before(low)
    scene.removed = {place: range(ends[place], at) for place, at in low.items()}
    for worker in scene.workers:
        worker.intake.pause_only(())
    refused(scene, LostLog, "on_lost_log")
    accept_loss(scene, sum(map(len, scene.removed.values())))


def refused(scene: Scene, kind: type[ShopstreamError], words: str) -> str:
    """Some worker ends with this error, which says what to do; returns its words."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            scene.turn()
            scene.keep_house()
        except kind as error:
            if words in str(error):
                return str(error)
            raise RuntimeError(f"A refusal should say {words!r}. Found: {error}") from error
    raise RuntimeError(f"A worker should end with {kind.__name__} in {WITHIN_S:g} s. Found that none did.")


def accept_loss(scene: Scene, lost: int) -> None:
    """Both workers come back and go on without what is gone, which they count."""
    scene.on_lost_log = "accept"
    before = metrics.LOST_LOG_RECORDS._value.get()
    for number in range(len(scene.workers)):
        scene.replace(number)
    scene.until(scene.settled)
    counted = metrics.LOST_LOG_RECORDS._value.get() - before
    if counted != lost:
        raise RuntimeError(f"{lost} records should be counted as lost. Found {counted}.")


def mixed(scene: Scene) -> None:
    """Some of everything that needs no terms of its own, with Redis forgetting all of it in between."""
    many: list[Callable[[Scene], None]] = [
        lambda s: flush_at_a_moment(s, flush),
        lambda s: flush_at_a_moment(s, flush_and_cut),
        lambda s: die_at(s, s.rng.choice(DEATHS)),
        lambda s: die_within(s, merging=True),
        lose_a_bucket,
        flush_within_a_merge,
    ]
    for happen in scene.rng.sample(many, 4):
        happen(scene)


LOSES_CLAIMS: Final = Terms(keeps_claims=False, retried=0.0)
FAULTS: Final[Mapping[str, Fault]] = {
    "death within a claim": Fault(lambda scene: die_within(scene, merging=False), Terms()),
    "death within a merge": Fault(lambda scene: die_within(scene, merging=True), Terms()),
    "FLUSHALL": Fault(lambda scene: flush_at_a_moment(scene, flush), LOSES_CLAIMS),
    "FLUSHALL and broken connections": Fault(lambda scene: flush_at_a_moment(scene, flush_and_cut), LOSES_CLAIMS),
    "FLUSHALL within a merge": Fault(flush_within_a_merge, LOSES_CLAIMS),
    "FLUSHALL while idle": Fault(flush_while_idle, LOSES_CLAIMS),
    "older snapshot": Fault(restore_older, LOSES_CLAIMS),
    "bucket lost": Fault(lose_a_bucket, Terms()),
    "zombie before publishing": Fault(lambda scene: sleep_and_wake(scene, "publish"), Terms(client=ASLEEP_SOON)),
    "zombie before committing": Fault(lambda scene: sleep_and_wake(scene, "commit"), Terms(client=ASLEEP_SOON)),
    "zombie before merging": Fault(lambda scene: sleep_and_wake(scene, "merge"), Terms(client=ASLEEP_SOON)),
    "worker joins": Fault(join, Terms()),
    "worker leaves": Fault(leave, Terms(client=MISSED_SOON)),
    "partitions added": Fault(add_partitions, Terms()),
    "topic created anew": Fault(create_anew, Terms()),
    "producer's duplicate": Fault(send_twice, Terms()),
    "retention; then FLUSHALL": Fault(retention, LOSES_CLAIMS),
    "retention overtakes": Fault(overtaken, Terms()),
    "mixed": Fault(mixed, LOSES_CLAIMS),
}
