"""`python -m bench state`: the fault matrix of exact profiles.

On Apache Kafka and Redis, two workers on four partitions of each topic meet one fault after the other: death at each
step of the protocol, and whatever else can go wrong with Redis, the log and the group. Each run has topics and a Redis
prefix of its own. In the end every order should be answered, readers of committed records should see no two answers
that differ, and every slice should be what a plain oracle makes of the log. What a run has shown is kept, so a matrix
that was ended goes on where it was; what other code has shown is played again.
"""

import argparse
import hashlib
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from bench.matrix import ALL_DEATHS, EVERY, Players, Result, Run, matrix
from devservers.apache_kafka import ApacheKafka

PLAYED_BY: Final = ("bench", "contract", "demo/servers", "tests/oracle", "worker")
PLAYERS_A_CORE: Final = 2  # a run waits most of its time


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

    def add(self, run: Run, result: Result) -> None:
        self.failed += result.failed
        if result.failed:
            return
        self.runs += 1
        self.slices += result.slices
        self.mismatches += result.mismatches
        self.lost += result.lost
        self.conflicting += result.conflicting
        self.faults = dict(Counter(self.faults) + Counter(run.counted))


class Kept(msgspec.Struct, kw_only=True):
    """What is played already, by which code, and how long that took."""

    code: str
    seconds: float = 0.0
    results: dict[str, Result] = {}


class Book:
    """Keeps each result as soon as it is there. `path` None: for this time alone."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.kept = path, Kept(code=code_digest())
        self._began = time.monotonic()
        if path and path.is_file():
            before = msgspec.json.decode(path.read_bytes(), type=Kept)
            if before.code == self.kept.code:
                self.kept = before
        self._before = self.kept.seconds

    def lacking(self, runs: Iterable[Run]) -> list[Run]:
        """The runs that have no result yet."""
        return [run for run in runs if key_of(run) not in self.kept.results]

    def note(self, run: Run, result: Result) -> None:
        self.kept.results[key_of(run)] = result
        self.kept.seconds = round(self._before + time.monotonic() - self._began, 1)
        if self.path:
            aside = self.path.with_suffix(".part")
            aside.write_bytes(msgspec.json.encode(self.kept))
            aside.replace(self.path)

    def outcome(self, runs: Iterable[Run]) -> Outcome:
        """What these runs have shown."""
        outcome = Outcome(seconds=self.kept.seconds)
        for run in runs:
            outcome.add(run, self.kept.results[key_of(run)])
        return outcome


def key_of(run: Run) -> str:
    return f"{run.name}/{run.seed}"


def code_digest(root: Path = Path(__file__).parents[1]) -> str:
    """Of the code and the clients that play."""
    found = hashlib.sha256("".join(version(name) for name in ("confluent-kafka", "redis", "numba")).encode())
    for path in sorted(one for part in PLAYED_BY for one in (root / part).rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def main(words: Sequence[str]) -> int:
    """Play what lacks on servers of its own; 0 if every promise was kept."""
    arguments = parse(words)
    runs = [Run(arguments.only, arguments.seed)] if arguments.only else list(matrix(arguments.seeds))
    book = Book(None if arguments.only else arguments.kept)
    if lacking := book.lacking(runs):
        tell(f"{len(lacking)} of {len(runs)} runs are to be played by {arguments.players} players")
        level = logging.WARNING if arguments.verbose else logging.CRITICAL
        with ApacheKafka() as kafka:
            players = Players(kafka=kafka, count=min(arguments.players, len(lacking)), level=level)
            for number, (run, result) in enumerate(players.play(lacking), 1):
                book.note(run, result)
                for sentence in told(run, result):
                    tell(f"{number} of {len(lacking)}: {sentence}")
    show(book.outcome(runs), as_json=arguments.json)
    return 0 if book.outcome(runs).kept else 1


def told(run: Run, result: Result) -> Iterator[str]:
    """A run for whoever watches."""
    yield f"{run.name}, seed {run.seed}"
    yield from (f"{run.name}, seed {run.seed}: {sentence}" for sentence in result.said)


def show(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(outcome).decode())
        return
    for name, value in msgspec.structs.asdict(outcome).items():
        print(f"{name:12} {value}")


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
    players = PLAYERS_A_CORE * (os.cpu_count() or 1)
    parser.add_argument("--players", type=int, default=players, help="how many runs are played at a time")
    kept = Path(tempfile.gettempdir()) / "shopstream-bench-state.json"
    parser.add_argument("--kept", type=Path, default=kept, help="where results are kept")
    parser.add_argument("--verbose", action="store_true", help="what the workers warn of, on stderr")
    parser.add_argument("--json", action="store_true", help="the outcome as one line of JSON, the last one")
    return parser.parse_args(words)
