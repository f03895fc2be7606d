"""`python -m bench scale`: one, two and four workers of one lane on this machine, each with a share of the partitions.

A backlog of a million clicks is processed once by each group of workers, with an empty Redis. On a machine with fewer
cores than processes speed does not grow; the aims are a constant CPU per event and a small memory per worker, however
long the backlog. A user's list is refreshed every ten seconds at most: with more workers on the same cores batches are
smaller, and a refresh per batch would make more lists.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench.performance.load.workload import EVENTS_PER_S, LoadGenerator, generate_products, produce, publish_bundle
from bench.performance.measure.drain import Drain, DrainResult
from bench.performance.measure.environment import LARGE_BATCHES, BenchEnvironment
from bench.results.report import print_missed, print_progress, print_result
from bench.results.statistics import min_median_max
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.environment.kafka_log import KafkaLog

WORKERS: Final = (1, 2, 4)
EVENTS: Final = 1_000_000
CPU_DIFFERENCE_MAX, RSS_MAX_MB = 0.15, 600.0


class ScaleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A number of workers. CPU is in microseconds per event over all workers; `rss_mb`: the largest worker."""

    events_per_second: tuple[float, float, float]
    cpu_us_per_event: float
    kafka_us_per_event: float
    redis_us_per_event: float
    rss_mb: float
    seconds: float


class ScaleFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by number of workers. `cpu_apart`: the largest relative difference of CPU per event to one worker."""

    events: int
    workers: dict[str, ScaleRow]
    cpu_apart: float
    rss_mb_max: float

    @property
    def missed_aims(self) -> Iterator[str]:
        """The missed aims."""
        if self.cpu_apart > CPU_DIFFERENCE_MAX:
            yield f"CPU per event within {CPU_DIFFERENCE_MAX:.0%}, however many workers"
        if self.rss_mb_max > RSS_MAX_MB:
            yield f"a worker in {RSS_MAX_MB:g} MB, however long the backlog"


class ScaleBench:
    """Processes the same backlog with several numbers of workers."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path) -> None:
        self._kafka = kafka
        self._server = server
        self._folder = folder

    def prepare(self, seed: int, events: int) -> None:
        """Publish the bundle and produce the backlog."""
        publish_bundle(self._folder / "bundles", seed)
        environment, now_ms = self._create_environment("queue."), time.time_ns() // 1_000_000
        environment.create_topics()
        topics = {kind: environment.topics.topic_name(kind) for kind in environment.shared_kinds}
        produce(self._kafka.bootstrap, topics, generate_products(now_ms))
        produce(
            self._kafka.bootstrap,
            topics,
            LoadGenerator(seed, now_ms - events * 1000 // EVENTS_PER_S).generate(events, 0),
        )

    def run(self, workers: int) -> DrainResult:
        """Process the whole backlog with this many workers."""
        environment = self._create_environment(f"of{workers}.")
        environment.create_topics()
        self._server.flush()
        servers = {"kafka": self._kafka.process, "redis": self._server.process}
        drain = Drain(bootstrap=self._kafka.bootstrap, group=environment.group_id("browsing"), servers=servers)
        ends = KafkaLog(bootstrap=self._kafka.bootstrap).read_end_offsets([environment.topics.clicks])
        return drain.run([self._create_worker(environment, number) for number in range(workers)], ends)

    def _create_worker(self, environment: BenchEnvironment, number: int) -> ChildProcess:
        variables = {**environment.env_variables(), "SHOPSTREAM_WORKER__INSTANCE": str(number)}
        log = self._folder / f"{environment.prefix}{number}.log"
        return ChildProcess(command=environment.worker_command("browsing"), output=log, environment=variables)

    def _create_environment(self, prefix: str) -> BenchEnvironment:
        return BenchEnvironment(
            kafka=self._kafka,
            redis=self._server,
            folder=self._folder,
            prefix=prefix,
            load_prefix="queue.",
            shared_kinds=("clicks", "products"),
            overrides={**LARGE_BATCHES, "SHOPSTREAM_LISTS__REFRESH_MS": "10000"},
        )


def build_figures(results: dict[int, DrainResult]) -> ScaleFigures:
    rows = {
        str(workers): ScaleRow(
            events_per_second=min_median_max(result.speeds),
            cpu_us_per_event=round(result.cpu_us_per_event("self"), 1),
            kafka_us_per_event=round(result.cpu_us_per_event("kafka"), 1),
            redis_us_per_event=round(result.cpu_us_per_event("redis"), 1),
            rss_mb=round(result.rss_mb, 1),
            seconds=round(result.seconds, 1),
        )
        for workers, result in results.items()
    }
    single_cpu_us = rows[str(WORKERS[0])].cpu_us_per_event
    return ScaleFigures(
        events=next(iter(results.values())).events,
        workers=rows,
        cpu_apart=round(max(abs(row.cpu_us_per_event / single_cpu_us - 1) for row in rows.values()), 3),
        rss_mb_max=max(row.rss_mb for row in rows.values()),
    )


def main(argv: Sequence[str]) -> int:
    """Measure on its own servers; always 0."""
    arguments = parse(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-scale-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        scale, results = ScaleBench(kafka=kafka, server=server, folder=folder), dict[int, DrainResult]()
        scale.prepare(arguments.seed, arguments.events)
        for workers in WORKERS:
            result = results[workers] = scale.run(workers)
            print_progress(
                f"{workers} workers: {min_median_max(result.speeds)} events/s, at most {result.rss_mb:.0f} MB"
            )
    figures = build_figures(results)
    print_missed(figures.missed_aims)
    print_result(figures, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench scale", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument("--events", type=int, default=EVENTS, help="events in the backlog")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
