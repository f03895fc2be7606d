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

from bench.bare import Plan
from bench.copies import Copier
from bench.drain import Drain, Drained, spread
from bench.kafka_log import KafkaLog
from bench.load import Load, Recorded, produce, products, publish_bundle
from bench.track import Track, redis_bytes
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer

WAYS: Final = ("ours", "bare", "naive")
NAIVE_S: Final = 12.0
BATCH_MAX: Final = 4_000
TOLD: Final = {
    "SHOPSTREAM_WORKER__BATCH_MAX": str(BATCH_MAX),
    "SHOPSTREAM_WORKER__LATENCY_MS": "200",
    "SHOPSTREAM_LISTS__BATCH_MAX": "110",
}
SIZED: Final = 1_000  # records that an event's size is taken from


class Lane(NamedTuple):
    """A load of so many events, a share of them clicks, worked off by a worker of that lane."""

    name: str
    worker: str
    clicks: float
    events: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """What lies on its topics."""
        return ("orders",) if not self.clicks else ("clicks", "products") + (("orders",) if self.clicks < 1 else ())

    @property
    def graphs(self) -> dict[str, str]:
        """Which graph answers which kind."""
        return {"orders": "decide"} if self.worker == "orders" else {"clicks": "recommend"}

    def records(self, load: Load, events: int) -> list[Recorded]:
        clicks = round(events * self.clicks)
        return list(load.records(clicks, events - clicks))


LANES: Final = (
    Lane("orders", "orders", 0.0, 100_000),
    Lane("clicks", "browsing", 1.0, 180_000),
    Lane("mixed", "browsing", 0.95, 120_000),
)


class Moved(NamedTuple):
    """Bytes for each event: read from and written to Kafka (keys and values), sent to and got from Redis."""

    kafka_in: float
    kafka_out: float
    redis_in: float
    redis_out: float

    @property
    def redis(self) -> tuple[float, float]:
        return self.redis_in, self.redis_out


class Runs:
    """All runs of one load: what they have shown, and what each has moved."""

    def __init__(self) -> None:
        self.drained: dict[str, list[Drained]] = defaultdict(list)
        self.moved: dict[str, list[Moved]] = defaultdict(list)
        self.lists: dict[str, int] = {}
        self.plan: Plan | None = None


