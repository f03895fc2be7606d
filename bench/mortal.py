"""A score worker in this process, stepped by hand, to which things happen when a chosen step of the protocol begins.

It has all of a worker's own parts and dies by being abandoned. What differs from SIGKILL, which `bench ledger` covers:
its connections are closed in order, its stack is unwound, and what librdkafka holds is thrown away in order.
Nothing is committed, merged or published on the way, and its place in the group is kept for the next life, as then.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bench.stage import ROOT, RULES, Stage
from contract.errors import StaleState, Unavailable
from contract.features.declaration import read_features
from contract.features.encoder import Encoder
from contract.settings import ListSettings, RedisSettings, Settings, WorkerSettings
from transport.records import TopicPartition
from worker.kafka.admin import KafkaAdmin
from worker.kafka.consumer import GroupConsumer
from worker.kafka.producer import TransactionalProducer
from worker.ops.retry import Retry
from worker.ops.steps import StepMarker
from worker.pipeline.batch_pipeline import BatchPipeline
from worker.pipeline.recovery import Recovery
from worker.records.lanes import LANES
from worker.redis.client import RedisClient
from worker.scoring.orders import OrderScorer
from worker.state.answer_cache import AnswerCache
from worker.state.decision_store import DecisionStore
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import MERGE, RedisProfileStore, open_profile_store
from worker.state.resources import KafkaClients, Stores

LANE: Final = LANES["orders"]
FEATURES: Final = read_features(ROOT / "features.toml")
BATCH_MAX: Final = 12
WAIT_MS: Final = 15
SHORT_WAIT_S: Final = 0.02
WAITS_MAX: Final = 3_000  # in one life: a minute of it
ASKED_S: Final = 1.0  # while a worker asks during a rebalance, the broker waits for the others, which wait for it here
# A rebalance, a topic that has changed and a partition that was added are noticed as soon as possible.
QUICK: Final[Mapping[str, int]] = {
    "heartbeat.interval.ms": 100,
    "topic.metadata.refresh.interval.ms": 250,
    "retry.backoff.ms": 50,
    "reconnect.backoff.max.ms": 200,
}
Happening = Callable[[], None]


class Died(Exception):
    """The end of a worker's life, at the moment that was chosen for it."""


class Moments(StepMarker):
    """Marks steps, and lets something happen once when a chosen one begins."""

    def __init__(self) -> None:
        super().__init__()
        self._due: dict[str, tuple[int, Happening]] = {}

    def at(self, step: str, happening: Happening, occurrence: int = 1) -> None:
        """Let it happen when `step` begins for that time from now on."""
        self._due[step] = (occurrence, happening)

    @property
    def waiting(self) -> bool:
        """Whether something has not happened yet."""
        return bool(self._due)

    def __call__(self, step: str) -> None:
        super().__call__(step)
        if step in self._due:
            left, happening = self._due.pop(step)
            if left > 1:
                self._due[step] = (left - 1, happening)
            else:
                happening()


