"""Swapping: bundles are pointed to in turn while events flow, and what came out is looked at batch by batch.

A batch is what one transaction has written. It is mixed where its scored rows name two models. A pause is the longest
time between two batches of a lane while a bundle was opened and taken up; after each swap as long a time without any is
looked at in the same way, so that what the machine does besides shows in both.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
import numpy as np
import psutil

from bench.kafka_log import KafkaLog
from bench.load import Load, produce, products
from bench.log_segments import Written, read_transactions
from bench.pump import Pump
from bench.track import Track
from contract.bundle import set_current
from contract.messages import ScoredRow, read_decision, read_scored_row
from demo.health_probe import HealthProbe
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess, find_free_ports

RATE: Final = 120.0  # events a second, every third an order
ORDERS_EVERY: Final = 3
POLL_MS: Final = 20  # how often workers look at the pointer
LOOK_S: Final = 0.005
READY_S: Final = 120.0
TAKEN_S: Final = 60.0
LANES: Final = ("orders", "browsing")
SERVING: Final = b"Serving model "


class Window(NamedTuple):
    """Milliseconds since 1970: a bundle was pointed to, or nothing happened; and both lanes served it."""

    begin_ms: float
    end_ms: float


class Swapped(msgspec.Struct, frozen=True, kw_only=True):
    """What swapping has shown; `pause_ms` is the difference of the two after it, quantile by quantile."""

    swaps: int
    events: int
    lost: int
    contradicting: int
    batches: int
    mixed_batches: int
    pause_ms: dict[str, float]
    swap_gap_ms: dict[str, float]
    quiet_gap_ms: dict[str, float]
    swap_ms: dict[str, float]  # from the pointer's move until both lanes serve the bundle
    rss_mb: list[float]
    seconds: float


@dataclass(slots=True)
class Listening:
    """How often a worker has said that it serves a bundle, by what it wrote to its log."""

    child: ChildProcess
    taken: int = 0
    _at: int = 0

    def look(self) -> int:
        with self.child.output.open("rb") as log:
            log.seek(self._at)
            whole, _, _ = log.read().rpartition(b"\n")
        self._at += len(whole)
        self.taken += whole.count(SERVING)
        return self.taken


class Swapping:
    """Both lanes' workers under a steady load."""

    def __init__(self, *, kafka: ApacheKafka, track: Track, versions: Sequence[str], seed: int) -> None:
        self._kafka, self._track, self._versions, self._seed = kafka, track, versions, seed
        self._folder = track.folder / "bundles"
        topics = track.topics
        kafka.create_topics({topics.scored: 1})  # one partition: a transaction lies in one row
        track.create_topics()
        produce(kafka.bootstrap, {"products": topics.products}, products(time.time_ns() // 1_000_000))

    def run(self, swaps: int, warm_s: float, told: Callable[[str], None]) -> Swapped:
        """So many swaps; raises RuntimeError where a worker ends or does not take a bundle up."""
        began_s = time.monotonic()
        set_current(self._folder, self._versions[0])
        pump = Pump(
            bootstrap=self._kafka.bootstrap,
            topics=self._track.topics,
            load=Load(self._seed, None),
            rate=RATE,
            orders_every=ORDERS_EVERY,
        )
        with ExitStack() as stack:
            heard = [self._worker(lane, stack) for lane in LANES]
            with pump:
                time.sleep(warm_s)
                self._turn(heard, 1)  # what a first swap needs for ever is no leak
                self._turn(heard, 0)
                begin_mb = rss_mb(heard)
                moves, quiet = list[Window](), list[Window]()
                for number in range(1, swaps + 1):
                    moves.append(self._turn(heard, number))
                    quiet.append(self._rest(moves[-1]))
                    if number % 20 == 0:
                        told(f"{number} swaps, {rss_mb(heard)} MB")
            end_mb = rss_mb(heard)
            self._wait_drained()
            for one in heard:
                if status := one.child.stop(timeout_s=60):
                    raise RuntimeError(f"A worker should end with 0. Found {status}:\n{one.child.tail()}")
        grown = int(np.argmax(np.array(end_mb) - np.array(begin_mb)))
        return self._judge(pump, moves, quiet, [begin_mb[grown], end_mb[grown]], began_s)

    def _worker(self, lane: str, stack: ExitStack) -> Listening:
        (port,) = find_free_ports(1)
        told = {**self._track.environment(), "SHOPSTREAM_WORKER__HTTP_PORT": str(port)}
        output = self._track.folder / f"{self._track.prefix}{lane}.log"
        child = ChildProcess(command=self._track.command(lane), output=output, environment=told)
        child.start()
        stack.callback(child.stop)
        child.wait_until(HealthProbe(port).is_ready, timeout_s=READY_S)
        return Listening(child)

    def _turn(self, heard: Sequence[Listening], number: int) -> Window:
        """Point to the next bundle, and wait until both lanes serve it."""
        before = [one.look() for one in heard]
        begin_ms, deadline = time.time() * 1000, time.monotonic() + TAKEN_S
        set_current(self._folder, self._versions[number % len(self._versions)])
        while any(one.look() == had for one, had in zip(heard, before, strict=True)):
            for one in heard:
                if not one.child.is_running or time.monotonic() > deadline:
                    raise RuntimeError(f"A bundle should serve in {TAKEN_S:g} s. Found:\n{one.child.tail()}")
            time.sleep(LOOK_S)
        return Window(begin_ms, time.time() * 1000)

    def _rest(self, move: Window) -> Window:
        """As long a time in which nothing is swapped."""
        begin_ms = time.time() * 1000
        time.sleep((move.end_ms - move.begin_ms) / 1000)
        return Window(begin_ms, time.time() * 1000)

    def _wait_drained(self) -> None:
        log, deadline = KafkaLog(bootstrap=self._kafka.bootstrap), time.monotonic() + TAKEN_S
        for lane, kind in zip(LANES, ("orders", "clicks"), strict=True):
            ends = log.ends([self._track.topics.topic_name(kind)])
            while any(at < ends[p] for p, at in log.committed(self._track.group(lane), ends).items()):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"All {kind} should be answered in {TAKEN_S:g} s. Found some that are not.")
                time.sleep(0.1)

    def _judge(
        self, pump: Pump, moves: Sequence[Window], quiet: Sequence[Window], rss: list[float], began_s: float
    ) -> Swapped:
        log, topics = KafkaLog(bootstrap=self._kafka.bootstrap), self._track.topics
        rows = {one.place.offset: read_scored_row(one.value or b"") for one in log.read(topics.scored)}
        decided = [read_decision(one.value or b"") for one in log.read(topics.decisions)]
        batches = [Batch.of(one, rows) for one in read_transactions(self._kafka.log_folder, topics.scored)]
        batches = [one for one in batches if one.lane]
        seen = Counter(row.event_id for row in rows.values() if row.kind in ("order", "click"))
        decisions = {one.event_id: one.model_version for one in decided}
        sent = {*pump.orders, *pump.clicks}
        lost = len(sent - seen.keys()) + len(pump.orders.keys() - decisions.keys())
        rows_differ = [r for r in rows.values() if r.kind == "order" and decisions[r.event_id] != r.model_version]
        swap_ms, quiet_ms = (spread(longest_gaps(batches, windows)) for windows in (moves, quiet))
        return Swapped(
            swaps=len(moves),
            events=len(sent),
            lost=lost,
            contradicting=len(rows_differ) + sum(count > 1 for count in seen.values()),
            batches=len(batches),
            mixed_batches=sum(len(one.versions) > 1 for one in batches),
            pause_ms={name: round(of - quiet_ms[name], 1) for name, of in swap_ms.items()},
            swap_gap_ms=swap_ms,
            quiet_gap_ms=quiet_ms,
            swap_ms=spread([one.end_ms - one.begin_ms for one in moves]),
            rss_mb=rss,
            seconds=round(time.monotonic() - began_s, 1),
        )


class Batch(NamedTuple):
    """What one transaction said: of which lane it is (empty: it holds no row), when it was sent, by which models."""

    lane: str
    at_ms: int
    versions: frozenset[str]

    @classmethod
    def of(cls, written: Written, rows: dict[int, ScoredRow]) -> "Batch":
        own = [rows[offset] for offset in written.offsets if offset in rows]
        kinds = {row.kind for row in own}
        lane = "" if not own else "orders" if "order" in kinds else "browsing"
        return cls(lane, written.at_ms, frozenset(row.model_version for row in own))


def longest_gaps(batches: Sequence[Batch], windows: Sequence[Window]) -> list[float]:
    """For each window the longest time between two batches of one lane, of those that begin in it."""
    found = np.zeros(len(windows))
    for lane in LANES:
        at = np.sort(np.array([one.at_ms for one in batches if one.lane == lane], np.float64))
        gaps = np.diff(at)
        for number, window in enumerate(windows):
            first, last = np.searchsorted(at, window).tolist()
            found[number] = max(found[number], gaps[first:last].max(initial=0.0))
    return found.tolist()


def quantile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def spread(values: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": round(quantile(values, percent), 1) for percent in (50, 99)}


def rss_mb(heard: Sequence[Listening]) -> list[float]:
    """What is resident of each worker."""
    return [round(psutil.Process(one.child.pid).memory_info().rss / 1e6, 1) for one in heard]
