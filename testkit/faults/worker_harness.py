"""A score worker in this process, stepped by its caller, into which faults are injected when a chosen step begins.

It consists of a worker's own components and dies by being abandoned. Differences from SIGKILL, which `bench ledger`
covers: connections are closed, the stack is unwound, and librdkafka's buffers are discarded in order. As with SIGKILL,
nothing is committed, merged or published on the way, and its group membership is left to its successor.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from contract.errors import StaleState, Unavailable
from contract.features.encoder import Encoder
from contract.features.reading import read_features
from contract.settings.reading import Settings
from contract.settings.servers import RedisSettings
from contract.settings.worker import ListSettings, WorkerSettings
from testkit.checkout import ROOT
from testkit.environment.run_environment import RULES, RunEnvironment
from testkit.faults.step_hooks import Callback, StepHooks
from transport.records import TopicPartition
from worker.assembly import assemble
from worker.catalogue.catalogue import Catalogue
from worker.records.lanes import LANES
from worker.redis.client import RedisClient
from worker.scoring.handlers import HANDLERS
from worker.scoring.scorer import LaneScorer, ScoringResources
from worker.state.guarded_writer import WRITE
from worker.state.merge_script import MERGE
from worker.state.resources import open_stores

LANE: Final = LANES["orders"]
FEATURES: Final = read_features(ROOT / "features.toml")
BATCH_MAX: Final = 12
WAIT_MS: Final = 15
WAIT_MAX_S: Final = 0.02
WAITS_MAX: Final = 3_000  # of one worker: a minute
# A worker that queries offsets during a rebalance blocks the others in this thread, for which the broker waits.
QUERY_TIMEOUT_S: Final = 1.0
# Rebalances, recreated topics and added partitions are detected as soon as possible.
FAST_CLIENT_SETTINGS: Final[Mapping[str, int]] = {
    "heartbeat.interval.ms": 100,
    "topic.metadata.refresh.interval.ms": 250,
    "retry.backoff.ms": 50,
    "reconnect.backoff.max.ms": 200,
}


class WorkerDeath(Exception):
    """Raised in a worker at the moment chosen for its death."""


class BoundedStop(threading.Event):
    """A stop event with shortened waits. `on_wait(count)` is called on each wait and may clear the injected fault."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.is_waiting = 0, False
        self.on_wait: Callable[[int], None] = lambda waits: None
        self.while_waiting: Callback = lambda: None  # lets the other workers send heartbeats

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        if self.waits > WAITS_MAX:
            raise RuntimeError(f"A worker should wait at most {WAITS_MAX} times. Found more.")
        self.on_wait(self.waits)
        was_waiting, self.is_waiting = self.is_waiting, True
        try:
            self.while_waiting()
        finally:
            self.is_waiting = was_waiting
        return super().wait(min(timeout or 0.0, WAIT_MAX_S))


class PartialPipelineRedis(RedisClient):
    """A client that can interrupt one pipeline of merges or claims halfway with a callback."""

    script_items_max = BATCH_MAX // 4  # so that the claims of a batch take several calls
    _between_claims: Callback | None = None
    _between_merges: Callback | None = None

    def interrupt_next(self, *, merging: bool, callback: Callback) -> None:
        """Interrupt the next such pipeline with at least two commands."""
        if merging:
            self._between_merges = callback
        else:
            self._between_claims = callback

    @property
    def is_uninterrupted(self) -> bool:
        """Whether no interruption is pending."""
        return self._between_claims is None and self._between_merges is None

    def run_script(self, source: str, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        callback = {MERGE: self._between_merges, WRITE: self._between_claims}.get(source)
        if callback is None or len(calls) < 2:
            return super().run_script(source, calls)
        if source == MERGE:
            self._between_merges = None
        else:
            self._between_claims = None
        half = len(calls) // 2
        replies = super().run_script(source, calls[:half])
        callback()
        return replies + super().run_script(source, calls[half:])


def build_settings(
    environment: RunEnvironment, instance: str, *, on_lost_log: str, client_settings: Mapping[str, int]
) -> Settings:
    """Settings of a worker; `session.timeout.ms` in `client_settings` sets the session timeout."""
    client = {
        name: value
        for name, value in {**FAST_CLIENT_SETTINGS, **client_settings}.items()
        if name != "session.timeout.ms"
    }
    kafka = environment.kafka_settings.model_copy(
        update={"client": client, "session_timeout_ms": client_settings.get("session.timeout.ms", 45_000)}
    )
    worker = {"instance": instance, "batch_max": BATCH_MAX, "wait_ms": WAIT_MS, "on_lost_log": on_lost_log}
    return Settings(
        kafka=kafka,
        redis=RedisSettings(url=environment.redis.url, prefix=environment.redis_prefix),
        topics=environment.topics,
        worker=WorkerSettings.model_validate({**worker, "dead_letter_share_max": 1.0}),
        lists=ListSettings(),
        rules=RULES,  # type: ignore[arg-type]  # validated by pydantic
    )


def build_resources(settings: Settings) -> ScoringResources:
    encoder = Encoder(FEATURES)
    return ScoringResources(settings=settings, encoder=encoder, catalogue=Catalogue(encoder, 1))


class FaultyWorker:
    """A worker of the orders lane, from joining its group to its end or death."""

    def __init__(self, *, environment: RunEnvironment, settings: Settings) -> None:
        self.environment, self.settings = environment, settings
        self.instance = settings.worker.instance
        self.is_alive = True
        self.is_busy = False
        self._is_rebalancing = False
        self.hooks, self.stop = StepHooks(), BoundedStop()
        self.redis = PartialPipelineRedis(url=settings.redis.url, timeout_s=settings.redis.timeout_s)
        scorer = LaneScorer(HANDLERS[LANE.name], build_resources(settings))
        stores = open_stores(settings, scorer.answer_kinds, self.redis)
        worker = assemble(settings, LANE, self.stop, scorer=scorer, stores=stores, step_marker=self.hooks, erases=False)
        self.offsets, self.pipeline = worker.offsets, worker.open_pipeline()
        self.consumer = self.pipeline.consumer
        self.consumer.timeout_s = QUERY_TIMEOUT_S
        self.consumer.subscribe([settings.topics.topic_name(kind) for kind in LANE.folded_kinds], self)

    def step(self) -> int:
        """Process at most one batch; returns the number of records read."""
        self.is_busy = True
        try:
            return self.pipeline.step(lambda: time.time_ns() // 1_000_000)
        finally:
            self.is_busy = False

    def heartbeat(self) -> None:
        """Take part in rebalances while another worker waits, as a separate process would."""
        if not self._is_rebalancing and (not self.is_busy or self.stop.is_waiting):
            self.consumer.heartbeat()

    def run_periodic(self) -> None:
        """The periodic tasks of the pipeline."""
        try:
            self.pipeline.advance()
        except StaleState as error:
            self.pipeline.recover(error)
        except Unavailable:
            pass

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        return self.pipeline.on_assigned(partitions)

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        if self.is_alive:
            self._is_rebalancing = True  # within a poll, which is not reentrant
            try:
                self.pipeline.on_revoked(partitions)
            finally:
                self._is_rebalancing = False

    def die(self) -> None:
        """Raise `WorkerDeath`, as a callback of any step."""
        raise WorkerDeath(f"worker {self.instance}")

    def close(self, *, in_order: bool) -> None:
        """End by an orderly shutdown, which advances all buckets, or by abandoning the worker."""
        self.is_alive = in_order
        self.pipeline.close()
        self.is_alive = False
        self.redis.close()
