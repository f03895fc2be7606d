"""A score worker in this process, stepped by hand, to which things happen when a chosen step of the protocol begins.

It has all of a worker's own parts and dies by being abandoned. What differs from SIGKILL, which `bench ledger` covers:
its connections are closed in order, its stack is unwound, and what librdkafka holds is thrown away in order.
Nothing is committed, merged or published on the way, and its place in the group is kept for the next life, as then.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from contract.errors import StaleState, Unavailable
from contract.features.declaration import read_features
from contract.features.encoder import Encoder
from contract.settings import ListSettings, RedisSettings, Settings, WorkerSettings
from testkit.environment.run_environment import ROOT, RULES, RunEnvironment
from worker.assembly import assemble
from worker.catalogue.catalogue import Catalogue
from worker.kafka.consumer import TopicPartition
from worker.ops.steps import StepMarker
from worker.records.lanes import LANES
from worker.redis.client import RedisClient
from worker.scoring.handlers import HANDLERS
from worker.scoring.scorer import LaneScorer, ScoringResources
from worker.state.profile_store import MERGE
from worker.state.resources import open_stores

LANE: Final = LANES["orders"]
FEATURES: Final = read_features(ROOT / "features.toml")
BATCH_MAX: Final = 12
WAIT_MS: Final = 15
WAIT_MAX_S: Final = 0.02
WAITS_MAX: Final = 3_000  # in one life: a minute of it
QUERY_TIMEOUT_S: Final = (
    1.0  # while a worker asks during a rebalance, the broker waits for the others, which wait for it here
)
# A rebalance, a topic that has changed and a partition that was added are noticed as soon as possible.
FAST_CLIENT_SETTINGS: Final[Mapping[str, int]] = {
    "heartbeat.interval.ms": 100,
    "topic.metadata.refresh.interval.ms": 250,
    "retry.backoff.ms": 50,
    "reconnect.backoff.max.ms": 200,
}
Callback = Callable[[], None]


class WorkerDeath(Exception):
    """The end of a worker's life, at the moment that was chosen for it."""


class StepHooks(StepMarker):
    """Marks steps, and lets something happen once when a chosen one begins."""

    def __init__(self) -> None:
        super().__init__()
        self._pending: dict[str, tuple[int, Callback]] = {}

    def add(self, step: str, callback: Callback, occurrence: int = 1) -> None:
        """Let it happen when `step` begins for that time from now on."""
        self._pending[step] = (occurrence, callback)

    @property
    def is_pending(self) -> bool:
        """Whether something has not happened yet."""
        return bool(self._pending)

    def __call__(self, step: str) -> None:
        super().__call__(step)
        if step in self._pending:
            remaining, callback = self._pending.pop(step)
            if remaining > 1:
                self._pending[step] = (remaining - 1, callback)
            else:
                callback()