class Ways:
    """Runs each way over each load, on one broker and one Redis."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path, told: Callable[[str], None]) -> None:
        self._kafka, self._server, self._folder, self._told = kafka, server, folder, told
        self._numbers = count()
        self.runs: dict[str, Runs] = {lane.name: Runs() for lane in LANES}

    def prepare(self, seed: int, scale: float) -> None:
        """A bundle, and every load on its topics."""
        publish_bundle(self._folder / "bundles", seed)
        for lane in LANES:
            track, now_ms, events = self._track(lane), time.time_ns() // 1_000_000, int(lane.events * scale)
            track.create_topics()
            topics = {kind: track.topics.topic_name(kind) for kind in lane.kinds}
            if "products" in topics:
                produce(self._kafka.bootstrap, topics, products(now_ms))
            records = lane.records(Load(seed, now_ms - events // 15), events)
            self._told(f"{lane.name}: {produce(self._kafka.bootstrap, topics, records)}")

    def run(self, lane: Lane, way: str) -> None:
        """One way over one load; the bare loop needs ours before it, whose answers it copies."""
        track, runs = self._track(lane), self.runs[lane.name]
        track.create_topics()
        self._server.flush()
        read = [track.topics.topic_name(kind) for kind in lane.kinds if kind != "products"]
        child, group = self._child(track, lane, way), track.group(lane.worker) if way == "ours" else track.prefix + way
        beside = {"kafka": self._kafka.process, "redis": self._server.process}
        drain, before = Drain(bootstrap=self._kafka.bootstrap, group=group, beside=beside), self._redis_bytes()
        ends = KafkaLog(bootstrap=self._kafka.bootstrap).ends(read)
        drained = drain.run([child], ends, enough=NAIVE_S if way == "naive" else math.inf)
        runs.drained[way].append(drained)
        self._told(f"{lane.name}, {way}: {spread(drained.speeds)} events/s, {drained.cpu_us('self'):.1f} us of CPU")
        if way != "naive":
            self._note_moved(track, lane, way, before)
        if way == "ours":
            runs.plan = self._plan(track, lane, round(drained.events / batches(child)))

    def _note_moved(self, track: Track, lane: Lane, way: str, before: tuple[int, int]) -> None:
        runs, after, written = self.runs[lane.name], self._redis_bytes(), track.written()
        events, out = runs.drained[way][-1].events, sum(size for _, size in written.values())
        # A click has a row of its own, an order only where it is decided: what else is logged are lists.
        runs.lists[way] = written["scored"][0] - round(events * lane.clicks) if lane.worker == "browsing" else 0
        redis = ((now - then) / events for now, then in zip(after, before, strict=True))
        runs.moved[way].append(Moved(sized(lane), out / events, *redis))

    def _redis_bytes(self) -> tuple[int, int]:
        return redis_bytes(self._server.port)

    def _track(self, lane: Lane) -> Track:
        prefix = f"run{next(self._numbers)}."
        return Track(
            kafka=self._kafka,
            redis=self._server,
            folder=self._folder,
            prefix=prefix,
            load=f"{lane.name}.",
            shared=lane.kinds,
            told=TOLD,
        )

    def _child(self, track: Track, lane: Lane, way: str) -> ChildProcess:
        log, environment = self._folder / f"{track.prefix}{way}.log", track.environment()
        if way == "ours":
            return ChildProcess(command=track.command(lane.worker), output=log, environment=environment)
        plan, path = self.runs[lane.name].plan, self._folder / f"{track.prefix}{way}.plan"
        assert plan is not None
        written = {kind: track.topics.topic_name(kind) for kind in ("scored", "decisions")}
        own = msgspec.structs.replace(plan, group=track.prefix + way, prefix=track.redis_prefix, written=written)
        path.write_bytes(msgspec.msgpack.encode(own))
        return ChildProcess(
            command=[sys.executable, "-m", f"bench.{way}", str(path)], output=log, environment=environment
        )

    def _plan(self, track: Track, lane: Lane, batch: int) -> Plan:
        """What the bare loop is told, after ours: batches as large, lists as many, as many bytes as in that round."""
        runs = self.runs[lane.name]
        lists = runs.lists["ours"] / runs.drained["ours"][-1].events
        if runs.plan:
            short = zip(runs.moved["ours"][-2].redis, runs.moved["bare"][-1].redis, runs.plan.padding, strict=True)
            padding = tuple(max(ours - bare + already, 0.0) for ours, bare, already in short)
            return msgspec.structs.replace(runs.plan, batch_max=batch, lists_per_event=lists, padding=padding)
        return Plan(
            bootstrap=self._kafka.bootstrap,
            redis_port=self._server.port,
            group="",
            topics={track.topics.topic_name(kind): kind for kind in lane.kinds if kind != "products"},
            prefix="",
            bundles=str(self._folder / "bundles"),
            batch_max=batch,
            graphs=lane.graphs,
            answers=Copier(track).answers(decides=lane.worker == "orders"),
            lists_per_event=lists,
        )


def batches(worker: ChildProcess) -> int:
    """In how many batches a worker has done its work, as its profile says."""
    found = re.findall(r"records in ([\d,]+) batches", worker.tail(20_000))
    return int(found[-1].replace(",", ""))


def sized(lane: Lane) -> float:
    """Bytes of an event as it lies on its topic, its key among them."""
    records = lane.records(Load(1, time.time_ns() // 1_000_000), SIZED)
    return sum(len(one.key) + len(one.value) for one in records) / SIZED
