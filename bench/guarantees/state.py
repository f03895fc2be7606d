"""`python -m bench state`: the fault matrix of exact profiles.

On Apache Kafka and Redis, two workers on four partitions of each topic meet one fault after the other: death at each
step of the protocol, and whatever else can go wrong with Redis, the log and the group. Each run has topics and a Redis
prefix of its own. In the end every order should be answered, readers of committed records should see no two answers
that differ, and every slice should be what a plain oracle makes of the log. What a run has shown is kept, so a matrix
that was ended goes on where it was; what other code has shown is played again.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.results.digest import digest_inputs
from devservers.apache_kafka import ApacheKafka
from testkit.faults.runner import ALL_FAULTS, KILL_AT_EACH_STEP, MatrixRun, RunResult, ScenarioPool, list_runs

CODE_PATHS: Final = (
    "bench/guarantees/state.py",
    "contract",
    "devservers",
    "testkit",
    "worker",
    "features.toml",
    "shop.toml",
)
PROCESSES_PER_CORE: Final = 2  # a run waits most of its time


class MatrixOutcome(msgspec.Struct, kw_only=True):
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
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not (self.mismatches or self.lost or self.conflicting or self.failed)

    def add(self, run: MatrixRun, result: RunResult) -> None:
        self.failed += result.failed
        if result.failed:
            return
        self.runs += 1
        self.slices += result.slices
        self.mismatches += result.mismatches
        self.lost += result.lost
        self.conflicting += result.conflicting
        self.faults = dict(Counter(self.faults) + Counter(run.outcome_names))


class MatrixCache(msgspec.Struct, kw_only=True):
    """What is played already, by which code, and how long that took."""

    code: str
    seconds: float = 0.0
    results: dict[str, RunResult] = {}


class ResultCache:
    """Keeps each result as soon as it is there. `path` None: for this time alone."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.cache = (
            path,
            MatrixCache(code=digest_inputs(CODE_PATHS, libraries=("confluent-kafka", "redis", "numba"))),
        )
        self._started_s = time.monotonic()
        if path and path.is_file():
            stored = msgspec.json.decode(path.read_bytes(), type=MatrixCache)
            if stored.code == self.cache.code:
                self.cache = stored
        self._seconds_before = self.cache.seconds

    def find_missing(self, runs: Iterable[MatrixRun]) -> list[MatrixRun]:
        """The runs that have no result yet."""
        return [run for run in runs if make_key(run) not in self.cache.results]

    def record(self, run: MatrixRun, result: RunResult) -> None:
        self.cache.results[make_key(run)] = result
        self.cache.seconds = round(self._seconds_before + time.monotonic() - self._started_s, 1)
        if self.path:
            part_path = self.path.with_suffix(".part")
            part_path.write_bytes(msgspec.json.encode(self.cache))
            part_path.replace(self.path)

    def summarize(self, runs: Iterable[MatrixRun]) -> MatrixOutcome:
        """What these runs have shown."""
        outcome = MatrixOutcome(seconds=self.cache.seconds)
        for run in runs:
            outcome.add(run, self.cache.results[make_key(run)])
        return outcome


def make_key(run: MatrixRun) -> str:
    return f"{run.name}/{run.seed}"


def main(argv: Sequence[str]) -> int:
    """Play what lacks on servers of its own; 0 if every promise was kept."""
    arguments = parse(argv)
    runs = [MatrixRun(arguments.only, arguments.seed)] if arguments.only else list(list_runs(arguments.seeds))
    results = ResultCache(None if arguments.only else arguments.kept)
    if missing := results.find_missing(runs):
        print_progress(f"{len(missing)} of {len(runs)} runs are to be played by {arguments.players} players")
        level = logging.WARNING if arguments.verbose else logging.CRITICAL
        with ApacheKafka() as kafka:
            pool = ScenarioPool(kafka=kafka, count=min(arguments.players, len(missing)), level=level)
            for number, (run, result) in enumerate(pool.run_all(missing), 1):
                results.record(run, result)
                for sentence in describe(run, result):
                    print_progress(f"{number} of {len(missing)}: {sentence}")
    print_outcome(results.summarize(runs), as_json=arguments.json)
    return 0 if results.summarize(runs).passed else 1


def describe(run: MatrixRun, result: RunResult) -> Iterator[str]:
    """A run for whoever watches."""
    yield f"{run.name}, seed {run.seed}"
    yield from (f"{run.name}, seed {run.seed}: {sentence}" for sentence in result.sentences)


def print_outcome(outcome: MatrixOutcome, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(outcome).decode())
        return
    for name, value in msgspec.structs.asdict(outcome).items():
        print(f"{name:12} {value}")


def print_progress(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench state", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, default=50, help="runs of deaths; a tenth, at least 5, of each other fault"
    )
    parser.add_argument("--only", choices=[KILL_AT_EACH_STEP, *ALL_FAULTS], help="one run of this fault alone")
    parser.add_argument("--seed", type=int, default=0, help="the seed of that one run")
    processes = PROCESSES_PER_CORE * (os.cpu_count() or 1)
    parser.add_argument("--players", type=int, default=processes, help="how many runs are played at a time")
    cache_path = Path(tempfile.gettempdir()) / "shopstream-bench-state.json"
    parser.add_argument("--kept", type=Path, default=cache_path, help="where results are kept")
    parser.add_argument("--verbose", action="store_true", help="what the workers warn of, on stderr")
    parser.add_argument("--json", action="store_true", help="the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
