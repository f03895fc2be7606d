"""`python -m bench scale`: one, two and four workers of one lane on this machine, each on a share of the partitions.

A million clicks lie queued; every time they are worked off anew, by a group of so many workers with a Redis that is
empty. On a machine with fewer cores than processes it is not speed that grows: what is to stay is the CPU that an event
costs, and what is to stay small is the memory of a worker, however much is queued. A user's list is made every ten
seconds at most: batches are smaller where more workers share the cores, and lists by the batch would be more.
"""

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench.performance.baselines.contenders import LARGE_BATCHES
from bench.performance.load.workload import LoadGenerator, generate_products, produce, publish_bundle
from bench.performance.measure.drain import Drain, DrainResult, summarize_spread
from bench.performance.measure.environment import BenchEnvironment
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.environment.kafka_log import KafkaLog

WORKERS: Final = (1, 2, 4)
EVENTS: Final = 1_000_000
CPU_DIFFERENCE_MAX, RSS_MAX_MB = 0.15, 600.0


class ScaleRow(msgspec.Struct, frozen=True, kw_only=True):
    """So many workers. CPU is microseconds an event, of all of them together; `rss_mb` is the largest worker's."""

    events_per_second: tuple[float, float, float]
    cpu_us_per_event: float
    kafka_us_per_event: float
    redis_us_per_event: float
    rss_mb: float
    seconds: float


class ScaleFigures(msgspec.Struct, frozen=True, kw_only=True):
    """By the number of workers. `cpu_apart`: how far an event's CPU goes from that with one worker, as a share."""

    events: int
    workers: dict[str, ScaleRow]
    cpu_apart: float
    rss_mb_max: float

    @property
    def missed_aims(self) -> Iterator[str]:
        """The aims that were not reached, in words."""
        if self.cpu_apart > CPU_DIFFERENCE_MAX:
            yield f"CPU for each event within {CPU_DIFFERENCE_MAX:.0%}, however many workers"
        if self.rss_mb_max > RSS_MAX_MB:
            yield f"a worker in {RSS_MAX_MB:g} MB, however much is queued"


class ScaleBench:
    """A queue that is worked off again and again."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path) -> None:
        self._kafka, self._server, self._folder = kafka, server, folder

    def prepare(self, seed: int, events: int) -> None:
        """The bundle and the queue."""
        publish_bundle(self._folder / "bundles", seed)
        environment, now_ms = self._create_environment("queue."), time.time_ns() // 1_000_000
        environment.create_topics()
        topics = {kind: environment.topics.topic_name(kind) for kind in environment.shared_kinds}
        produce(self._kafka.bootstrap, topics, generate_products(now_ms))
        produce(self._kafka.bootstrap, topics, LoadGenerator(seed, now_ms - events // 15).generate(events, 0))

    def run(self, workers: int) -> DrainResult:
        """The whole queue, by so many."""
        environment = self._create_environment(f"of{workers}.")
        environment.create_topics()
        self._server.flush()
        servers = {"kafka": self._kafka.process, "redis": self._server.process}
        drain = Drain(bootstrap=self._kafka.bootstrap, group=environment.group_id("browsing"), servers=servers)
        ends = KafkaLog(bootstrap=self._kafka.bootstrap).end_offsets([environment.topics.clicks])
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
            events_per_second=summarize_spread(result.speeds),
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
    """Measure on servers of its own; 0 whatever was found."""
    arguments = parse(argv)
    report: Callable[..., None] = functools.partial(print, file=sys.stderr, flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-scale-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        scale, results = ScaleBench(kafka=kafka, server=server, folder=folder), dict[int, DrainResult]()
        scale.prepare(arguments.seed, arguments.events)
        for workers in WORKERS:
            results[workers] = scale.run(workers)
            report(
                f"{workers} workers: {summarize_spread(results[workers].speeds)} events/s, {results[workers].rss_mb:.0f} MB at most"
            )
    figures = build_figures(results)
    for aim in figures.missed_aims:
        report(f"Missed: {aim}.")
    print(msgspec.json.encode(figures).decode() if arguments.json else figures)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench scale", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, the last one")
    parser.add_argument("--events", type=int, default=EVENTS, help="that lie queued")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
