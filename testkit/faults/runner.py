"""Runs the fault matrix: lists its runs, plays one in this process, or many at once in child processes.

A run mostly waits: for session timeouts, rebalances, a faulty Redis. So several run at a time on one broker; each
process has its own Redis, since a fault affects the whole server.
"""

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from devservers.apache_kafka import create_topics
from devservers.process import end_with
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import KafkaServer, RunEnvironment
from testkit.faults.redis_faults import REDIS_FAULTS
from testkit.faults.scenario import FaultOptions, Scenario
from testkit.faults.worker_faults import FAULTS, KILL_STEPS, Fault, kill_at_every_step

log = logging.getLogger(__name__)

RUNS_MIN: Final = 5  # of each fault other than a death
SENTENCES_MAX: Final = 5
SENTENCE_LENGTH_MAX: Final = 300
KILL_AT_EACH_STEP: Final = "death at each step"
ALL_FAULTS: Final = {**FAULTS, **REDIS_FAULTS}
# Approximate limit: the Kafka clients of abandoned workers are never closed, so their threads accumulate.
RUNS_PER_PROCESS: Final = 12


class MatrixRun(NamedTuple):
    """One run: the fault's name and the seed."""

    name: str
    seed: int

    @property
    def fault(self) -> Fault:
        return ALL_FAULTS[self.name] if self.name != KILL_AT_EACH_STEP else Fault(kill_at_every_step, FaultOptions())

    @property
    def outcome_names(self) -> Sequence[str]:
        """The fault names under which the outcome counts this run."""
        return [f"death at {step}" for step in KILL_STEPS] if self.name == KILL_AT_EACH_STEP else [self.name]


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one run. `failed`: it did not end, or a worker did what it should not. `sentences`: broken promises."""

    slices: int = 0
    mismatches: int = 0
    lost: int = 0
    conflicting: int = 0
    failed: bool = False
    sentences: list[str] = []


def list_runs(seeds: int) -> Iterator[MatrixRun]:
    """All runs: the deaths from each seed, every other fault from a tenth of the seeds, at least five."""
    yield from (MatrixRun(name, seed) for name in ALL_FAULTS for seed in range(max(RUNS_MIN, seeds // 10)))
    yield from (MatrixRun(KILL_AT_EACH_STEP, seed) for seed in range(seeds))


def run_scenario(run: MatrixRun, environment: RunEnvironment) -> RunResult:
    """Play one run in this process."""
    environment.redis.flush()
    scenario = Scenario(environment=environment, seed=f"{run.name} {run.seed}", options=run.fault.options)
    try:
        scenario.open()
        run.fault.inject(scenario)
        scenario.drain()
        result = scenario.evaluate()
    except Exception as error:  # any error of a worker fails this run only, and is counted
        log.warning("Run %s/%d failed.", run.name, run.seed, exc_info=True)
        return RunResult(failed=True, sentences=[f"{type(error).__name__}: {error}"])
    finally:
        scenario.close()
    return RunResult(
        slices=result.slices,
        mismatches=len(result.mismatches),
        lost=len(result.lost),
        conflicting=len(result.conflicting),
        sentences=[sentence[:SENTENCE_LENGTH_MAX] for sentence in result.violations[:SENTENCES_MAX]],
    )


@dataclass(frozen=True, slots=True)
class RemoteKafka:
    """A broker that runs in another process."""

    bootstrap: str

    def create_topics(self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        create_topics(self.bootstrap, partitions, config)


class ScenarioPool:
    """Processes that play runs at the same time on one broker. `level`: minimum level of the workers' logs."""

    def __init__(self, *, kafka: KafkaServer, count: int, level: int) -> None:
        self._count, self._init_args = count, (kafka.bootstrap, level, os.getpid())
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([__name__])

    def run_all(self, runs: Sequence[MatrixRun]) -> Iterator[tuple[MatrixRun, RunResult]]:
        """Each run with its result, in order of completion; raises `BrokenProcessPool` if a process was killed."""
        # Not `max_tasks_per_child`: Python 3.11 does not replace a process that has reached it.
        for chunk in split_chunks(runs, self._count * RUNS_PER_PROCESS):
            with ProcessPoolExecutor(
                self._count, mp_context=self._context, initializer=start_resources, initargs=self._init_args
            ) as pool:
                runs_by_future = {pool.submit(run_in_process, run, f"r{time.time_ns():x}."): run for run in chunk}
                yield from ((runs_by_future[future], future.result()) for future in as_completed(runs_by_future))


def split_chunks(runs: Sequence[MatrixRun], size: int) -> Iterator[Sequence[MatrixRun]]:
    yield from (runs[first : first + size] for first in range(0, len(runs), size))


class ProcessResources(NamedTuple):
    """The servers and the folder of one process."""

    kafka: RemoteKafka
    redis: RedisServer
    folder: Path


PROCESS_RESOURCES: list[ProcessResources] = []


def start_resources(bootstrap: str, level: int, owner: int) -> None:
    """Initialise a process of the pool, which ends with its owner."""
    end_with(owner)
    for name in ("worker", __name__):
        logging.getLogger(name).setLevel(level)
    redis, folder = RedisServer().start(), tempfile.TemporaryDirectory(prefix="shopstream-state-")
    Finalize(None, redis.close, exitpriority=1)
    Finalize(None, folder.cleanup, exitpriority=1)
    PROCESS_RESOURCES.append(ProcessResources(RemoteKafka(bootstrap), redis, Path(folder.name)))


def run_in_process(run: MatrixRun, prefix: str) -> RunResult:
    """Play one run with this process's resources."""
    (resources,) = PROCESS_RESOURCES
    return run_scenario(
        run, RunEnvironment(kafka=resources.kafka, redis=resources.redis, folder=resources.folder, prefix=prefix)
    )
