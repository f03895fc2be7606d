"""The faults of workers, Kafka and the consumer group; each function injects one at a seeded moment.

A fault returns when it has happened; the scenario evaluates the consequences afterwards.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from contract.errors import LostLog, ShopstreamError
from contract.hashing import BUCKETS
from testkit.faults.scenario import TIMEOUT_S, FaultOptions, Scenario
from testkit.faults.step_hooks import Callback
from testkit.faults.worker_harness import FaultyWorker
from testkit.metrics import read_metric
from transport.records import TopicPartition
from worker.ops import metrics
from worker.ops.steps import STEPS

STEPS_WITH_FAULTS: Final = tuple(step for step in STEPS if step not in ("idle", "recover"))
KILL_STEPS: Final = tuple(step for step in STEPS if step != "idle")
SHORT_SESSION: Final = {"session.timeout.ms": 1_500}
SHORT_SESSION_AND_POLL: Final = {"session.timeout.ms": 1_500, "max.poll.interval.ms": 2_000}


class Fault(NamedTuple):
    """An injected fault and the scenario options that it needs."""

    inject: Callable[[Scenario], None]
    options: FaultOptions


def kill_at(scenario: Scenario, step: str) -> None:
    """A worker dies when it begins `step`; for `recover`, in the restart after a death with a batch."""
    number = scenario.rng.randrange(len(scenario.workers))
    worker = scenario.workers[number]
    if step == "recover":
        run_at_step(scenario, worker, scenario.rng.choice(STEPS_WITH_FAULTS), worker.die)
        worker = scenario.workers[number]
    run_at_step(scenario, worker, step, worker.die)


def run_at_step(scenario: Scenario, worker: FaultyWorker, step: str, callback: Callback) -> None:
    """Run `callback` when this worker begins `step`, and send orders until then."""
    worker.hooks.add(step, callback, scenario.rng.randint(1, 2) if step != "recover" else 1)
    scenario.run_until(lambda: not worker.hooks.is_pending, sending=True)


def kill_at_every_step(scenario: Scenario) -> None:
    """A death in each step, in random order."""
    for step in scenario.rng.sample(KILL_STEPS, len(KILL_STEPS)):
        kill_at(scenario, step)


def kill_within_pipeline(scenario: Scenario, *, merging: bool) -> None:
    """A worker dies when half of a pipeline was executed."""
    worker = scenario.rng.choice(scenario.workers)
    worker.redis.interrupt_next(merging=merging, callback=worker.die)
    scenario.run_until(lambda: worker.redis.is_uninterrupted, sending=True)


def flush_redis(scenario: Scenario) -> None:
    scenario.redis.pipeline([("FLUSHALL",)])


def flush_and_disconnect(scenario: Scenario) -> None:
    scenario.redis.pipeline([("FLUSHALL",), ("CLIENT", "KILL", "TYPE", "normal")])


def flush_at_random_step(scenario: Scenario, inject_flush: Callable[[Scenario], None]) -> None:
    worker = scenario.rng.choice(scenario.workers)
    run_at_step(scenario, worker, scenario.rng.choice(STEPS_WITH_FAULTS), lambda: inject_flush(scenario))


def flush_within_merge(scenario: Scenario) -> None:
    worker = scenario.rng.choice(scenario.workers)
    worker.redis.interrupt_next(merging=True, callback=lambda: flush_redis(scenario))
    scenario.run_until(lambda: worker.redis.is_uninterrupted, sending=True)


def flush_while_idle(scenario: Scenario) -> None:
    """Redis loses everything while no events arrive: the workers detect it in their periodic tasks."""
    scenario.drain()
    flush_redis(scenario)


def restore_older_snapshot(scenario: Scenario) -> None:
    """Redis is restored to the state of some batches ago."""
    keys = ("KEYS", f"{scenario.environment.redis_prefix}*")
    (keys_before,) = scenario.redis.pipeline([keys])
    dumps = scenario.redis.pipeline([("DUMP", key) for key in keys_before])
    for _ in range(scenario.rng.randint(1, 3)):
        scenario.send()
        scenario.step_workers()

    def restore() -> None:
        flush_redis(scenario)
        scenario.redis.pipeline([("RESTORE", key, 0, dump) for key, dump in zip(keys_before, dumps, strict=True)])

    run_at_step(scenario, scenario.rng.choice(scenario.workers), scenario.rng.choice(STEPS_WITH_FAULTS), restore)


def delete_bucket(scenario: Scenario) -> None:
    bucket = scenario.rng.randrange(BUCKETS)

    def delete() -> None:
        (keys,) = scenario.redis.pipeline([("KEYS", f"{scenario.environment.redis_prefix}*{{{bucket}}}*")])
        scenario.redis.pipeline([("DEL", *keys)])

    run_at_step(scenario, scenario.rng.choice(scenario.workers), scenario.rng.choice(STEPS_WITH_FAULTS), delete)


def pause_and_resume(scenario: Scenario, step: str) -> None:
    """A worker pauses when `step` begins; the other one takes over; then the zombie resumes."""
    paused, running = scenario.rng.sample(scenario.workers, 2)

    def pause() -> None:
        own_partitions = set(paused.consumer.assignment)
        all_workers, scenario.workers = scenario.workers, [running]
        scenario.run_until(lambda: own_partitions <= running.consumer.assignment)
        scenario.send()
        for _ in range(scenario.rng.randint(0, 6)):
            scenario.step_workers()
        scenario.workers = all_workers

    run_at_step(scenario, paused, step, pause)
    scenario.run_until(scenario.is_balanced, sending=True)


def add_worker(scenario: Scenario) -> None:
    """A third worker joins while events flow."""
    scenario.send()
    scenario.workers.append(scenario.create_worker("2"))
    scenario.run_until(scenario.is_balanced, sending=True)


def remove_worker(scenario: Scenario) -> None:
    """A worker leaves permanently while events flow: by an orderly shutdown, or by dying in some step."""
    scenario.send()
    leaving = scenario.rng.choice(scenario.workers)
    for _ in range(scenario.rng.randint(0, 3)):
        scenario.step_workers()
    scenario.workers.remove(leaving)
    leaving.close(in_order=bool(scenario.rng.randrange(2)))
    scenario.run_until(scenario.is_balanced, sending=True)


def add_partitions(scenario: Scenario) -> None:
    """Partitions are added to a topic while events flow."""
    kind = scenario.rng.choice(("orders", "orders", "reviews"))
    scenario.add_partitions(scenario.environment.topics.topic_name(kind), 6)
    scenario.run_until(scenario.is_balanced, sending=True)
    scenario.send()


def recreate_topic(scenario: Scenario) -> None:
    """A topic is deleted and recreated under its name, with fewer or more records than before."""
    topic = scenario.environment.topics.topic_name(scenario.rng.choice(("orders", "reviews")))
    scenario.drain()
    scenario.recreate_topic(topic)
    scenario.send(scenario.rng.choice((4, 40, 160)))


def send_duplicates(scenario: Scenario) -> None:
    """A producer that retries: some orders are repeated, at once and batches later."""
    for _ in range(6):
        scenario.send(6)
        scenario.producers[-1].resend(scenario.rng.randint(1, 4))
        scenario.step_workers()


def delete_read_records(scenario: Scenario) -> None:
    """The log has lost its beginning and Redis everything: workers stop, and continue once the loss is accepted."""
    scenario.drain()
    ends = scenario.log.read_end_offsets(scenario.topics)
    low = {TopicPartition(*partition): scenario.rng.randint(1, end) for partition, end in ends.items() if end}
    scenario.delete_records_before(low)
    flush_redis(scenario)
    expect_error(scenario, LostLog, "on_lost_log")
    accept_loss(scenario, sum(low.values()))


def read_ends(scenario: Scenario) -> dict[TopicPartition, int]:
    ends = scenario.log.read_end_offsets(scenario.topics)
    return {TopicPartition(*partition): end for partition, end in ends.items()}


def delete_unread_records(scenario: Scenario) -> None:
    """Retention deletes records that a running worker has not read yet."""
    scenario.drain()
    scenario.save_expected_slices()
    ends = read_ends(scenario)
    for worker in scenario.workers:
        worker.consumer.pause_only(worker.consumer.assignment)
    scenario.send(60)
    ends_now = read_ends(scenario)
    low = {
        partition: scenario.rng.randint(end + 1, ends_now[partition])
        for partition, end in ends.items()
        if ends_now[partition] > end + 1
    }
    scenario.delete_records_before(low)
    scenario.removed_offsets = {partition: range(ends[partition], offset) for partition, offset in low.items()}
    for worker in scenario.workers:
        worker.consumer.pause_only(())
    expect_error(scenario, LostLog, "on_lost_log")
    accept_loss(scenario, sum(map(len, scenario.removed_offsets.values())))


def expect_error(scenario: Scenario, kind: type[ShopstreamError], expected_text: str) -> str:
    """Step until a worker ends with this error, whose text states the remedy; returns the text."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            scenario.step_workers()
            scenario.run_periodic()
        except kind as error:
            if expected_text in str(error):
                return str(error)
            raise RuntimeError(f"The error should state {expected_text!r}. Found: {error}") from error
    raise RuntimeError(f"A worker should end with {kind.__name__} in {TIMEOUT_S:g} s. Found none that did.")


