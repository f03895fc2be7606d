"""Faults of Redis: full, read-only, slow, locked, disconnected, evicting, with a corrupted record.

A worker retries its batch, logs it, and continues when the server has recovered. Where waiting would not help, it ends
with an error that states the remedy.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from contract.errors import BadConfig
from testkit.faults.scenario import FaultOptions, Scenario
from testkit.faults.worker_faults import STEPS_WITH_FAULTS, Fault, run_at_step
from testkit.faults.worker_harness import FaultyWorker
from testkit.metrics import read_metric
from transport.records import TopicPartition
from worker.ops import metrics
from worker.redis.client import to_pairs

Commands = Sequence[Sequence[Any]]
WAITS_MIN: Final = 3
FULL: Final[Commands] = [("CONFIG", "SET", "maxmemory", "1")]
UNLIMITED: Final[Commands] = [("CONFIG", "SET", "maxmemory", "0")]
READ_ONLY: Final[Commands] = [("REPLICAOF", "127.0.0.1", "1")]
WRITABLE: Final[Commands] = [("REPLICAOF", "NO", "ONE")]
LOCKED: Final[Commands] = [("CONFIG", "SET", "requirepass", "another"), ("CLIENT", "KILL", "TYPE", "normal")]
UNLOCKED: Final[Commands] = [("CONFIG", "SET", "requirepass", "")]


def break_redis(scenario: Scenario, *, breaking: Commands, repair: Commands) -> None:
    """Break the server at some step of a worker, and repair it after a number of waits."""
    worker = scenario.rng.choice(scenario.workers)
    waited: list[int] = []

    def repair_after_waits(waits: int) -> None:
        waited.append(waits)
        if len(waited) == WAITS_MIN:
            scenario.redis.pipeline(repair)

    def start() -> None:
        for other in scenario.workers:  # the first one to wait stops the others
            other.stop.on_wait = repair_after_waits
        scenario.redis.pipeline(breaking)

    run_at_step(scenario, worker, scenario.rng.choice(("claim", "merge")), start)
    scenario.redis.pipeline(repair)
    if len(waited) < WAITS_MIN:
        raise RuntimeError(f"A worker should wait for a faulty Redis. Found {len(waited)} waits.")


def rebalance_while_locked(scenario: Scenario) -> None:
    """Partitions move to a third worker while their owner waits for Redis; the new owner waits as well."""
    worker = scenario.rng.choice(scenario.workers)
    owned, waits_after_move = set[TopicPartition](), list[int]()

    def unlock_after_waits(waits: int) -> None:
        if worker.consumer.assignment != owned:
            waits_after_move.append(waits)
        if len(waits_after_move) == WAITS_MIN:
            scenario.redis.pipeline(UNLOCKED)

    def start() -> None:
        owned.update(worker.consumer.assignment)
        scenario.redis.pipeline(LOCKED)
        third_worker = scenario.create_worker("2")
        worker.stop.on_wait = third_worker.stop.on_wait = unlock_after_waits
        scenario.workers.append(third_worker)

    run_at_step(scenario, worker, scenario.rng.choice(("claim", "merge")), start)
    scenario.run_until(scenario.is_balanced, sending=True)
    if len(waits_after_move) < WAITS_MIN:
        raise RuntimeError(f"A worker should wait after its partitions moved. Found {len(waits_after_move)} waits.")


def pause_redis(scenario: Scenario) -> None:
    """Redis answers after half a second, mostly in the middle of a batch."""
    for _ in range(2):
        pause: Callable[[], Any] = partial(scenario.redis.pipeline, [("CLIENT", "PAUSE", 500, "ALL")])
        run_at_step(scenario, scenario.rng.choice(scenario.workers), scenario.rng.choice(STEPS_WITH_FAULTS), pause)


def disconnect_within_merge(scenario: Scenario) -> None:
    """Connections are reset when half of a merge was executed."""
    worker = scenario.rng.choice(scenario.workers)

    def disconnect() -> None:
        scenario.redis.pipeline([("CLIENT", "KILL", "TYPE", "normal")])

    worker.redis.interrupt_next(merging=True, callback=disconnect)
    scenario.run_until(lambda: worker.redis.is_uninterrupted, sending=True)


def enable_eviction(scenario: Scenario) -> None:
    """A worker refuses to start on a server that may evict profiles."""
    scenario.redis.pipeline(
        [("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"), ("CONFIG", "SET", "maxmemory", "1gb")]
    )
    try:
        for worker in scenario.workers:
            expect_refusal(worker)
    finally:
        scenario.redis.pipeline([("CONFIG", "SET", "maxmemory-policy", "noeviction"), *UNLIMITED])


def expect_refusal(worker: FaultyWorker) -> None:
    try:
        worker.redis.check()
    except BadConfig as error:
        if "noeviction" in str(error):
            return
    raise RuntimeError("A worker should refuse a Redis that evicts. Found that it starts.")


def corrupt_profiles(scenario: Scenario, spoil: Callable[[str], Commands]) -> None:
    """A seller's profile is unreadable: a worker deletes it and folds it again."""
    scenario.drain()
    (keys,) = scenario.redis.pipeline([("KEYS", f"{scenario.environment.redis_prefix}profile:*seller:*")])
    repaired = metrics.UNREADABLE_KEYS.labels("profile")
    before = read_metric(repaired)
    scenario.redis.pipeline(spoil(scenario.rng.choice(sorted(keys)).decode()))
    scenario.run_until(lambda: read_metric(repaired) > before, sending=True)


def rewrite_slices(scenario: Scenario, change: Callable[[bytes], bytes]) -> None:
    """Change each slice of the seller."""

    def spoil(key: str) -> Commands:
        (slices,) = scenario.redis.pipeline([("HGETALL", key)])
        return [("HSET", key, source, change(record)) for source, record in to_pairs(slices)]

    corrupt_profiles(scenario, spoil)


def make_fault(breaking: Commands, repair: Commands) -> Fault:
    return Fault(lambda scenario: break_redis(scenario, breaking=breaking, repair=repair), FaultOptions())


REDIS_FAULTS: Final[Mapping[str, Fault]] = {
    "Redis full": make_fault(FULL, UNLIMITED),
    "Redis read-only": make_fault(READ_ONLY, WRITABLE),
    "Redis locked": make_fault(LOCKED, UNLOCKED),
    "Redis locked while partitions move": Fault(rebalance_while_locked, FaultOptions()),
    "Redis slow": Fault(pause_redis, FaultOptions()),
    "connection reset within a merge": Fault(disconnect_within_merge, FaultOptions()),
    "Redis evicting": Fault(enable_eviction, FaultOptions()),
    "profile of another type": Fault(
        lambda scene: corrupt_profiles(scene, lambda key: [("SET", key, "x")]), FaultOptions()
    ),
    "record cut short": Fault(lambda scene: rewrite_slices(scene, lambda record: record[:-1]), FaultOptions()),
    "record of another layout": Fault(
        lambda scene: rewrite_slices(scene, lambda record: b"\x01" * 4 + record[4:]), FaultOptions()
    ),
}
