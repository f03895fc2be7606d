"""Ways to work a load off: ours, the bare loop, the naive loop; each a process that reads the same topics."""

import math
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.performance.baselines.bare import BareConfig
from bench.performance.baselines.recorded_answers import AnswerRecorder
from bench.performance.load.workload import LoadGenerator, LoadRecord, generate_products, produce, publish_bundle
from bench.performance.measure.drain import Drain, DrainResult, summarize_spread
from bench.performance.measure.environment import BenchEnvironment, read_redis_bytes
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.environment.kafka_log import KafkaLog

CONTENDERS: Final = ("ours", "bare", "naive")
BASELINE_MODULES: Final = {
    "bare": "bench.performance.baselines.bare",
    "naive": "bench.performance.baselines.naive",
}
NAIVE_S: Final = 12.0
BATCH_MAX: Final = 4_000
LARGE_BATCHES: Final = {
    "SHOPSTREAM_WORKER__BATCH_MAX": str(BATCH_MAX),
    "SHOPSTREAM_WORKER__LATENCY_MS": "200",
    "SHOPSTREAM_LISTS__BATCH_MAX": "110",
}
SIZE_SAMPLE: Final = 1_000  # records that an event's size is taken from


class Workload(NamedTuple):
    """A load of so many events, a share of them clicks, worked off by a worker of that lane."""

    name: str
    lane: str
    click_share: float
    events: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """What lies on its topics."""
        return (
            ("orders",)
            if not self.click_share
            else ("clicks", "products") + (("orders",) if self.click_share < 1 else ())
        )

    @property
    def graphs(self) -> dict[str, str]:
        """Which graph answers which kind."""
        return {"orders": "decide"} if self.lane == "orders" else {"clicks": "recommend"}

    def generate(self, load: LoadGenerator, events: int) -> list[LoadRecord]:
        clicks = round(events * self.click_share)
        return list(load.generate(clicks, events - clicks))


WORKLOADS: Final = (
    Workload("orders", "orders", 0.0, 100_000),
    Workload("clicks", "browsing", 1.0, 180_000),
    Workload("mixed", "browsing", 0.95, 120_000),
)


class BytesPerEvent(NamedTuple):
    """Bytes for each event: read from and written to Kafka (keys and values), sent to and got from Redis."""

    kafka_in: float
    kafka_out: float
    redis_in: float
    redis_out: float

    @property
    def redis(self) -> tuple[float, float]:
        return self.redis_in, self.redis_out


class LoadResults:
    """All runs of one load: what they have shown, and what each has moved."""

    def __init__(self) -> None:
        self.drains: dict[str, list[DrainResult]] = defaultdict(list)
        self.bytes_moved: dict[str, list[BytesPerEvent]] = defaultdict(list)
        self.lists: dict[str, int] = {}
        self.config: BareConfig | None = None


