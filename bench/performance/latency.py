"""`python -m bench latency`: age of an event when its decision is out and its list in Redis, compared with a bare loop.

Workers of both lanes run with default settings; events arrive at a steady rate, four clicks to one order, of enough
users that hardly a list waits for `lists.refresh_ms`. An order's age is taken when a read-committed consumer gets its
decision, a click's when Redis reports that the list which reflects it is set; both count from the time at which the
event was given to Kafka. `bare_ms` is the age of the bare loop's answers (`baselines/bare.py`) under the same load.
Then orders arrive slowly, once without other load and once while the other lane processes 100,000 clicks.
"""

import argparse
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

from bench.performance.baselines import bare
from bench.performance.baselines.recorded_answers import AnswerRecorder
from bench.performance.load.workload import LoadGenerator, Workload, generate_products, produce, publish_bundle
from bench.performance.measure import latency_probe
from bench.performance.measure.environment import BenchEnvironment
from bench.performance.measure.latency_probe import AnswerTime, read_answer_times
from bench.performance.measure.worker_processes import start_process
from bench.results.report import print_missed, print_progress, print_result
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.environment.kafka_log import KafkaLog

RATES: Final = (500, 2_000)
ORDERS_EVERY: Final = 5
USERS: Final = 60_000
WARMUP_S, MEASURED_S = 8.0, 40.0
QUIET_RATE, QUIET_S = 100, 30.0
BACKLOG: Final = 100_000
IDS_PER_LOAD: Final = 10_000_000  # maximum number of events of one load
READY_TIMEOUT_S: Final = 90.0
DRAIN_TIMEOUT_S: Final = 900.0
DECISION_P99_MAX, TO_BARE_MAX, BACKLOG_MAX = 35.0, 1.5, 2.0
WORKLOADS: Final = {"orders": Workload("orders", "orders", 0.0, 0), "browsing": Workload("clicks", "browsing", 1.0, 0)}


