"""`python -m bench latency`: how old an event is when its decision is out and when its list is in Redis, beside bare.

Workers of both lanes run as anybody runs them; events come at a steady rate, four clicks to one order, of so many users
that hardly a list has to wait for `lists.refresh_ms`. An order's age is taken when a reader of committed records gets
its decision, a click's when Redis tells that the list which reflects it is set; both from the time at which the event
was given to Kafka. `bare_ms` is that of the bare loop's answers (bench/bare.py) under the same load. Then orders come
calmly, once while nothing else goes on and once while the other lane works off 100,000 clicks.
"""

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from confluent_kafka import Producer

from bench import bare, watcher
from bench.copies import Copier
from bench.kafka_log import KafkaLog
from bench.load import Load, produce, products, publish_bundle
from bench.track import Track
from bench.watcher import Seen, read_seen
from bench.ways import Lane
from demo.health_probe import HealthProbe
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess, find_free_ports
from devservers.redis_server import RedisServer

RATES: Final = (500, 2_000)
ORDERS_EVERY: Final = 5
USERS: Final = 60_000
WARM_S, MEASURED_S = 8.0, 40.0
CALM_RATE, CALM_S = 100, 30.0
BACKLOG: Final = 100_000
NUMBERS: Final = 10_000_000  # events of one load, at most
READY_S: Final = 90.0
DECISION_P99_MAX, TO_BARE_MAX, BACKLOG_MAX = 35.0, 1.5, 2.0
LANES: Final = {"orders": Lane("orders", "orders", 0.0, 0), "browsing": Lane("clicks", "browsing", 1.0, 0)}