class Contenders:
    """Runs each way over each load, on one broker and one Redis."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path, report: Callable[[str], None]) -> None:
        self._kafka, self._server, self._folder, self._report = kafka, server, folder, report
        self._numbers = count()
        self.results: dict[str, LoadResults] = {lane.name: LoadResults() for lane in WORKLOADS}

    def prepare(self, seed: int, scale: float) -> None:
        """A bundle, and every load on its topics."""
        publish_bundle(self._folder / "bundles", seed)
        for workload in WORKLOADS:
            environment, now_ms, events = (
                self._create_environment(workload),
                time.time_ns() // 1_000_000,
                int(workload.events * scale),
            )
            environment.create_topics()
            topics = {kind: environment.topics.topic_name(kind) for kind in workload.kinds}
            if "products" in topics:
                produce(self._kafka.bootstrap, topics, generate_products(now_ms))
            records = workload.generate(LoadGenerator(seed, now_ms - events // 15), events)
            self._report(f"{workload.name}: {produce(self._kafka.bootstrap, topics, records)}")

    def run(self, workload: Workload, contender: str) -> None:
        """One way over one load; the bare loop needs ours before it, whose answers it copies."""
        environment, results = self._create_environment(workload), self.results[workload.name]
        environment.create_topics()
        self._server.flush()
        read = [environment.topics.topic_name(kind) for kind in workload.kinds if kind != "products"]
        child, group = (
            self._create_process(environment, workload, contender),
            environment.group_id(workload.lane) if contender == "ours" else environment.prefix + contender,
        )
        servers = {"kafka": self._kafka.process, "redis": self._server.process}
        drain, before = Drain(bootstrap=self._kafka.bootstrap, group=group, servers=servers), self._read_redis_bytes()
        ends = KafkaLog(bootstrap=self._kafka.bootstrap).end_offsets(read)
        drain_result = drain.run([child], ends, stop_after_s=NAIVE_S if contender == "naive" else math.inf)
        results.drains[contender].append(drain_result)
        self._report(
            f"{workload.name}, {contender}: {summarize_spread(drain_result.speeds)} events/s, {drain_result.cpu_us_per_event('self'):.1f} us of CPU"
        )
        if contender != "naive":
            self._record_bytes(environment, workload, contender, before)
        if contender == "ours":
            results.config = self._make_config(environment, workload, round(drain_result.events / count_batches(child)))

    def _record_bytes(
        self, environment: BenchEnvironment, workload: Workload, contender: str, before: tuple[int, int]
    ) -> None:
        results, after, written = self.results[workload.name], self._read_redis_bytes(), environment.count_written()
        events, out = results.drains[contender][-1].events, sum(size for _, size in written.values())
        # A click has a row of its own, an order only where it is decided: what else is logged are lists.
        results.lists[contender] = (
            written["scored"][0] - round(events * workload.click_share) if workload.lane == "browsing" else 0
        )
        redis = ((now - then) / events for now, then in zip(after, before, strict=True))
        results.bytes_moved[contender].append(BytesPerEvent(measure_event_bytes(workload), out / events, *redis))

    def _read_redis_bytes(self) -> tuple[int, int]:
        return read_redis_bytes(self._server.port)

    def _create_environment(self, workload: Workload) -> BenchEnvironment:
        prefix = f"run{next(self._numbers)}."
        return BenchEnvironment(
            kafka=self._kafka,
            redis=self._server,
            folder=self._folder,
            prefix=prefix,
            load_prefix=f"{workload.name}.",
            shared_kinds=workload.kinds,
            overrides=LARGE_BATCHES,
        )

    def _create_process(self, bench_environment: BenchEnvironment, workload: Workload, contender: str) -> ChildProcess:
        log, variables = self._folder / f"{bench_environment.prefix}{contender}.log", bench_environment.env_variables()
        if contender == "ours":
            return ChildProcess(
                command=bench_environment.worker_command(workload.lane), output=log, environment=variables
            )
        config, path = self.results[workload.name].config, self._folder / f"{bench_environment.prefix}{contender}.plan"
        assert config is not None
        written = {kind: bench_environment.topics.topic_name(kind) for kind in ("scored", "decisions")}
        own_config = msgspec.structs.replace(
            config, group=bench_environment.prefix + contender, prefix=bench_environment.redis_prefix, written=written
        )
        path.write_bytes(msgspec.msgpack.encode(own_config))
        return ChildProcess(
            command=[sys.executable, "-m", BASELINE_MODULES[contender], str(path)], output=log, environment=variables
        )

    def _make_config(self, environment: BenchEnvironment, workload: Workload, batch: int) -> BareConfig:
        """What the bare loop is told, after ours: batches as large, lists as many, as many bytes as in that round."""
        results = self.results[workload.name]
        lists = results.lists["ours"] / results.drains["ours"][-1].events
        if results.config:
            shortfalls = zip(
                results.bytes_moved["ours"][-2].redis,
                results.bytes_moved["bare"][-1].redis,
                results.config.padding,
                strict=True,
            )
            padding = tuple(max(ours - bare + already, 0.0) for ours, bare, already in shortfalls)
            return msgspec.structs.replace(results.config, batch_max=batch, lists_per_event=lists, padding=padding)
        return BareConfig(
            bootstrap=self._kafka.bootstrap,
            redis_port=self._server.port,
            group="",
            topics={environment.topics.topic_name(kind): kind for kind in workload.kinds if kind != "products"},
            prefix="",
            bundles=str(self._folder / "bundles"),
            batch_max=batch,
            graphs=workload.graphs,
            answers=AnswerRecorder(environment).read_answers(decides=workload.lane == "orders"),
            lists_per_event=lists,
        )


def count_batches(worker: ChildProcess) -> int:
    """In how many batches a worker has done its work, as its profile says."""
    counts = re.findall(r"records in ([\d,]+) batches", worker.tail(20_000))
    return int(counts[-1].replace(",", ""))


def measure_event_bytes(workload: Workload) -> float:
    """Bytes of an event as it lies on its topic, its key among them."""
    records = workload.generate(LoadGenerator(1, time.time_ns() // 1_000_000), SIZE_SAMPLE)
    return sum(len(record.key) + len(record.value) for record in records) / SIZE_SAMPLE
