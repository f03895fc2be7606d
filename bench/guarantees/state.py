"""`python -m bench state`: the fault matrix of exact profiles.

On Apache Kafka and Redis, two workers on four partitions of each topic meet one fault after the other: death at each
step of the pipeline, and faults of Redis, Kafka and the consumer group. Each run has its own topics and Redis prefix.
In the end every order should be answered, read-committed consumers should see no two answers that differ, and every
slice should equal that of a plain oracle that folds the log. Results are kept, so an interrupted matrix continues;
results of other code are measured again.
"""

import argparse
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.results.cache import ResultCache
from bench.results.digest import digest_inputs
from bench.results.report import print_progress, print_result
from devservers.apache_kafka import ApacheKafka
from testkit.faults.runner import ALL_FAULTS, KILL_AT_EACH_STEP, MatrixRun, RunResult, ScenarioPool, list_runs

CODE_PATHS: Final = (
    "bench/guarantees/state.py",
    "contract",
    "devservers",
    "testkit",
    "transport",
    "worker",
    "features.toml",
    "shop.toml",
)
LIBRARIES: Final = ("confluent-kafka", "redis", "numba")
PROCESSES_PER_CORE: Final = 2  # a run waits most of its time


class MatrixOutcome(msgspec.Struct, kw_only=True):
    """Counts over all runs. `failed`: runs that did not end, or in which a worker did what it should not."""

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


def main(argv: Sequence[str]) -> int:
    """Play the missing runs on servers of this process. 0: every promise was kept."""
    arguments = parse(argv)
    runs = [MatrixRun(arguments.only, arguments.seed)] if arguments.only else list(list_runs(arguments.seeds))
    cache = ResultCache(
        path=None if arguments.only else arguments.kept,
        digest=digest_inputs(CODE_PATHS, libraries=LIBRARIES),
        result_type=RunResult,
    )
    play_missing(runs, cache, arguments)
    outcome = summarize(runs, cache)
    print_result(outcome, as_json=arguments.json)
    return 0 if outcome.passed else 1


def play_missing(runs: Sequence[MatrixRun], cache: ResultCache[RunResult], arguments: argparse.Namespace) -> None:
    missing_keys = set(cache.find_missing(map(make_key, runs)))
    missing = [run for run in runs if make_key(run) in missing_keys]
    if not missing:
        return
    print_progress(f"{len(missing)} of {len(runs)} runs to play in {arguments.players} processes")
    level = logging.WARNING if arguments.verbose else logging.CRITICAL
    with ApacheKafka() as kafka:
        pool = ScenarioPool(kafka=kafka, count=min(arguments.players, len(missing)), level=level)
        for number, (run, result) in enumerate(pool.run_all(missing), 1):
            cache.record(make_key(run), result)
            for sentence in describe(run, result):
                print_progress(f"{number} of {len(missing)}: {sentence}")


def summarize(runs: Iterable[MatrixRun], cache: ResultCache[RunResult]) -> MatrixOutcome:
    outcome = MatrixOutcome(seconds=cache.seconds)
    for run in runs:
        outcome.add(run, cache[make_key(run)])
    return outcome


def make_key(run: MatrixRun) -> str:
    return f"{run.name}/{run.seed}"


def describe(run: MatrixRun, result: RunResult) -> Iterator[str]:
    """A finished run and its broken promises, as progress lines."""
    yield f"{run.name}, seed {run.seed}"
    yield from (f"{run.name}, seed {run.seed}: {sentence}" for sentence in result.sentences)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench state", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, default=50, help="runs of deaths; each other fault has a tenth of these, at least 5"
    )
    parser.add_argument("--only", choices=[KILL_AT_EACH_STEP, *ALL_FAULTS], help="a single run of this fault")
    parser.add_argument("--seed", type=int, default=0, help="the seed of that single run")
    processes = PROCESSES_PER_CORE * (os.cpu_count() or 1)
    parser.add_argument("--players", type=int, default=processes, help="number of processes that play runs")
    cache_path = Path(tempfile.gettempdir()) / "shopstream-bench-state.json"
    parser.add_argument("--kept", type=Path, default=cache_path, help="the file that keeps results")
    parser.add_argument("--verbose", action="store_true", help="show the workers' warnings on stderr")
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