class BoundedStop(threading.Event):
    """The stop of a worker that waits briefly; `on_wait` is told how often it has waited, and may end the trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.is_waiting = 0, False
        self.on_wait: Callable[[int], None] = lambda waits: None
        self.while_waiting: Callback = lambda: None  # the others live on while this one waits

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        if self.waits > WAITS_MAX:
            raise RuntimeError(f"A worker should not wait more than {WAITS_MAX} times. Found that it does.")
        self.on_wait(self.waits)
        was_waiting, self.is_waiting = self.is_waiting, True
        try:
            self.while_waiting()
        finally:
            self.is_waiting = was_waiting
        return super().wait(min(timeout or 0.0, WAIT_MAX_S))


class PartialPipelineRedis(RedisClient):
    """A client of which one pipeline of merges or claims can be torn in two, with something happening between."""

    _between_claims: Callback | None = None
    _between_merges: Callback | None = None

    def interrupt_next(self, *, merging: bool, callback: Callback) -> None:
        """Tear the next pipeline of that sort that has two commands or more."""
        if merging:
            self._between_merges = callback
        else:
            self._between_claims = callback

    @property
    def is_uninterrupted(self) -> bool:
        """Whether nothing is left to be torn."""
        return self._between_claims is None and self._between_merges is None

    def run_script(self, source: str, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        callback = self._between_merges
        if callback is None or source != MERGE or len(calls) < 2:
            return super().run_script(source, calls)
        self._between_merges, half = None, len(calls) // 2
        replies = super().run_script(source, calls[:half])
        callback()
        return replies + super().run_script(source, calls[half:])

    def set_if_absent(
        self, items: Sequence[tuple[str, bytes]], ttl_s: int, first: Sequence[Sequence[Any]] = ()
    ) -> list[bytes | None]:
        callback = self._between_claims
        if callback is None or len(items) < 2:
            return super().set_if_absent(items, ttl_s, first)
        self._between_claims, half = None, len(items) // 2
        replies = super().set_if_absent(items[:half], ttl_s, first)
        callback()
        return replies + super().set_if_absent(items[half:], ttl_s)


def build_settings(
    environment: RunEnvironment, instance: str, *, on_lost_log: str, client_settings: Mapping[str, int]
) -> Settings:
    """What a worker of this stage is told; `session.timeout.ms` in `client` is its time to be missed."""
    passed = {
        name: value
        for name, value in {**FAST_CLIENT_SETTINGS, **client_settings}.items()
        if name != "session.timeout.ms"
    }
    kafka = environment.kafka_settings.model_copy(
        update={"client": passed, "session_timeout_ms": client_settings.get("session.timeout.ms", 45_000)}
    )
    worker = {"instance": instance, "batch_max": BATCH_MAX, "wait_ms": WAIT_MS, "on_lost_log": on_lost_log}
    return Settings(
        kafka=kafka,
        redis=RedisSettings(url=environment.redis.url, prefix=environment.redis_prefix),
        topics=environment.topics,
        worker=WorkerSettings.model_validate({**worker, "dead_letter_share_max": 1.0}),
        lists=ListSettings(),
        rules=RULES,  # type: ignore[arg-type]  # validated into rules
    )


def build_resources(settings: Settings) -> ScoringResources:
    encoder = Encoder(FEATURES)
    return ScoringResources(settings=settings, encoder=encoder, catalogue=Catalogue(encoder, 1))


class FaultyWorker:
    """One life of one worker of the orders lane."""

    def __init__(self, *, environment: RunEnvironment, settings: Settings) -> None:
        self.environment, self.settings = environment, settings
        self.instance = settings.worker.instance
        self.is_alive, self.is_busy, self._is_rebalancing = True, False, False
        self.hooks, self.stop = StepHooks(), BoundedStop()
        self.redis = PartialPipelineRedis(url=settings.redis.url, timeout_s=settings.redis.timeout_s)
        scorer = LaneScorer(HANDLERS[LANE.name], build_resources(settings))
        stores = open_stores(settings, scorer.answer_kinds, self.redis)
        worker = assemble(settings, LANE, self.stop, scorer=scorer, stores=stores, step_marker=self.hooks, erases=False)
        self.positions, self.pipeline = worker.offsets, worker.open_pipeline()
        self.consumer, self.publisher = self.pipeline.consumer, self.pipeline.producer
        self.consumer.timeout_s = QUERY_TIMEOUT_S
        self.consumer.subscribe([settings.topics.topic_name(kind) for kind in LANE.folded_kinds], self)

    def step(self) -> int:
        """One batch at most; returns the number of records read."""
        self.is_busy = True
        try:
            return self.pipeline.step(lambda: time.time_ns() // 1_000_000)
        finally:
            self.is_busy = False

    def heartbeat(self) -> None:
        """What a process does by itself while another one waits: take part in rebalances, also if it waits, too."""
        if not self._is_rebalancing and (not self.is_busy or self.stop.is_waiting):
            self.consumer.heartbeat()

    def run_periodic(self) -> None:
        """What the process does once a second."""
        try:
            self.pipeline.advance()
        except StaleState as error:
            self.pipeline.recover(error)
        except Unavailable:
            pass

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._is_rebalancing = True  # inside of a poll, which cannot be entered twice
        try:
            return self.pipeline.on_assigned(partitions)
        finally:
            self._is_rebalancing = False

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        if self.is_alive:
            self._is_rebalancing = True
            try:
                self.pipeline.on_revoked(partitions)
            finally:
                self._is_rebalancing = False

    def die(self) -> None:
        """To be raised out of any step."""
        raise WorkerDeath(f"worker {self.instance}")

    def close(self, *, in_order: bool) -> None:
        """End this life, in order (its buckets are brought up) or by abandoning it."""
        self.is_alive = in_order
        self.pipeline.close()
        self.is_alive = False
        self.redis.close()