class Impatience(threading.Event):
    """The stop of a worker that waits briefly; `on_wait` is told how often it has waited, and may end the trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.waiting = 0, False
        self.on_wait: Callable[[int], None] = lambda waits: None
        self.meanwhile: Happening = lambda: None  # the others live on while this one waits

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        if self.waits > WAITS_MAX:
            raise RuntimeError(f"A worker should not wait more than {WAITS_MAX} times. Found that it does.")
        self.on_wait(self.waits)
        was, self.waiting = self.waiting, True
        try:
            self.meanwhile()
        finally:
            self.waiting = was
        return super().wait(min(timeout or 0.0, SHORT_WAIT_S))


class TornRedis(RedisClient):
    """A client of which one pipeline of merges or claims can be torn in two, with something happening between."""

    torn: Happening | None = None
    _merging: Happening | None = None

    def tear(self, *, merging: bool, happening: Happening) -> None:
        """Tear the next pipeline of that sort that has two commands or more."""
        if merging:
            self._merging = happening
        else:
            self.torn = happening

    @property
    def whole(self) -> bool:
        """Whether nothing is left to be torn."""
        return self.torn is None and self._merging is None

    def run_script(self, source: str, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        happening = self._merging
        if happening is None or source != MERGE or len(calls) < 2:
            return super().run_script(source, calls)
        self._merging, half = None, len(calls) // 2
        replies = super().run_script(source, calls[:half])
        happening()
        return replies + super().run_script(source, calls[half:])

    def set_if_absent(
        self, items: Sequence[tuple[str, bytes]], ttl_s: int, first: Sequence[Sequence[Any]] = ()
    ) -> list[bytes | None]:
        happening = self.torn
        if happening is None or len(items) < 2:
            return super().set_if_absent(items, ttl_s, first)
        self.torn, half = None, len(items) // 2
        replies = super().set_if_absent(items[:half], ttl_s, first)
        happening()
        return replies + super().set_if_absent(items[half:], ttl_s)


def settings_of(stage: Stage, instance: str, *, on_lost_log: str, client: Mapping[str, int]) -> Settings:
    """What a worker of this stage is told; `session.timeout.ms` in `client` is its time to be missed."""
    passed = {name: value for name, value in {**QUICK, **client}.items() if name != "session.timeout.ms"}
    kafka = stage.settings.model_copy(
        update={"client": passed, "session_timeout_ms": client.get("session.timeout.ms", 45_000)}
    )
    worker = {"instance": instance, "batch_max": BATCH_MAX, "wait_ms": WAIT_MS, "on_lost_log": on_lost_log}
    return Settings(
        kafka=kafka,
        redis=RedisSettings(url=stage.redis.url, prefix=stage.redis_prefix),
        topics=stage.topics,
        worker=WorkerSettings.model_validate({**worker, "dead_letter_share_max": 1.0}),
        lists=ListSettings(),
        rules=RULES,  # type: ignore[arg-type]  # validated into rules
    )


class Mortal:
    """One life of one worker of the orders lane."""

    def __init__(self, *, stage: Stage, settings: Settings) -> None:
        self.stage, self.settings = stage, settings
        self.instance = settings.worker.instance
        self.alive, self.busy, self._rebalancing = True, False, False
        self.moments, self.stop = Moments(), Impatience()
        self.redis = TornRedis(url=settings.redis.url, timeout_s=settings.redis.timeout_s)
        self.positions = OffsetTracker()
        self._patience = Retry(self.stop)
        self.intake, self.publisher, self.protocol = self._open()
        self.intake.subscribe([settings.topics.topic_name(kind) for kind in LANE.folded_kinds], self)

    def step(self) -> int:
        """One batch at most; returns the number of records read."""
        self.busy = True
        try:
            return self.protocol.step(lambda: time.time_ns() // 1_000_000)
        finally:
            self.busy = False

    def stay(self) -> None:
        """What a process does by itself while another one waits: take part in rebalances, also if it waits, too."""
        if not self._rebalancing and (not self.busy or self.stop.waiting):
            self.intake.heartbeat()

    def keep_house(self) -> None:
        """What the process does once a second."""
        try:
            self.protocol.advance()
        except StaleState as error:
            self.protocol.recover(error)
        except Unavailable:
            pass

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._rebalancing = True  # inside of a poll, which cannot be entered twice
        try:
            return self.protocol.on_assigned(partitions)
        finally:
            self._rebalancing = False

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        if self.alive:
            self._rebalancing = True
            try:
                self.protocol.on_revoked(partitions)
            finally:
                self._rebalancing = False

    def die(self) -> None:
        """To be raised out of any step."""
        raise Died(f"worker {self.instance}")

    def close(self, *, in_order: bool) -> None:
        """End this life, in order (its buckets are brought up) or by abandoning it."""
        self.alive = in_order
        self.protocol.close()
        self.alive = False
        self.redis.close()

    def _open(self) -> tuple[GroupConsumer, TransactionalProducer, BatchPipeline]:
        settings, kafka = self.settings, self.settings.kafka
        group = self.stage.group(LANE.name)
        intake = GroupConsumer(kafka=kafka, group=group, instance=self.instance, skips_gaps=False)
        intake.timeout_s = ASKED_S
        publisher = TransactionalProducer(
            kafka=kafka, transactional_id=f"{group}-{self.instance}", retry=self._patience, step_marker=self.moments
        )
        profiles = open_profile_store(self.redis, settings.redis.prefix)
        broker = KafkaAdmin(kafka=kafka)
        protocol = BatchPipeline(
            settings=settings,
            lane=LANE,
            scorer=OrderScorer(settings=settings, encoder=Encoder(FEATURES)),
            kafka_clients=KafkaClients(consumer=intake, producer=publisher),
            stores=self._state(profiles),
            recovery=Recovery(settings=settings, lane=LANE, admin=broker, profiles=profiles, offsets=self.positions),
            retry=self._patience,
            step_marker=self.moments,
        )
        return intake, publisher, protocol

    def _state(self, profiles: RedisProfileStore) -> Stores:
        redis, lists = self.settings.redis, self.settings.lists
        claims = DecisionStore(client=self.redis, prefix=redis.prefix, ttl_s=lists.decision_ttl_s)
        return Stores(
            profiles=profiles,
            decision_store=claims,
            answer_cache=AnswerCache(client=self.redis, prefix=redis.prefix, lists=lists),
        )
