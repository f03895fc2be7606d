"""Plays the fault matrix: which runs there are, one run on its stage, and many at once in processes of their own.

A run mostly waits: for sessions to end, for groups to settle, for a Redis in trouble. So several are played at a time,
on one broker; each player has a Redis of its own, since faults concern all of a Redis.
"""

import logging
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

from bench.faults import DEATHS, FAULTS, Fault, die_everywhere
from bench.redis_faults import REDIS_FAULTS
from bench.scene import Scene, Terms
from bench.stage import Kafka, Stage
from devservers.apache_kafka import create_topics
from devservers.redis_server import RedisServer

LEAST: Final = 5  # runs of each fault that is no death
SHOWN: Final = 5
SHOWN_LETTERS: Final = 300
ALL_DEATHS: Final = "death at each step"
EVERY: Final = {**FAULTS, **REDIS_FAULTS}
# About so many: clients that died with their workers are never taken apart, so a player keeps their threads.
RUNS_OF_A_PLAYER: Final = 12


class Run(NamedTuple):
    """One scene: which fault, and from which seed."""

    name: str
    seed: int

    @property
    def fault(self) -> Fault:
        return EVERY[self.name] if self.name != ALL_DEATHS else Fault(die_everywhere, Terms())

    @property
    def counted(self) -> Sequence[str]:
        """What the outcome counts this run as."""
        return [f"death at {step}" for step in DEATHS] if self.name == ALL_DEATHS else [self.name]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one run has shown. `failed`: it came to no end, or a worker did what it should not; `said`: in words."""

    slices: int = 0
    mismatches: int = 0
    lost: int = 0
    conflicting: int = 0
    failed: bool = False
    said: list[str] = []


def matrix(seeds: int) -> Iterator[Run]:
    """Every run: the deaths from each seed, every other fault from a tenth of them, at least five."""
    yield from (Run(name, seed) for name in EVERY for seed in range(max(LEAST, seeds // 10)))
    yield from (Run(ALL_DEATHS, seed) for seed in range(seeds))


def play(run: Run, stage: Stage) -> Result:
    """One run, in this process."""
    stage.redis.flush()
    scene = Scene(stage=stage, seed=f"{run.name} {run.seed}", terms=run.fault.terms)
    try:
        scene.open()
        run.fault.happen(scene)
        scene.drain()
        verdict = scene.verdict()
    except Exception as error:  # whatever a worker ended with concerns this run alone, and is counted
        return Result(failed=True, said=[f"{type(error).__name__}: {error}"])
    finally:
        scene.close()
    return Result(
        slices=verdict.slices,
        mismatches=len(verdict.mismatches),
        lost=len(verdict.lost),
        conflicting=len(verdict.conflicting),
        said=[sentence[:SHOWN_LETTERS] for sentence in verdict.broken[:SHOWN]],
    )


@dataclass(frozen=True, slots=True)
class KafkaElsewhere:
    """A broker that another process keeps running."""

    bootstrap: str

    def create_topics(self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        create_topics(self.bootstrap, partitions, config)


class Players:
    """Processes that play runs at the same time on one broker. `level`: from which on workers' warnings are shown."""

    def __init__(self, *, kafka: Kafka, count: int, level: int) -> None:
        self._count, self._told = count, (kafka.bootstrap, level)
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([__name__])

    def play(self, runs: Sequence[Run]) -> Iterator[tuple[Run, Result]]:
        """Each run with its result, as they end.

        Raises `BrokenProcessPool` if a player was killed.
        """
        # Not `max_tasks_per_child`: in Python 3.11 nobody follows a process that has done its share.
        for shift in shifts(runs, self._count * RUNS_OF_A_PLAYER):
            with ProcessPoolExecutor(
                self._count, mp_context=self._context, initializer=begin, initargs=self._told
            ) as pool:
                asked = {pool.submit(play_here, run, f"r{time.time_ns():x}."): run for run in shift}
                yield from ((asked[one], one.result()) for one in as_completed(asked))


def shifts(runs: Sequence[Run], size: int) -> Iterator[Sequence[Run]]:
    yield from (runs[first : first + size] for first in range(0, len(runs), size))


class Here(NamedTuple):
    """What a player has."""

    kafka: KafkaElsewhere
    redis: RedisServer
    folder: Path


HERE: list[Here] = []


def begin(bootstrap: str, level: int) -> None:
    """The first thing that a player does."""
    logging.getLogger("worker").setLevel(level)
    redis, folder = RedisServer().start(), tempfile.TemporaryDirectory(prefix="shopstream-state-")
    Finalize(None, redis.close, exitpriority=1)
    Finalize(None, folder.cleanup, exitpriority=1)
    HERE.append(Here(KafkaElsewhere(bootstrap), redis, Path(folder.name)))


def play_here(run: Run, prefix: str) -> Result:
    """One run, with what this player has."""
    (here,) = HERE
    return play(run, Stage(kafka=here.kafka, redis=here.redis, folder=here.folder, prefix=prefix))