def accept_loss(scenario: Scenario, lost: int) -> None:
    """Restart both workers with the loss accepted; they count the lost records."""
    scenario.on_lost_log = "accept"
    before = read_metric(metrics.LOST_LOG_RECORDS)
    for number in range(len(scenario.workers)):
        scenario.restart_worker(number)
    scenario.run_until(scenario.is_balanced)
    counted = read_metric(metrics.LOST_LOG_RECORDS) - before
    if counted != lost:
        raise RuntimeError(f"{lost} records should be counted as lost. Found {counted}.")


def inject_several(scenario: Scenario) -> None:
    """Several faults that need no options of their own, one after the other."""
    candidates: list[Callable[[Scenario], None]] = [
        lambda s: flush_at_random_step(s, flush_redis),
        lambda s: flush_at_random_step(s, flush_and_disconnect),
        lambda s: kill_at(s, s.rng.choice(KILL_STEPS)),
        lambda s: kill_within_pipeline(s, merging=True),
        delete_bucket,
        flush_within_merge,
    ]
    for inject in scenario.rng.sample(candidates, 4):
        inject(scenario)


LOSES_CLAIMS: Final = FaultOptions(keeps_claims=False, duplicate_share=0.0)
FAULTS: Final[Mapping[str, Fault]] = {
    "death within a claim": Fault(lambda scene: kill_within_pipeline(scene, merging=False), FaultOptions()),
    "death within a merge": Fault(lambda scene: kill_within_pipeline(scene, merging=True), FaultOptions()),
    "FLUSHALL": Fault(lambda scene: flush_at_random_step(scene, flush_redis), LOSES_CLAIMS),
    "FLUSHALL and broken connections": Fault(
        lambda scene: flush_at_random_step(scene, flush_and_disconnect), LOSES_CLAIMS
    ),
    "FLUSHALL within a merge": Fault(flush_within_merge, LOSES_CLAIMS),
    "FLUSHALL while idle": Fault(flush_while_idle, LOSES_CLAIMS),
    "older snapshot": Fault(restore_older_snapshot, LOSES_CLAIMS),
    "bucket lost": Fault(delete_bucket, FaultOptions()),
    "zombie before publishing": Fault(
        lambda scene: pause_and_resume(scene, "publish"), FaultOptions(client_settings=SHORT_SESSION_AND_POLL)
    ),
    "zombie before committing": Fault(
        lambda scene: pause_and_resume(scene, "commit"), FaultOptions(client_settings=SHORT_SESSION_AND_POLL)
    ),
    "zombie before merging": Fault(
        lambda scene: pause_and_resume(scene, "merge"), FaultOptions(client_settings=SHORT_SESSION_AND_POLL)
    ),
    "worker joins": Fault(add_worker, FaultOptions()),
    "worker leaves": Fault(remove_worker, FaultOptions(client_settings=SHORT_SESSION)),
    "partitions added": Fault(add_partitions, FaultOptions()),
    "topic created anew": Fault(recreate_topic, FaultOptions()),
    "producer's duplicate": Fault(send_duplicates, FaultOptions()),
    "retention; then FLUSHALL": Fault(delete_read_records, LOSES_CLAIMS),
    "retention overtakes": Fault(delete_unread_records, FaultOptions()),
    "mixed": Fault(inject_several, LOSES_CLAIMS),
}
