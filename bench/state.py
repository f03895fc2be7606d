"""`python -m bench state`: the fault matrix of exact profiles.

On Apache Kafka and Redis, two workers on four partitions of each topic meet one fault after the other: death at each
step of the protocol, and whatever else can go wrong with Redis, the log and the group. Each run has topics and a Redis
prefix of its own. In the end every order should be answered, readers of committed records should see no two answers
that differ, and every slice should be what a plain oracle makes of the log.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.faults import DEATHS, FAULTS, Fault, die_everywhere
from bench.redis_faults import REDIS_FAULTS
from bench.scene import Scene, Terms, Verdict
from bench.stage import Stage
from demo.servers.apache_kafka import ApacheKafka
from demo.servers.redis_server import RedisServer

LEAST: Final = 5  # runs of each fault that is no death
SHOWN: Final = 5
ALL_DEATHS: Final = "death at each step"
EVERY: Final = {**FAULTS, **REDIS_FAULTS}


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


class Outcome(msgspec.Struct, kw_only=True):
    """What all runs have shown. `failed`: runs that came to no end, or in which a worker did what it should not."""

    runs: int = 0
    slices: int = 0
    mismatches: int = 0
    lost: int = 0
    conflicting: int = 0
    failed: int = 0
    faults: dict[str, int] = msgspec.field(default_factory=dict)
    seconds: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not (self.mismatches or self.lost or self.conflicting or self.failed)

    def add(self, run: Run, verdict: Verdict) -> None:
        self.runs += 1
        self.slices += verdict.slices
        self.mismatches += len(verdict.mismatches)
        self.lost += len(verdict.lost)
        self.conflicting += len(verdict.conflicting)
        self.faults = dict(Counter(self.faults) + Counter(run.counted))


def matrix(seeds: int) -> Iterator[Run]:
    """Every run: the deaths from each seed, every other fault from a tenth of them, at least five."""
    yield from (Run(ALL_DEATHS, seed) for seed in range(seeds))
    yield from (Run(name, seed) for name in EVERY for seed in range(max(LEAST, seeds // 10)))


class Matrix:
    """Plays runs on one broker and one Redis."""

    def __init__(self, *, kafka: ApacheKafka, redis: RedisServer, folder: Path, told: Callable[[str], None]) -> None:
        self.kafka, self.redis, self.folder, self.told = kafka, redis, folder, told

    def play(self, runs: Sequence[Run], prefix: str = "") -> Outcome:
        """All of them, one after the other."""
        began, outcome = time.monotonic(), Outcome()
        for number, run in enumerate(runs):
            self._play(run, f"{prefix}r{number}.", outcome)
            self.told(f"{number + 1} of {len(runs)}: {run.name}, seed {run.seed}")
        outcome.seconds = round(time.monotonic() - began, 1)
        return outcome

    def _play(self, run: Run, prefix: str, outcome: Outcome) -> None:
        self.redis.flush()
        stage = Stage(kafka=self.kafka, redis=self.redis, folder=self.folder, prefix=prefix)
        scene = Scene(stage=stage, seed=f"{run.name} {run.seed}", terms=run.fault.terms)
        try:
            scene.open()
            run.fault.happen(scene)
            scene.drain()
            verdict = scene.verdict()
        except Exception as error:  # whatever a worker ended with concerns this run alone, and is counted
            outcome.failed += 1
            self.told(f"{run.name}, seed {run.seed}: {type(error).__name__}: {error}")
            return
        finally:
            scene.close()
        for sentence in verdict.broken[:SHOWN]:
            self.told(f"{run.name}, seed {run.seed}: {sentence}")
        outcome.add(run, verdict)


def main(words: Sequence[str]) -> int:
    """Play the matrix on servers of its own; 0 if every promise was kept."""
    arguments = parse(words)
    logging.getLogger("worker").setLevel(logging.WARNING if arguments.verbose else logging.CRITICAL)
    runs = [Run(arguments.only, arguments.seed)] if arguments.only else list(matrix(arguments.seeds))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-state-")))
        kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        outcome = Matrix(kafka=kafka, redis=redis, folder=folder, told=tell).play(runs)
    if arguments.json:
        print(msgspec.json.encode(outcome).decode())
    else:
        for name, value in msgspec.structs.asdict(outcome).items():
            print(f"{name:12} {value}")
    return 0 if outcome.kept else 1


def tell(said: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {said}", file=sys.stderr, flush=True)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench state", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, default=50, help="runs of deaths; a tenth, at least 5, of each other fault"
    )
    parser.add_argument("--only", choices=[ALL_DEATHS, *EVERY], help="one run of this fault alone")
    parser.add_argument("--seed", type=int, default=0, help="the seed of that one run")
    parser.add_argument("--verbose", action="store_true", help="what the workers warn of, on stderr")
    parser.add_argument("--json", action="store_true", help="the outcome as one line of JSON, the last one")
    return parser.parse_args(words)
