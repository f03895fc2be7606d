"""`python -m bench throughput`: events per second and CPU of one worker process, compared with a bare and a naive loop.

Each load is on its topics of an Apache Kafka before a process starts; then our worker and the bare loop process it in
turn. Figures are taken after a warm-up: events per second over spans of a second (minimum, median and maximum of all
rounds), CPU microseconds per event (the median round), also of Kafka and Redis, which use the same cores. `bare`
(`baselines/bare.py`) moves as many bytes, runs the same graphs over as many rows and does nothing else; `naive`
(`baselines/naive.py`) flushes and commits each record, as in tutorials. Our worker has its usual settings, with
transactions, except for batches of up to 200 ms: the latency of a backlog does not matter.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench.performance.baselines.contenders import CONTENDERS, WORKLOADS, BytesPerEvent, Contenders, LoadResults
from bench.performance.measure.drain import DrainResult
from bench.results.report import print_missed, print_progress, print_result
from bench.results.statistics import min_median_max
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer

BARE_MAX, NAIVE_MIN, APART_MAX, REGRESSION_MAX = 1.6, 12.0, 0.05, 0.10
EVENTS_PER_S_MIN: Final = {"clicks": 15_000, "orders": 8_000}
LISTS_MIN: Final = 500


class ThroughputRow(msgspec.Struct, frozen=True, kw_only=True):
    """A contender on a load. CPU is in microseconds per event, `moved` in bytes per event."""

    events_per_second: tuple[float, float, float]
    cpu_us_per_event: float
    rss_mb: float
    kafka_us_per_event: float
    redis_us_per_event: float
    lists_per_second: float
    moved: dict[str, float]


class ThroughputFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All rows. `apart`: the largest relative difference in bytes between bare and ours, of any channel and load."""

    rows: dict[str, ThroughputRow]
    ours_to_bare_cpu: float
    ours_to_naive: float
    ours_to_bare_cpu_by_load: dict[str, float]
    ours_to_naive_by_load: dict[str, float]
    apart: float

    @property
    def missed_aims(self) -> list[str]:
        """The missed aims."""
        is_reached_by_aim = {
            f"at most {BARE_MAX} times the CPU of the bare loop": self.ours_to_bare_cpu <= BARE_MAX,
            f"{NAIVE_MIN:g} times as fast as the naive loop": self.ours_to_naive >= NAIVE_MIN,
            f"bytes of ours and bare within {APART_MAX:.0%}": self.apart <= APART_MAX,
            f"{LISTS_MIN} lists per second": self.rows["ours_clicks"].lists_per_second >= LISTS_MIN,
        }
        for load, least in EVENTS_PER_S_MIN.items():
            is_reached_by_aim[f"{least:,} {load} per second"] = self.rows[f"ours_{load}"].events_per_second[1] >= least
        return [aim for aim, is_reached in is_reached_by_aim.items() if not is_reached]


def build_row(results: LoadResults, contender: str) -> ThroughputRow:
    """A contender on a load, all rounds together."""
    drains, events = results.drains[contender], results.drains[contender][0].events
    speeds = min_median_max([speed for run in drains for speed in run.speeds])
    return ThroughputRow(
        events_per_second=speeds,
        cpu_us_per_event=find_median_cpu_us(drains, "self"),
        rss_mb=round(max(run.rss_mb for run in drains), 1),
        kafka_us_per_event=find_median_cpu_us(drains, "kafka"),
        redis_us_per_event=find_median_cpu_us(drains, "redis"),
        lists_per_second=round(results.lists[contender] / events * speeds[1], 1) if contender != "naive" else 0.0,
        moved=round_bytes(results.bytes_moved[contender]) if contender != "naive" else {},
    )


def round_bytes(rounds: Sequence[BytesPerEvent]) -> dict[str, float]:
    """Bytes per event by channel, in the last round: there the bare loop moves as many bytes as ours."""
    return {channel: round(size, 1) for channel, size in rounds[-1]._asdict().items()}


def compare_to_bare(results: LoadResults) -> float:
    """CPU relative to the bare loop in the median round: other load on the machine affects both of a round."""
    pairs = zip(results.drains["ours"], results.drains["bare"], strict=True)
    return statistics.median(ours.cpu_us_per_event("self") / bare.cpu_us_per_event("self") for ours, bare in pairs)


def find_regressions(ratios: Mapping[str, float], baseline: Path) -> Iterator[str]:
    """Loads whose ratio to the bare loop is worse than in the baseline file."""
    for load, before in msgspec.json.decode(baseline.read_bytes(), type=dict[str, float]).items():
        if ratios[load] > before * (1 + REGRESSION_MAX):
            limit = f"{before * (1 + REGRESSION_MAX):.2f} times the CPU of the bare loop"
            yield f"{load} should cost at most {limit}, a tenth more than before. Found {ratios[load]} times."


def find_median_cpu_us(drains: Sequence[DrainResult], process: str) -> float:
    return min_median_max([run.cpu_us_per_event(process) for run in drains])[1]


def build_figures(results: Mapping[str, LoadResults]) -> ThroughputFigures:
    """All rows and their ratios."""
    rows = {
        f"{contender}_{load}": build_row(load_results, contender)
        for contender in CONTENDERS
        for load, load_results in results.items()
    }
    to_bare = {load: compare_to_bare(load_results) for load, load_results in results.items()}
    to_naive = {n: rows[f"ours_{n}"].events_per_second[1] / rows[f"naive_{n}"].events_per_second[1] for n in results}
    differences = [
        abs(size / rows[f"ours_{load}"].moved[channel] - 1)
        for load in results
        for channel, size in rows[f"bare_{load}"].moved.items()
    ]
    return ThroughputFigures(
        rows=rows,
        ours_to_bare_cpu=round(max(to_bare.values()), 2),
        ours_to_naive=round(min(to_naive.values()), 1),
        ours_to_bare_cpu_by_load={name: round(ratio, 2) for name, ratio in to_bare.items()},
        ours_to_naive_by_load={name: round(ratio, 1) for name, ratio in to_naive.items()},
        apart=round(max(differences), 3),
    )


def main(argv: Sequence[str]) -> int:
    """Measure on its own servers. 1: a ratio to the bare loop is worse than in `--against`."""
    arguments = parse(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-throughput-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        contenders = Contenders(kafka=kafka, server=server, folder=folder, report=print_progress)
        contenders.prepare(arguments.seed, arguments.scale)
        for contender in [*("ours", "bare") * arguments.rounds, "naive"]:
            for workload in WORKLOADS:
                contenders.run(workload, contender)
    figures = build_figures(contenders.results)
    print_missed(figures.missed_aims)
    print_result(figures, as_json=arguments.json)
    sentences = list(find_regressions(figures.ours_to_bare_cpu_by_load, arguments.against)) if arguments.against else []
    for sentence in sentences:
        print_progress(sentence)
    return 1 if sentences else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench throughput", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument("--rounds", type=int, default=3, help="runs of ours and of bare on each load")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of events")
    parser.add_argument("--against", type=Path, help="fail if a ratio to the bare loop is worse than in this file")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