class LatencyQuantiles(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p99: float
    p999: float
    count: int


class LatencyRow(msgspec.Struct, frozen=True):
    """One rate of events."""

    decision_ms: LatencyQuantiles
    list_ms: LatencyQuantiles
    bare_ms: LatencyQuantiles


class LatencyFigures(msgspec.Struct, frozen=True):
    """Rows by events per second, and the latency of decisions while the other lane processes a backlog."""

    rows: dict[str, LatencyRow]
    orders_p99_backlog_to_idle: float
    orders_idle_ms: LatencyQuantiles
    orders_backlog_ms: LatencyQuantiles

    @property
    def missed_aims(self) -> Iterator[str]:
        """The missed aims."""
        quiet_row = self.rows[str(RATES[0])]
        if quiet_row.decision_ms.p99 > DECISION_P99_MAX:
            yield f"decisions in {DECISION_P99_MAX:g} ms at {RATES[0]} events per second (p99)"
        for rate, row in self.rows.items():
            if row.decision_ms.p99 > TO_BARE_MAX * row.bare_ms.p99:
                yield f"decisions in {TO_BARE_MAX} times the bare loop's latency at {rate} events per second (p99)"
        if self.orders_p99_backlog_to_idle > BACKLOG_MAX:
            yield f"orders during a backlog in {BACKLOG_MAX:g} times their latency without one (p99)"


class LatencyBench:
    """The servers, the processes under measurement, and the latency probes."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path, seed: int) -> None:
        self._server = server
        self._folder = folder
        self._seed = seed
        self._load_numbers = count()
        publish_bundle(folder / "bundles", seed)
        self.environment = BenchEnvironment(
            kafka=kafka, redis=server, folder=folder, prefix="", load_prefix="", shared_kinds=(), overrides={}
        )
        self.environment.create_topics()
        self._topics = {kind: self.environment.topics.topic_name(kind) for kind in ("clicks", "orders", "products")}
        produce(kafka.bootstrap, self._topics, generate_products(time.time_ns() // 1_000_000))

    @contextmanager
    def run_workers(self, lanes: Sequence[str]) -> Iterator[None]:
        """Workers of these lanes, ready at entry and stopped at exit."""
        with ExitStack() as stack:
            for lane in lanes:
                start_process(stack, self.environment, self.environment.worker_command(lane), lane)
            yield

    @contextmanager
    def run_bare_loops(self) -> Iterator[None]:
        """The bare loop in place of both lanes; the workers should have run before, to record their answers."""
        written = {kind: self.environment.topics.topic_name(kind) for kind in ("scored", "decisions")}
        answers = AnswerRecorder(self.environment).read_answers(decides=True)
        with ExitStack() as stack:
            for name, workload in WORKLOADS.items():
                config = bare.BareConfig(
                    bootstrap=self.environment.kafka.bootstrap,
                    redis_port=self._server.port,
                    group=f"bare-{name}",
                    topics={self.environment.topics.topic_name(kind): kind for kind in workload.graphs},
                    prefix="bare:",
                    bundles=str(self._folder / "bundles"),
                    batch_max=2_000,
                    graphs=workload.graphs,
                    answers=answers,
                    lists_per_event=1.0 if name == "browsing" else 0.0,
                    written=written,
                    latest=True,
                )
                path = self._folder / f"bare-{name}.config"
                path.write_bytes(msgspec.msgpack.encode(config))
                command = [sys.executable, "-m", "bench.performance.baselines.bare", str(path)]
                start_process(stack, self.environment, command, f"bare-{name}", has_probe=False)
            yield

    @contextmanager
    def watch_answers(self, *kinds: str) -> Iterator[dict[str, list[AnswerTime]]]:
        """Probes for these kinds of answers; the yielded dict is filled at exit."""
        times_by_kind: dict[str, list[AnswerTime]] = {}
        with ExitStack() as stack:
            for kind in kinds:
                stack.enter_context(self._run_probe(kind, times_by_kind))
            yield times_by_kind

    @contextmanager
    def _run_probe(self, kind: str, times_by_kind: dict[str, list[AnswerTime]]) -> Iterator[None]:
        paths = {name: self._folder / f"{kind}.{name}" for name in ("ready", "output", "config")}
        for path in paths.values():
            path.unlink(missing_ok=True)
        config = latency_probe.ProbeConfig(
            kind=kind,  # type: ignore[arg-type]  # one of the three
            bootstrap=self.environment.kafka.bootstrap,
            topic=self.environment.topics.decisions,
            partitions=self.environment.topics.partitions,
            redis_port=self._server.port,
            prefix=self.environment.redis_prefix,
            ready=str(paths["ready"]),
            output=str(paths["output"]),
        )
        paths["config"].write_bytes(msgspec.json.encode(config))
        command = [sys.executable, "-m", "bench.performance.measure.latency_probe", str(paths["config"])]
        child = ChildProcess(
            command=command, output=self._folder / f"{kind}.log", environment=self.environment.env_variables()
        )
        child.start()
        child.wait_until(paths["ready"].exists, timeout_s=READY_TIMEOUT_S)
        try:
            yield
        finally:
            child.stop()
            times_by_kind[kind] = read_answer_times(paths["output"])

    def send(self, rate: float, seconds: float, *, orders_every: int) -> float:
        """Send events at a steady rate; returns the time (ms) at which the warm-up of `WARMUP_S` ended."""
        producer = Producer({"bootstrap.servers": self.environment.kafka.bootstrap, "linger.ms": 0, "log_level": 3})
        load = self._create_load(None)
        started_s = time.monotonic()
        number = 0
        begin_ms = (time.time() + WARMUP_S) * 1000
        while (elapsed := time.monotonic() - started_s) < WARMUP_S + seconds:
            while number < elapsed * rate:
                number += 1
                is_order = number % orders_every == 0
                (record,) = load.generate(int(not is_order), int(is_order))
                producer.produce(self._topics[record.kind], record.value, record.key)
            producer.poll(0)
            time.sleep(0.001)
        producer.flush(READY_TIMEOUT_S)
        time.sleep(1.0)  # for the last answers
        return begin_ms

    def queue_clicks(self, clicks: int) -> None:
        """Produce a backlog of clicks while no worker of their lane runs."""
        produce(
            self.environment.kafka.bootstrap,
            self._topics,
            self._create_load(time.time_ns() // 1_000_000).generate(clicks, 0),
        )

    def _create_load(self, begin_ms: int | None) -> LoadGenerator:
        """A load with new ids: an order is decided only once."""
        load = LoadGenerator(self._seed, begin_ms, users=USERS)
        load.start_from(next(self._load_numbers) * IDS_PER_LOAD)
        return load

    def wait_until_drained(self) -> None:
        """Return when the browsing lane has committed every click."""
        log = KafkaLog(bootstrap=self.environment.kafka.bootstrap)
        log.wait_until_committed(
            self.environment.group_id("browsing"), [self.environment.topics.clicks], DRAIN_TIMEOUT_S
        )


def summarize_latency(times: Sequence[AnswerTime], begin_ms: float, end_ms: float = float("inf")) -> LatencyQuantiles:
    """Latency of the answers to the events of this period."""
    latencies_ms = [answer_time.latency_ms for answer_time in times if begin_ms <= answer_time.event_ms < end_ms]
    if not latencies_ms:
        raise RuntimeError("Answers should come out. Found none.")
    p50, p99, p999 = np.percentile(latencies_ms, (50, 99, 99.9)).round(1).tolist()
    return LatencyQuantiles(p50, p99, p999, len(latencies_ms))


def measure(latency: LatencyBench, seconds: float, report: Callable[[object], None]) -> LatencyFigures:
    """Measure every row, one after the other."""
    ours: dict[int, Mapping[str, LatencyQuantiles]] = {}
    for rate in RATES:
        with latency.run_workers(("orders", "browsing")), latency.watch_answers("decisions", "lists") as times_by_kind:
            begin_ms = latency.send(rate, seconds, orders_every=ORDERS_EVERY)
        ours[rate] = {kind: summarize_latency(times, begin_ms) for kind, times in times_by_kind.items()}
        report(f"{rate}: {ours[rate]}")
    rows: dict[str, LatencyRow] = {}
    for rate in RATES:
        with latency.run_bare_loops(), latency.watch_answers("dated") as times_by_kind:
            begin_ms = latency.send(rate, seconds, orders_every=ORDERS_EVERY)
        rows[str(rate)] = LatencyRow(
            ours[rate]["decisions"], ours[rate]["lists"], summarize_latency(times_by_kind["dated"], begin_ms)
        )
        report(f"{rate}, bare: {rows[str(rate)].bare_ms}")
    with latency.run_workers(("browsing",)):
        latency.wait_until_drained()
    idle, backlog = measure_with_backlog(latency, report)
    return LatencyFigures(rows, round(backlog.p99 / idle.p99, 2), idle, backlog)


def measure_with_backlog(
    latency: LatencyBench, report: Callable[[object], None]
) -> tuple[LatencyQuantiles, LatencyQuantiles]:
    """Latency of a low rate of orders, without and with a backlog of clicks."""
    with latency.run_workers(("orders",)), latency.watch_answers("decisions") as times_by_kind:
        begin_ms = latency.send(QUIET_RATE, QUIET_S, orders_every=1)
    idle = summarize_latency(times_by_kind["decisions"], begin_ms)
    report(f"orders alone: {idle}")
    latency.queue_clicks(BACKLOG)
    with (
        latency.run_workers(("orders",)),
        latency.watch_answers("decisions") as times_by_kind,
        latency.run_workers(("browsing",)),
    ):
        begin_ms = time.time() * 1000
        latency.send(QUIET_RATE, 0.0, orders_every=1)  # the backlog lasts from the beginning
        latency.wait_until_drained()
        end_ms = time.time() * 1000
    backlog = summarize_latency(times_by_kind["decisions"], begin_ms, end_ms)
    report(f"orders during a backlog: {backlog}")
    return idle, backlog


def main(argv: Sequence[str]) -> int:
    """Measure on its own servers; always 0, since a machine with other load misses the aims easily."""
    arguments = parse(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-latency-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        latency = LatencyBench(kafka=kafka, server=server, folder=folder, seed=arguments.seed)
        figures = measure(latency, arguments.seconds, print_progress)
    print_missed(figures.missed_aims)
    print_result(figures, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench latency", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument("--seconds", type=float, default=MEASURED_S, help="measured seconds of each rate")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
