"""The contenders of the throughput bench: our worker, the bare loop and the naive loop, each in a process."""

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
from bench.performance.load.workload import (
    EVENTS_PER_S,
    LoadGenerator,
    Workload,
    generate_products,
    produce,
    publish_bundle,
)
from bench.performance.measure.drain import Drain, DrainResult
from bench.performance.measure.environment import LARGE_BATCHES, BenchEnvironment, read_redis_bytes
from bench.results.statistics import min_median_max
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.environment.kafka_log import KafkaLog

CONTENDERS: Final = ("ours", "bare", "naive")
BASELINE_MODULES: Final = {
    "bare": "bench.performance.baselines.bare",
    "naive": "bench.performance.baselines.naive",
}
NAIVE_S: Final = 12.0  # after which the naive loop is stopped


WORKLOADS: Final = (
    Workload("orders", "orders", 0.0, 100_000),
    Workload("clicks", "browsing", 1.0, 180_000),
    Workload("mixed", "browsing", 0.95, 120_000),
)


class BytesPerEvent(NamedTuple):
    """Bytes per event: read from and written to Kafka (keys and values), sent to and read from Redis."""

    kafka_in: float
    kafka_out: float
    redis_in: float
    redis_out: float

    @property
    def redis(self) -> tuple[float, float]:
        return self.redis_in, self.redis_out


class LoadResults:
    """Results of all runs on one load: drains, bytes and lists by contender."""

    def __init__(self) -> None:
        self.drains: dict[str, list[DrainResult]] = defaultdict(list)
        self.bytes_moved: dict[str, list[BytesPerEvent]] = defaultdict(list)
        self.lists: dict[str, int] = {}
        self.config: BareConfig | None = None


class Contenders:
    """Runs each contender on each load, on one broker and one Redis."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path, report: Callable[[str], None]) -> None:
        self._kafka = kafka
        self._server = server
        self._folder = folder
        self._report = report
        self._numbers = count()
        self.results: dict[str, LoadResults] = {lane.name: LoadResults() for lane in WORKLOADS}

    def prepare(self, seed: int, scale: float) -> None:
        """Publish a bundle and produce every load."""
        publish_bundle(self._folder / "bundles", seed)
        for workload in WORKLOADS:
            environment, events = self._create_environment(workload), int(workload.events * scale)
            now_ms = time.time_ns() // 1_000_000
            environment.create_topics()
            topics = {kind: environment.topics.topic_name(kind) for kind in workload.kinds}
            if "products" in topics:
                produce(self._kafka.bootstrap, topics, generate_products(now_ms))
            records = workload.generate(LoadGenerator(seed, now_ms - events * 1000 // EVENTS_PER_S), events)
            self._report(f"{workload.name}: {produce(self._kafka.bootstrap, topics, records)}")

    def run(self, workload: Workload, contender: str) -> None:
        """Run a contender on a load; the bare loop repeats the answers of ours, which should have run before."""
        environment, results = self._create_environment(workload), self.results[workload.name]
        environment.create_topics()
        self._server.flush()
        read = [environment.topics.topic_name(kind) for kind in workload.kinds if kind != "products"]
        child = self._create_process(environment, workload, contender)
        group = environment.group_id(workload.lane) if contender == "ours" else environment.prefix + contender
        servers = {"kafka": self._kafka.process, "redis": self._server.process}
        drain = Drain(bootstrap=self._kafka.bootstrap, group=group, servers=servers)
        before = read_redis_bytes(self._server.port)
        ends = KafkaLog(bootstrap=self._kafka.bootstrap).read_end_offsets(read)
        drain_result = drain.run([child], ends, stop_after_s=NAIVE_S if contender == "naive" else math.inf)
        results.drains[contender].append(drain_result)
        speeds, cpu_us = min_median_max(drain_result.speeds), drain_result.cpu_us_per_event("self")
        self._report(f"{workload.name}, {contender}: {speeds} events/s, {cpu_us:.1f} us of CPU per event")
        if contender != "naive":
            self._record_bytes(environment, workload, contender, before)
        if contender == "ours":
            results.config = self._make_config(environment, workload, round(drain_result.events / count_batches(child)))

    def _record_bytes(
        self, environment: BenchEnvironment, workload: Workload, contender: str, before: tuple[int, int]
    ) -> None:
        results, written = self.results[workload.name], environment.count_written()
        after = read_redis_bytes(self._server.port)
        events = results.drains[contender][-1].events
        bytes_out = sum(size for _, size in written.values())
        # In the browsing lane each click has one scored row; all other rows are of lists.
        rows_of_clicks = round(events * workload.click_share)
        results.lists[contender] = written["scored"][0] - rows_of_clicks if workload.lane == "browsing" else 0
        redis = ((now - then) / events for now, then in zip(after, before, strict=True))
        results.bytes_moved[contender].append(BytesPerEvent(workload.measure_event_bytes(), bytes_out / events, *redis))

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

    def _create_process(self, environment: BenchEnvironment, workload: Workload, contender: str) -> ChildProcess:
        log, variables = self._folder / f"{environment.prefix}{contender}.log", environment.env_variables()
        if contender == "ours":
            return ChildProcess(command=environment.worker_command(workload.lane), output=log, environment=variables)
        config, path = self.results[workload.name].config, self._folder / f"{environment.prefix}{contender}.config"
        assert config is not None
        written = {kind: environment.topics.topic_name(kind) for kind in ("scored", "decisions")}
        own_config = msgspec.structs.replace(
            config, group=environment.prefix + contender, prefix=environment.redis_prefix, written=written
        )
        path.write_bytes(msgspec.msgpack.encode(own_config))
        return ChildProcess(
            command=[sys.executable, "-m", BASELINE_MODULES[contender], str(path)], output=log, environment=variables
        )

    def _make_config(self, environment: BenchEnvironment, workload: Workload, batch: int) -> BareConfig:
        """The bare loop's configuration after a run of ours: the same batch size, lists and bytes per event."""
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
    """The number of batches, from the worker's profiler output."""
    counts = re.findall(r"records in ([\d,]+) batches", worker.tail(20_000))
    return int(counts[-1].replace(",", ""))