class Spread(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p99: float
    p999: float
    count: int


class Row(msgspec.Struct, frozen=True):
    """One rate."""

    decision_ms: Spread
    list_ms: Spread
    bare_ms: Spread


class Figures(msgspec.Struct, frozen=True):
    """By events a second; and how much later decisions come while the other lane works off a backlog."""

    rows: dict[str, Row]
    orders_p99_backlog_to_idle: float
    orders_idle_ms: Spread
    orders_backlog_ms: Spread

    @property
    def missed(self) -> Iterator[str]:
        """The aims that were not reached, in words."""
        calm = self.rows[str(RATES[0])]
        if calm.decision_ms.p99 > DECISION_P99_MAX:
            yield f"decisions in {DECISION_P99_MAX:g} ms at {RATES[0]} events a second (p99)"
        for rate, row in self.rows.items():
            if row.decision_ms.p99 > TO_BARE_MAX * row.bare_ms.p99:
                yield f"decisions in {TO_BARE_MAX} times what the bare loop takes at {rate} events a second (p99)"
        if self.orders_p99_backlog_to_idle > BACKLOG_MAX:
            yield f"orders beside a backlog in {BACKLOG_MAX:g} times what they take without (p99)"


class Latency:
    """The servers, the processes under measure, and those that watch them."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path, seed: int) -> None:
        self._server, self._folder, self._seed = server, folder, seed
        self._loads = count()
        publish_bundle(folder / "bundles", seed)
        self.track = Track(kafka=kafka, redis=server, folder=folder, prefix="", load="", shared=(), told={})
        self.track.create_topics()
        self._topics = {kind: self.track.topics.topic_name(kind) for kind in ("clicks", "orders", "products")}
        produce(kafka.bootstrap, self._topics, products(time.time_ns() // 1_000_000))

    @contextmanager
    def working(self, lanes: Sequence[str]) -> Iterator[None]:
        """Workers of these lanes, ready and then ended."""
        with ExitStack() as stack:
            for lane, port in zip(lanes, find_free_ports(len(lanes)), strict=True):
                told = {**self.track.environment(), "SHOPSTREAM_WORKER__HTTP_PORT": str(port)}
                log = self._folder / f"{lane}.log"
                child = ChildProcess(command=self.track.command(lane), output=log, environment=told)
                child.start()
                stack.callback(child.stop)
                child.wait_until(HealthProbe(port).is_ready, timeout_s=READY_S)
            yield

    @contextmanager
    def working_barely(self) -> Iterator[None]:
        """The bare loop in the place of both lanes; needs answers to copy."""
        written = {kind: self.track.topics.topic_name(kind) for kind in ("scored", "decisions")}
        answers = Copier(self.track).answers(decides=True)
        with ExitStack() as stack:
            for name, lane in LANES.items():
                plan = bare.Plan(
                    bootstrap=self.track.kafka.bootstrap,
                    redis_port=self._server.port,
                    group=f"bare-{name}",
                    topics={self.track.topics.topic_name(kind): kind for kind in lane.graphs},
                    prefix="bare:",
                    bundles=str(self._folder / "bundles"),
                    batch_max=2_000,
                    graphs=lane.graphs,
                    answers=answers,
                    lists_per_event=1.0 if name == "browsing" else 0.0,
                    written=written,
                    latest=True,
                )
                path = self._folder / f"bare-{name}.plan"
                path.write_bytes(msgspec.msgpack.encode(plan))
                command = [sys.executable, "-m", "bench.bare", str(path)]
                child = ChildProcess(
                    command=command, output=self._folder / f"bare-{name}.log", environment=self.track.environment()
                )
                child.start()
                stack.callback(child.stop)
            yield

    @contextmanager
    def watching(self, *kinds: str) -> Iterator[dict[str, list[Seen]]]:
        """Watchers of these kinds of answers; what they saw is there when they have ended."""
        found: dict[str, list[Seen]] = {}
        with ExitStack() as stack:
            for kind in kinds:
                stack.enter_context(self._watcher(kind, found))
            yield found

    @contextmanager
    def _watcher(self, kind: str, found: dict[str, list[Seen]]) -> Iterator[None]:
        paths = {name: self._folder / f"{kind}.{name}" for name in ("ready", "found", "plan")}
        for path in paths.values():
            path.unlink(missing_ok=True)
        plan = watcher.Plan(
            of=kind,  # type: ignore[arg-type]  # one of the three
            bootstrap=self.track.kafka.bootstrap,
            topic=self.track.topics.decisions,
            partitions=self.track.topics.partitions,
            redis_port=self._server.port,
            prefix=self.track.redis_prefix,
            ready=str(paths["ready"]),
            found=str(paths["found"]),
        )
        paths["plan"].write_bytes(msgspec.json.encode(plan))
        command = [sys.executable, "-m", "bench.watcher", str(paths["plan"])]
        child = ChildProcess(command=command, output=self._folder / f"{kind}.log", environment=self.track.environment())
        child.start()
        child.wait_until(paths["ready"].exists, timeout_s=READY_S)
        try:
            yield
        finally:
            child.stop()
            found[kind] = read_seen(paths["found"])

    def send(self, rate: float, seconds: float, *, orders_every: int) -> float:
        """Events of now at a steady rate; returns when the measured part began, which is after `WARM_S`."""
        producer = Producer({"bootstrap.servers": self.track.kafka.bootstrap, "linger.ms": 0, "log_level": 3})
        load, began, number = self._load(None), time.monotonic(), 0
        begin_ms = (time.time() + WARM_S) * 1000
        while (elapsed := time.monotonic() - began) < WARM_S + seconds:
            while number < elapsed * rate:
                number += 1
                is_order = number % orders_every == 0
                (one,) = load.records(int(not is_order), int(is_order))
                producer.produce(self._topics[one.kind], one.value, one.key)
            producer.poll(0)
            time.sleep(0.001)
        producer.flush(READY_S)
        time.sleep(1.0)  # for the last answers
        return begin_ms

    def queue_clicks(self, clicks: int) -> None:
        """Clicks that nobody reads yet."""
        produce(self.track.kafka.bootstrap, self._topics, self._load(time.time_ns() // 1_000_000).records(clicks, 0))

    def _load(self, begin_ms: int | None) -> Load:
        """Events that are new: an order that was decided once is not decided again."""
        load = Load(self._seed, begin_ms, users=USERS)
        load.go_on_from(next(self._loads) * NUMBERS)
        return load

    def wait_drained(self) -> None:
        """Until the browsing lane has answered every click."""
        log = KafkaLog(bootstrap=self.track.kafka.bootstrap)
        ends = log.ends([self.track.topics.clicks])
        while any(at < ends[place] for place, at in log.committed(self.track.group("browsing"), ends).items()):
            time.sleep(0.1)


def spread_of(seen: Sequence[Seen], begin_ms: float, end_ms: float = float("inf")) -> Spread:
    """How late answers to events of that time were."""
    late = [one.late_ms for one in seen if begin_ms <= one.event_ms < end_ms]
    if not late:
        raise RuntimeError("Answers should come out. Found none.")
    p50, p99, p999 = np.percentile(late, (50, 99, 99.9)).round(1).tolist()
    return Spread(p50, p99, p999, len(late))


def measure(latency: Latency, seconds: float, told: Callable[[object], None]) -> Figures:
    """Every row, one after the other."""
    ours: dict[int, Mapping[str, Spread]] = {}
    for rate in RATES:
        with latency.working(("orders", "browsing")), latency.watching("decisions", "lists") as found:
            begin_ms = latency.send(rate, seconds, orders_every=ORDERS_EVERY)
        ours[rate] = {kind: spread_of(seen, begin_ms) for kind, seen in found.items()}
        told(f"{rate}: {ours[rate]}")
    rows: dict[str, Row] = {}
    for rate in RATES:
        with latency.working_barely(), latency.watching("dated") as found:
            begin_ms = latency.send(rate, seconds, orders_every=ORDERS_EVERY)
        rows[str(rate)] = Row(ours[rate]["decisions"], ours[rate]["lists"], spread_of(found["dated"], begin_ms))
        told(f"{rate}, bare: {rows[str(rate)].bare_ms}")
    with latency.working(("browsing",)):
        latency.wait_drained()
    idle, beside = beside_backlog(latency, told)
    return Figures(rows, round(beside.p99 / idle.p99, 2), idle, beside)


def beside_backlog(latency: Latency, told: Callable[[object], None]) -> tuple[Spread, Spread]:
    """Calm orders alone, and while clicks are worked off."""
    with latency.working(("orders",)), latency.watching("decisions") as found:
        begin_ms = latency.send(CALM_RATE, CALM_S, orders_every=1)
    idle = spread_of(found["decisions"], begin_ms)
    told(f"orders alone: {idle}")
    latency.queue_clicks(BACKLOG)
    with latency.working(("orders",)), latency.watching("decisions") as found, latency.working(("browsing",)):
        begin_ms = time.time() * 1000
        latency.send(CALM_RATE, 0.0, orders_every=1)  # warm, and beside the backlog from its beginning
        latency.wait_drained()
        end_ms = time.time() * 1000
    beside = spread_of(found["decisions"], begin_ms, end_ms)
    told(f"orders beside a backlog: {beside}")
    return idle, beside


def main(words: Sequence[str]) -> int:
    """Measure on servers of its own; 0 whatever was found, since a machine that others use is late easily."""
    arguments = parse(words)
    told = functools.partial(print, file=sys.stderr, flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-latency-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        latency = Latency(kafka=kafka, server=server, folder=folder, seed=arguments.seed)
        figures = measure(latency, arguments.seconds, told)
    for aim in figures.missed:
        told(f"Missed: {aim}.")
    print(msgspec.json.encode(figures).decode() if arguments.json else figures)
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench latency", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, the last one")
    parser.add_argument("--seconds", type=float, default=MEASURED_S, help="that each rate is measured for")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(words)
