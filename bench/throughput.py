"""`python -m bench throughput`: events a second of one worker process, and their CPU, beside a bare and a naive loop.

Each load lies on its topics of an Apache Kafka before a process starts; then it is worked off, by ours and by the bare
loop in turn. Figures are taken once a process is warm: events a second over spans of a second (minimum, median and
maximum of all rounds), microseconds of its CPU for each event (the median round), and those of Kafka and Redis, which
use the same cores. `bare` (bench/bare.py) moves as many bytes, runs the same graphs over as many rows and does nothing
else; `naive` (bench/naive.py) is the loop of tutorials, which flushes and commits each record. Ours runs as usual, with
transactions, but for batches of up to 200 ms: nobody waits for the first event of a backlog.
"""

import argparse
import functools
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench.drain import Drained, spread
from bench.ways import LANES, WAYS, Moved, Runs, Ways
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer

BARE_MAX, NAIVE_MIN, APART_MAX, WORSE_MAX = 1.6, 12.0, 0.05, 0.10
LEAST: Final = {"clicks": 15_000, "orders": 8_000}
LISTS_MIN: Final = 500


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One way through one load. CPU is microseconds an event, `moved` bytes an event."""

    events_per_second: tuple[float, float, float]
    cpu_us_per_event: float
    rss_mb: float
    kafka_us_per_event: float
    redis_us_per_event: float
    lists_per_second: float
    moved: dict[str, float]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `apart`: by how much bare and ours differ in bytes, the largest share of any door and load."""

    rows: dict[str, Row]
    ours_to_bare_cpu: float
    ours_to_naive: float
    ours_to_bare_cpu_by_load: dict[str, float]
    ours_to_naive_by_load: dict[str, float]
    apart: float

    @property
    def missed(self) -> list[str]:
        """The aims that were not reached, in words."""
        reached = {
            f"at most {BARE_MAX} times the CPU of the bare loop": self.ours_to_bare_cpu <= BARE_MAX,
            f"{NAIVE_MIN:g} times as fast as the naive loop": self.ours_to_naive >= NAIVE_MIN,
            f"bytes of ours and bare within {APART_MAX:.0%}": self.apart <= APART_MAX,
            f"{LISTS_MIN} lists a second": self.rows["ours_clicks"].lists_per_second >= LISTS_MIN,
        }
        for load, least in LEAST.items():
            reached[f"{least:,} {load} a second"] = self.rows[f"ours_{load}"].events_per_second[1] >= least
        return [aim for aim, is_reached in reached.items() if not is_reached]


def row_of(runs: Runs, way: str) -> Row:
    """One way through one load, all rounds together."""
    drained, events = runs.drained[way], runs.drained[way][0].events
    speeds = spread([speed for run in drained for speed in run.speeds])
    return Row(
        events_per_second=speeds,
        cpu_us_per_event=median(drained, "self"),
        rss_mb=round(max(run.rss_mb for run in drained), 1),
        kafka_us_per_event=median(drained, "kafka"),
        redis_us_per_event=median(drained, "redis"),
        lists_per_second=round(runs.lists[way] / events * speeds[1], 1) if way != "naive" else 0.0,
        moved=moved(runs.moved[way]) if way != "naive" else {},
    )


def moved(rounds: Sequence[Moved]) -> dict[str, float]:
    """Bytes for each event by door, in the last round: by then the bare loop knows what it fell short of."""
    return {door: round(of, 1) for door, of in rounds[-1]._asdict().items()}


def ratio_to_bare(runs: Runs) -> float:
    """How many times the bare loop's CPU, in the median round: what else the machine does meets both of a round."""
    pairs = zip(runs.drained["ours"], runs.drained["bare"], strict=True)
    return statistics.median(ours.cpu_us("self") / bare.cpu_us("self") for ours, bare in pairs)


def worse(ratios: Mapping[str, float], kept: Path) -> Iterator[str]:
    """Loads whose ratio to the bare loop is worse than what is kept, in words."""
    for load, before in msgspec.json.decode(kept.read_bytes(), type=dict[str, float]).items():
        if ratios[load] > before * (1 + WORSE_MAX):
            most = f"{before * (1 + WORSE_MAX):.2f} times the CPU of the bare loop"
            yield f"{load} should cost at most {most}, a tenth more than before. Found {ratios[load]} times."


def median(runs: Sequence[Drained], process: str) -> float:
    return spread([run.cpu_us(process) for run in runs])[1]


def figures_of(runs: Mapping[str, Runs]) -> Figures:
    """All rows, and how they stand to one another."""
    rows = {f"{way}_{load}": row_of(of, way) for way in WAYS for load, of in runs.items()}
    to_bare = {load: ratio_to_bare(of) for load, of in runs.items()}
    to_naive = {n: rows[f"ours_{n}"].events_per_second[1] / rows[f"naive_{n}"].events_per_second[1] for n in runs}
    apart = [abs(of / rows[f"ours_{n}"].moved[door] - 1) for n in runs for door, of in rows[f"bare_{n}"].moved.items()]
    return Figures(
        rows=rows,
        ours_to_bare_cpu=round(max(to_bare.values()), 2),
        ours_to_naive=round(min(to_naive.values()), 1),
        ours_to_bare_cpu_by_load={name: round(ratio, 2) for name, ratio in to_bare.items()},
        ours_to_naive_by_load={name: round(ratio, 1) for name, ratio in to_naive.items()},
        apart=round(max(apart), 3),
    )


def main(words: Sequence[str]) -> int:
    """Measure on servers of its own; 0, or 1 where the ratio to the bare loop is worse than the one to be kept."""
    arguments = parse(words)
    told = functools.partial(print, file=sys.stderr, flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-throughput-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        ways = Ways(kafka=kafka, server=server, folder=folder, told=told)
        ways.prepare(arguments.seed, arguments.scale)
        for way in [*("ours", "bare") * arguments.rounds, "naive"]:
            for lane in LANES:
                ways.run(lane, way)
    figures = figures_of(ways.runs)
    for aim in figures.missed:
        told(f"Missed: {aim}.")
    print(msgspec.json.encode(figures).decode() if arguments.json else figures)
    sentences = list(worse(figures.ours_to_bare_cpu_by_load, arguments.against)) if arguments.against else []
    for sentence in sentences:
        told(sentence)
    return 1 if sentences else 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench throughput", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, the last one")
    parser.add_argument("--rounds", type=int, default=3, help="how often each load is worked off by ours and by bare")
    parser.add_argument("--scale", type=float, default=1.0, help="of the loads: 0.1 for a tenth of the events")
    parser.add_argument("--against", type=Path, help="fail where a ratio to the bare loop is worse than in this file")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(words)
