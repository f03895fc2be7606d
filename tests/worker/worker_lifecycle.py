"""Runs of a worker in this process: the real pipeline over real servers, which can be killed in any step."""

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, Self

from contract.errors import StaleState, Unavailable
from contract.settings.reading import Settings
from contract.settings.servers import TopicSettings
from testkit.faults.step_hooks import StepHooks
from tests.worker.signing_scorer import SigningScorer
from transport.records import TopicPartition
from worker.assembly import assemble
from worker.pipeline.membership import BatchRevoked
from worker.records.lanes import LANES
from worker.redis.cluster import connect
from worker.scoring.scorer import Scorer
from worker.state.resources import open_stores

TIMEOUT_S: Final = 90.0


class WorkerKilled(BaseException):
    """The process ended here, and nothing after it ran. Not an Exception, so that no handler catches it."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """An action at the beginning of a step's n-th occurrence, counted from the start of the run."""

    step: str
    occurrence: int
    action: Callable[[], object]


def raise_killed() -> None:
    raise WorkerKilled


class WorkerSource(Protocol):
    """What a run needs of its environment."""

    @property
    def topics(self) -> TopicSettings: ...

    def settings_for(self, instance: str) -> Settings: ...


class InProcessWorker:
    """One run of a worker of the orders lane, from joining its group to its end or death."""

    def __init__(
        self,
        environment: WorkerSource,
        name: str = "worker",
        *,
        instance: str = "0",
        step_events: Sequence[StepEvent] = (),
        scorer: Scorer | None = None,
        runs_periodic: bool = True,
        erases: bool = False,
        kinds: Sequence[str] = ("orders",),
    ) -> None:
        """`kinds`: the kinds of events to read. A group balances the number of partitions, not whose topic they are."""
        settings = environment.settings_for(instance)
        self.runs_periodic = runs_periodic
        self.stop = threading.Event()
        self.step_marker = StepHooks()
        for event in step_events:
            self.step_marker.add(event.step, event.action, event.occurrence)
        self.scorer = scorer or SigningScorer(name)
        self.client = connect(settings.redis)
        stores = open_stores(settings, self.scorer.answer_kinds, self.client)
        worker = assemble(
            settings,
            LANES["orders"],
            self.stop,
            scorer=self.scorer,
            stores=stores,
            step_marker=self.step_marker,
            wait_max_s=0.1,
            erases=erases,
        )
        worker.load_erasures()
        self.answer_cache = stores.answer_cache
        self.profiles, self.offsets, self.erasure_service = stores.profiles, worker.offsets, worker.erasure_service
        self.pipeline = worker.open_pipeline()
        self.consumer = self.pipeline.consumer
        topics = [environment.topics.topic_name(kind) for kind in (*kinds, *(["erasures"] if erases else []))]
        self.consumer.subscribe(topics, self.pipeline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.close()
        self.abandon()

    def step(self) -> None:
        """One batch, and the periodic tasks of a worker."""
        self.pipeline.step(lambda: time.time_ns() // 1_000_000)
        if self.erasure_service:
            self.erasure_service.apply_pending(self.pipeline)
        if self.runs_periodic:
            try:
                self.pipeline.advance()
                if self.erasure_service:
                    self.erasure_service.confirm(self.pipeline)
            except (StaleState, BatchRevoked) as error:
                self.pipeline.recover(error)
            except Unavailable:  # such as a hash slot that is being moved: a worker postpones its periodic tasks
                pass

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Step until `condition`; fails after `TIMEOUT_S`."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"It should be done by now. Found {self.offsets.folded}."
            self.step()

    def run_until_killed(self) -> None:
        """Step until an event kills this run, then vanish as a killed process does."""
        with suppress(WorkerKilled):
            self.run_until(lambda: False)
        self.abandon()

    def abandon(self) -> None:
        """Leave only what other processes know: the group is not left, a transaction is not aborted."""
        self.client.close()
        if self.erasure_service:
            self.erasure_service.close()
        del self.erasure_service, self.pipeline, self.consumer
        gc.collect()

    def has_processed(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether these partitions are answered and folded up to their ends."""
        committed, folded = self.offsets.committed, self.offsets.folded
        return all(
            committed.get(partition, 0) >= end and folded.get(partition, 0) >= end for partition, end in ends.items()
        )

    def process_all(self, ends: Mapping[TopicPartition, int]) -> None:
        """Work until these partitions are processed up to their ends, and every bucket is advanced."""
        self.run_until(lambda: self.has_processed(ends))
        self.pipeline.advance()


class WorkerThread:
    """A run in its own thread for the length of a `with` block; an error that ended it is raised at the block's end."""

    def __init__(self, worker: InProcessWorker) -> None:
        self.worker = worker
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def __enter__(self) -> InProcessWorker:
        self._thread.start()
        return self.worker

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if error is not None:
            self.worker.stop.set()  # it may wait for what the test would have done next
        self._thread.join(TIMEOUT_S)
        if self._error is not None:
            raise self._error  # also where the block failed: it may have waited for what this worker did not do
        if error is None:
            assert not self._thread.is_alive(), "A worker should end when it is asked to."

    def _run(self) -> None:
        try:
            with self.worker:
                while not self._stop.is_set():
                    self.worker.step()
        except BaseException as error:
            self._error = error


def wait_until(condition: Callable[[], object], describe: Callable[[], object] = lambda: "that it is not") -> None:
    """Return once `condition` is true; fails after `TIMEOUT_S` with the state that `describe` returns."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"The condition should be true by now. Found {describe()}."
        time.sleep(0.01)
