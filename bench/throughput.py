"""`python -m bench throughput`: events a second of one worker process, and their CPU, beside a bare and a naive loop.

Each load lies on its topics of an Apache Kafka before a process starts; then it is worked off, ours and the bare loop in
turn, round by round. Figures are taken once a process is warm: events a second over spans of a second (minimum, median,
maximum of all rounds), microseconds of CPU of the process for each event, and beside it those of Kafka and Redis, which
use the same cores. `bare` (bench/bare.py) moves as many bytes, runs the same graphs over as many rows and does nothing
else; `naive` (bench/naive.py) is the loop of tutorials, flushing and committing each record. Ours runs as anybody runs it, with
transactions, but for batches of up to 200 ms, since nobody waits for a backlog's first event.
"""

import argparse
import itertools
import json
import math
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import redis

from bench.bare import Answer, Plan
from bench.drain import Drain, Drained, spread
from bench.kafka_log import KafkaLog
from bench.load import Load, produce, products, publish_bundle
from bench.track import Moved, Track, redis_bytes
from contract.rows import read_scored
from demo.servers.apache_kafka import ApacheKafka
from demo.servers.child import Child
from demo.servers.redis_server import RedisServer

BARE_MAX, NAIVE_MIN, APART_MAX, WORSE_MAX = 1.6, 12.0, 0.05, 0.10
LEAST: Final = {"clicks": 15_000, "orders": 8_000}
LISTS_MIN: Final = 500
COPIES: Final = 500  # real answers that the bare loop goes round in
NAIVE_S: Final = 12.0
BATCH_MAX: Final = 4_000
TOLD: Final = {
    "SHOPSTREAM_WORKER__BATCH_MAX": str(BATCH_MAX),
    "SHOPSTREAM_WORKER__LATENCY_MS": "200",
    "SHOPSTREAM_LISTS__BATCH_MAX": "120",
}


class Lane(NamedTuple):
    """A load: clicks and orders of so many events, worked off by a worker of that lane."""

    name: str
    worker: str
    clicks: float
    kinds: tuple[str, ...]
    events: int


LANES: Final = (
    Lane("orders", "orders", 0.0, ("orders",), 100_000),
    Lane("clicks", "browsing", 1.0, ("clicks", "products"), 180_000),
    Lane("mixed", "browsing", 0.95, ("clicks", "orders", "products"), 120_000),
)


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


class Runs:
    """All runs of one load, and what they moved."""

    def __init__(self) -> None:
        self.drained: dict[str, list[Drained]] = defaultdict(list)
        self.moved: dict[str, Moved] = {}
        self.lists: dict[str, int] = {}  # in the first run

    def row(self, name: str) -> Row:
        runs = self.drained[name]
        first = runs[0]
        return Row(
            events_per_second=spread([speed for run in runs for speed in run.speeds]),
            cpu_us_per_event=round(min(run.cpu_us("self") for run in runs), 1),
            rss_mb=round(max(run.rss_mb for run in runs), 1),
            kafka_us_per_event=round(min(run.cpu_us("kafka") for run in runs), 1),
            redis_us_per_event=round(min(run.cpu_us("redis") for run in runs), 1),
            lists_per_second=round(self.lists.get(name, 0) / first.events * spread(first.speeds)[1], 1),
            moved={door: round(of, 1) for door, of in self.moved[name]._asdict().items()} if name in self.moved else {},
        )


