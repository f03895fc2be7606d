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

from bench.drain import Drain, Drained, spread
from bench.kafka_log import KafkaLog
from bench.load import Load, produce, products, publish_bundle
from bench.track import Track
from bench.ways import TOLD
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer

WORKERS: Final = (1, 2, 4)
EVENTS: Final = 1_000_000
APART_MAX, RSS_MAX_MB = 0.15, 600.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """So many workers. CPU is microseconds an event, of all of them together; `rss_mb` is the largest worker's."""

    events_per_second: tuple[float, float, float]
    cpu_us_per_event: float
    kafka_us_per_event: float
    redis_us_per_event: float
    rss_mb: float
    seconds: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """By the number of workers. `cpu_apart`: how far an event's CPU goes from that with one worker, as a share."""

    events: int
    workers: dict[str, Row]
    cpu_apart: float
    rss_mb_max: float

    @property
    def missed(self) -> Iterator[str]:
        """The aims that were not reached, in words."""
        if self.cpu_apart > APART_MAX:
            yield f"CPU for each event within {APART_MAX:.0%}, however many workers"
        if self.rss_mb_max > RSS_MAX_MB:
            yield f"a worker in {RSS_MAX_MB:g} MB, however much is queued"


class Scale:
    """A queue that is worked off again and again."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path) -> None:
        self._kafka, self._server, self._folder = kafka, server, folder

    def prepare(self, seed: int, events: int) -> None:
        """The bundle and the queue."""
        publish_bundle(self._folder / "bundles", seed)
        track, now_ms = self._track("queue."), time.time_ns() // 1_000_000
        track.create_topics()
        topics = {kind: track.topics.topic_name(kind) for kind in track.shared}
        produce(self._kafka.bootstrap, topics, products(now_ms))
        produce(self._kafka.bootstrap, topics, Load(seed, now_ms - events // 15).records(events, 0))

    def run(self, workers: int) -> Drained:
        """The whole queue, by so many."""
        track = self._track(f"of{workers}.")
        track.create_topics()
        self._server.flush()
        beside = {"kafka": self._kafka.process, "redis": self._server.process}
        drain = Drain(bootstrap=self._kafka.bootstrap, group=track.group("browsing"), beside=beside)
        ends = KafkaLog(bootstrap=self._kafka.bootstrap).ends([track.topics.clicks])
        return drain.run([self._worker(track, number) for number in range(workers)], ends)

    def _worker(self, track: Track, number: int) -> ChildProcess:
        told = {**track.environment(), "SHOPSTREAM_WORKER__INSTANCE": str(number)}
        log = self._folder / f"{track.prefix}{number}.log"
        return ChildProcess(command=track.command("browsing"), output=log, environment=told)

    def _track(self, prefix: str) -> Track:
        return Track(
            kafka=self._kafka,
            redis=self._server,
            folder=self._folder,
            prefix=prefix,
            load="queue.",
            shared=("clicks", "products"),
            told={**TOLD, "SHOPSTREAM_LISTS__REFRESH_MS": "10000"},
        )


def figures_of(runs: dict[int, Drained]) -> Figures:
    rows = {
        str(workers): Row(
            events_per_second=spread(drained.speeds),
            cpu_us_per_event=round(drained.cpu_us("self"), 1),
            kafka_us_per_event=round(drained.cpu_us("kafka"), 1),
            redis_us_per_event=round(drained.cpu_us("redis"), 1),
            rss_mb=round(drained.rss_mb, 1),
            seconds=round(drained.seconds, 1),
        )
        for workers, drained in runs.items()
    }
    one = rows[str(WORKERS[0])].cpu_us_per_event
    return Figures(
        events=next(iter(runs.values())).events,
        workers=rows,
        cpu_apart=round(max(abs(row.cpu_us_per_event / one - 1) for row in rows.values()), 3),
        rss_mb_max=max(row.rss_mb for row in rows.values()),
    )


def main(words: Sequence[str]) -> int:
    """Measure on servers of its own; 0 whatever was found."""
    arguments = parse(words)
    told: Callable[..., None] = functools.partial(print, file=sys.stderr, flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-scale-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        scale, runs = Scale(kafka=kafka, server=server, folder=folder), dict[int, Drained]()
        scale.prepare(arguments.seed, arguments.events)
        for workers in WORKERS:
            runs[workers] = scale.run(workers)
            told(f"{workers} workers: {spread(runs[workers].speeds)} events/s, {runs[workers].rss_mb:.0f} MB at most")
    figures = figures_of(runs)
    for aim in figures.missed:
        told(f"Missed: {aim}.")
    print(msgspec.json.encode(figures).decode() if arguments.json else figures)
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench scale", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, the last one")
    parser.add_argument("--events", type=int, default=EVENTS, help="that lie queued")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(words)
