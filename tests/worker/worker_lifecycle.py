"""Lives of a worker in this process: the real protocol over real servers, that can be made to die in any step."""

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from contract.errors import StaleState, Unavailable
from tests.worker.environment import WorkerEnvironment
from tests.worker.signing_scorer import SigningScorer
from transport.records import TopicPartition
from worker.erasure.service import ErasureService
from worker.kafka.admin import KafkaAdmin as Admin
from worker.kafka.consumer import GroupConsumer
from worker.kafka.producer import TransactionalProducer
from worker.ops.retry import Retry
from worker.ops.steps import StepMarker
from worker.pipeline.batch_pipeline import BatchPipeline, BatchRevoked
from worker.pipeline.recovery import Recovery
from worker.records.lanes import LANES
from worker.redis.cluster import connect
from worker.scoring.results import Scorer
from worker.state.answer_cache import AnswerCache
from worker.state.decision_store import DecisionStore
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import open_profile_store
from worker.state.resources import KafkaClients, Stores

TIMEOUT_S: Final = 90.0


class WorkerKilled(BaseException):
    """The process ended here; nothing that comes after it ran. No error, so that nobody catches it."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """What happens as a step begins for the so-manyth time in a life."""

    step: str
    occurrence: int
    action: Callable[[], object]


def raise_killed() -> None:
    raise WorkerKilled


class ScriptedStepMarker(StepMarker):
    """A step mark to which something happens."""

    def __init__(self, events: Sequence[StepEvent]) -> None:
        super().__init__()
        self.events = list(events)
        self.entry_counts = dict[str, int]()

    def __call__(self, step: str) -> None:
        super().__call__(step)
        self.entry_counts[step] = self.entry_counts.get(step, 0) + 1
        for event in [
            candidate
            for candidate in self.events
            if (candidate.step, candidate.occurrence) == (step, self.entry_counts[step])
        ]:
            self.events.remove(event)
            event.action()


class InProcessWorker:
    """One life of a worker of the orders lane, from joining its group to its end or death."""

    def __init__(
        self,
        environment: WorkerEnvironment,
        name: str = "life",
        *,
        instance: str = "0",
        step_events: Sequence[StepEvent] = (),
        scorer: Scorer | None = None,
        runs_periodic: bool = True,
        erases: bool = False,
    ) -> None:
        settings, lane = environment.settings, LANES["orders"]
        self.runs_periodic = runs_periodic
        self.stop = threading.Event()
        self.mark = ScriptedStepMarker(step_events)
        self.scorer = scorer or SigningScorer(name)
        self.patience = Retry(self.stop, wait_max_s=0.1)
        self.client = connect(settings.redis)
        self.positions = OffsetTracker()
        group = f"{settings.kafka.group_prefix}-orders"
        transactional_id = f"{group}-{instance}" if settings.kafka.transactions else None
        self.profiles = open_profile_store(self.client, settings.redis.prefix)
        self.intake = GroupConsumer(kafka=settings.kafka, group=group, instance=instance)
        state = Stores(
            profiles=self.profiles,
            decision_store=DecisionStore(client=self.client, prefix=settings.redis.prefix, ttl_s=3_600),
            answer_cache=AnswerCache(client=self.client, prefix=settings.redis.prefix, lists=settings.lists),
        )
        self.erasing = None
        if erases:
            self.erasing = ErasureService(
                settings=settings, lane=lane, stores=state, offsets=self.positions, retry=self.patience
            )
            self.erasing.open()
            while not self.erasing.load():
                pass
        self.protocol = BatchPipeline(
            settings=settings,
            lane=lane,
            scorer=self.scorer,
            kafka_clients=KafkaClients(
                consumer=self.intake,
                producer=TransactionalProducer(
                    kafka=settings.kafka, transactional_id=transactional_id, retry=self.patience, step_marker=self.mark
                ),
            ),
            stores=state,
            recovery=Recovery(
                settings=settings,
                lane=lane,
                admin=Admin(kafka=settings.kafka),
                profiles=self.profiles,
                offsets=self.positions,
                erasure_executor=self.erasing.executor if self.erasing else None,
            ),
            retry=self.patience,
            step_marker=self.mark,
        )
        # Orders alone: a group that shares several topics balances their number, not who reads which.
        topics = [settings.topics.orders, *([settings.topics.erasures] if erases else [])]
        self.intake.subscribe(topics, self.protocol)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.protocol.close()
        self.abandon()

    def step(self) -> None:
        """One batch, and what a worker does once a second."""
        self.protocol.step(lambda: time.time_ns() // 1_000_000)
        if self.erasing:
            self.erasing.apply_pending(self.protocol)
        if self.runs_periodic:
            try:
                self.protocol.advance()
                if self.erasing:
                    self.erasing.confirm(self.protocol)
            except (StaleState, BatchRevoked) as error:
                self.protocol.recover(error)
            except Unavailable:  # a slot that is being moved, say: a worker leaves its house for later
                pass

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Step after step until `done`; fails after a minute."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"It should be done by now. Found {self.positions.folded}."
            self.step()

    def run_until_killed(self) -> None:
        """Step after step until a fate ends this life, then vanish as a killed process does."""
        with suppress(WorkerKilled):
            self.run_until(lambda: False)
        self.abandon()

    def abandon(self) -> None:
        """Leave nothing but what other processes know: no goodbye to the group, no aborted transaction."""
        self.client.close()
        if self.erasing:
            self.erasing.close()
        del self.erasing, self.protocol, self.intake, self.patience
        gc.collect()

    def has_processed(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether these partitions are answered and folded up to their ends."""
        positions = self.positions
        return all(
            positions.committed.get(partition, 0) >= end and positions.folded.get(partition, 0) >= end
            for partition, end in ends.items()
        )

    def process_all(self, ends: Mapping[TopicPartition, int]) -> None:
        """Work until all is read, and every bucket is brought up."""
        self.run_until(lambda: self.has_processed(ends))
        self.protocol.advance()


class WorkerThread:
    """A life in a thread of its own, from entering the block to leaving it; what ended it otherwise is raised then."""

    def __init__(self, worker: InProcessWorker) -> None:
        self.worker = worker
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="life", daemon=True)

    def __enter__(self) -> InProcessWorker:
        self._thread.start()
        return self.worker

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if error is not None:
            self.worker.stop.set()  # it may wait for what the test would have done next
        self._thread.join(TIMEOUT_S)
        if error is None:
            assert not self._thread.is_alive(), "A life should end when it is asked to."
            if self._error is not None:
                raise self._error

    def _run(self) -> None:
        try:
            with self.worker:
                self.worker.run_until(self._stop.is_set)
        except BaseException as error:
            self._error = error


def wait_until(condition: Callable[[], object], describe: Callable[[], object] = lambda: "that it did not") -> None:
    """Return once it is so; fails after a minute, and says what is `found` then."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"It should have come to pass by now. Found {describe()}."
        time.sleep(0.01)