class Throughput:
    """Loads, and ways to work them off."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path, told: Callable[[str], None]) -> None:
        self._kafka, self._server, self._folder, self._told = kafka, server, folder, told
        self._numbers = itertools.count()
        self._runs: dict[str, Runs] = {lane.name: Runs() for lane in LANES}
        self._plans: dict[str, Plan] = {}

    def prepare(self, seed: int, scale: float) -> None:
        """A bundle, and every load on its topics."""
        publish_bundle(self._folder / "bundles", seed)
        for lane in LANES:
            track, now_ms, events = self._track(lane), time.time_ns() // 1_000_000, int(lane.events * scale)
            track.create_topics()
            topics = {kind: track.topics.of(kind) for kind in lane.kinds}
            clicks = round(lane.clicks * events)
            records = Load(seed, now_ms - events // 15).records(clicks, events - clicks)
            if "products" in topics:
                produce(self._kafka.bootstrap, topics, products(now_ms))
            self._told(f"{lane.name}: {produce(self._kafka.bootstrap, topics, records)}")

    def round(self) -> None:
        """Each load once by ours and once by the bare loop."""
        for lane in LANES:
            self._run(lane, "ours")
            self._run(lane, "bare")

    def naive(self) -> None:
        """The naive loop works off a part of each load."""
        for lane in LANES:
            self._run(lane, "naive", enough=NAIVE_S)

    def figures(self) -> Figures:
        rows = {f"{way}_{lane.name}": self._runs[lane.name].row(way) for way in WAYS for lane in LANES}
        names = [lane.name for lane in LANES]
        to_bare = {n: rows[f"ours_{n}"].cpu_us_per_event / rows[f"bare_{n}"].cpu_us_per_event for n in names}
        to_naive = {n: rows[f"ours_{n}"].events_per_second[1] / rows[f"naive_{n}"].events_per_second[1] for n in names}
        apart = [
            abs(of / rows[f"ours_{n}"].moved[door] - 1) for n in names for door, of in rows[f"bare_{n}"].moved.items()
        ]
        return Figures(
            rows=rows,
            ours_to_bare_cpu=round(max(to_bare.values()), 2),
            ours_to_naive=round(min(to_naive.values()), 1),
            ours_to_bare_cpu_by_load={name: round(ratio, 2) for name, ratio in to_bare.items()},
            ours_to_naive_by_load={name: round(ratio, 1) for name, ratio in to_naive.items()},
            apart=round(max(apart), 3),
        )

    def _track(self, lane: Lane) -> Track:
        return Track(
            kafka=self._kafka,
            redis=self._server,
            folder=self._folder,
            prefix=f"run{next(self._numbers)}.",
            load=f"{lane.name}.",
            shared=lane.kinds,
            told=TOLD,
        )

    def _run(self, lane: Lane, way: str, enough: float = math.inf) -> None:
        track, runs = self._track(lane), self._runs[lane.name]
        track.create_topics()
        self._server.flush()
        ends = KafkaLog(bootstrap=self._kafka.bootstrap).ends(
            [track.topics.of(k) for k in lane.kinds if k != "products"]
        )
        beside = {"kafka": self._kafka.child, "redis": self._server.child}
        drain = Drain(bootstrap=self._kafka.bootstrap, group=self._group(track, lane, way), beside=beside)
        before = redis_bytes(self._server.port)
        child = self._child(track, lane, way)
        drained = drain.run(child, ends, enough=enough)
        after = redis_bytes(self._server.port)
        runs.drained[way].append(drained)
        self._told(f"{lane.name}, {way}: {spread(drained.speeds)} events/s, {drained.cpu_us('self'):.1f} us of CPU")
        if way not in runs.moved and way != "naive":
            written = track.written()
            lists = (
                written["scored"][0] + written["dead_letters"][0] - drained.events if lane.worker == "browsing" else 0
            )
            runs.lists[way] = lists + (self._orders(ends, lane) if lane.name == "mixed" else 0)
            moved = (after[0] - before[0], after[1] - before[1])
            out = sum(size for _, size in written.values())
            runs.moved[way] = Moved(self._read(lane), out / drained.events, *(m / drained.events for m in moved))
        if way == "ours" and lane.name not in self._plans:
            batch = round(drained.events / batches(child))
            self._plans[lane.name] = self._plan(track, lane, runs.lists[way] / drained.events, batch)

    @staticmethod
    def _orders(ends: dict[tuple[str, int], int], lane: Lane) -> int:
        """Orders are watched by a browsing worker and have no row of their own there."""
        return sum(end for (topic, _), end in ends.items() if topic.endswith("orders"))

    def _read(self, lane: Lane) -> float:
        """Bytes of an event as it lies on its topic."""
        load = Load(1, time.time_ns() // 1_000_000)
        clicks = round(1_000 * lane.clicks)
        return sum(len(r.key) + len(r.value) for r in load.records(clicks, 1_000 - clicks)) / 1_000

    def _group(self, track: Track, lane: Lane, way: str) -> str:
        return track.group(lane.worker) if way == "ours" else f"{track.prefix}{way}"

    def _child(self, track: Track, lane: Lane, way: str) -> Child:
        log = self._folder / f"{track.prefix}{way}.log"
        if way == "ours":
            return Child(command=track.command(lane.worker), output=log, environment=track.environment())
        plan = self._plans[lane.name]
        own = {track.topics.of("scored"): "scored", track.topics.of("decisions"): "decisions"}
        by_kind = {kind: topic for topic, kind in own.items()}
        answers = {
            kind: [Answer([(by_kind[to], value) for to, value in answer.produced], answer.cached) for answer in of]
            for kind, of in plan.answers.items()
        }
        told = msgspec.structs.replace(
            plan, group=self._group(track, lane, way), prefix=track.redis_prefix, answers=answers
        )
        path = self._folder / f"{track.prefix}{way}.plan"
        path.write_bytes(msgspec.msgpack.encode(told))
        return Child(
            command=[sys.executable, "-m", f"bench.{way}", str(path)], output=log, environment=track.environment()
        )

    def _plan(self, track: Track, lane: Lane, lists_per_event: float, batch: int) -> Plan:
        """What the bare loop is told, with copies of what ours has just answered; `produced` by kind of topic."""
        log, answers = KafkaLog(bootstrap=self._kafka.bootstrap), dict[str, list[Answer]]()
        store = redis.Redis(port=self._server.port)
        decisions = itertools.islice(log.read(track.topics.decisions), COPIES) if lane.worker == "orders" else ()
        decided = {json.loads(one.value or b"")["event_id"]: one.value or b"" for one in decisions}
        for one in itertools.islice(log.read(track.topics.scored), 40 * COPIES):
            value = one.value or b""
            scored = read_scored(value)
            kind = {"click": "clicks", "order": "orders", "recommendation": "lists"}[scored.kind]
            if len(of := answers.setdefault(kind, [])) < COPIES:
                produced, cached = [("scored", value)], b""
                if kind == "orders":
                    if scored.event_id not in decided:
                        continue
                    produced.append(("decisions", decided[scored.event_id]))
                    cached = store.get(f"{track.redis_prefix}decision:{scored.event_id}") or b""
                elif kind == "lists":
                    cached = store.get(f"{track.redis_prefix}rec:{scored.user_id}") or b""
                of.append(Answer(produced, cached))
        return Plan(
            bootstrap=self._kafka.bootstrap,
            redis_port=self._server.port,
            group="",
            topics={track.topics.of(kind): kind for kind in lane.kinds if kind != "products"},
            prefix="",
            bundles=str(self._folder / "bundles"),
            batch_max=batch,
            graphs={"orders": "decide"} if lane.worker == "orders" else {"clicks": "recommend"},
            answers=answers,
            lists_per_event=lists_per_event,
        )


WAYS: Final = ("ours", "bare", "naive")


def batches(worker: Child) -> int:
    """In how many batches a worker has done its work, as its profile says."""
    found = re.findall(r"records in ([\d,]+) batches", worker.tail(20_000))
    return int(found[-1].replace(",", ""))


def main(words: Sequence[str]) -> int:
    """Measure on servers of its own; 0, or 1 where the ratio to the bare loop is worse than the one to be kept."""
    arguments = parse(words)
    told = lambda said: print(said, file=sys.stderr, flush=True)  # noqa: E731
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-throughput-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        bench = Throughput(kafka=kafka, server=server, folder=folder, told=told)
        bench.prepare(arguments.seed, arguments.scale)
        for _ in range(arguments.rounds):
            bench.round()
        bench.naive()
    figures = bench.figures()
    for aim in figures.missed:
        told(f"Missed: {aim}.")
    print(msgspec.json.encode(figures).decode() if arguments.json else figures)
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench throughput", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, the last one")
    parser.add_argument("--rounds", type=int, default=3, help="how often each load is worked off by ours and by bare")
    parser.add_argument("--scale", type=float, default=1.0, help="of the loads: 0.1 for a tenth of the events")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(words)
