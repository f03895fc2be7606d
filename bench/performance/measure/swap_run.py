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

from bench.performance.load.rate_producer import RateProducer
from bench.performance.load.workload import LoadGenerator, generate_products, produce
from bench.performance.measure.environment import BenchEnvironment
from bench.performance.measure.kafka_segments import Transaction, read_transactions
from contract.bundle import set_current
from contract.messages import ScoredRow, read_decision, read_scored_row
from demo.health_probe import HealthProbe
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess, find_free_ports
from testkit.environment.kafka_log import KafkaLog

RATE: Final = 120.0  # events a second, every third an order
ORDERS_EVERY: Final = 3
POLL_MS: Final = 20  # how often workers look at the pointer
LOG_POLL_S: Final = 0.005
READY_TIMEOUT_S: Final = 120.0
SWAP_TIMEOUT_S: Final = 60.0
LANES: Final = ("orders", "browsing")
SERVING_LINE: Final = b"Serving model "


class TimeWindow(NamedTuple):
    """Milliseconds since 1970: a bundle was pointed to, or nothing happened; and both lanes served it."""

    begin_ms: float
    end_ms: float


class SwapResult(msgspec.Struct, frozen=True, kw_only=True):
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
class ServingLogReader:
    """How often a worker has said that it serves a bundle, by what it wrote to its log."""

    child: ChildProcess
    serving_count: int = 0
    _offset: int = 0

    def count_served(self) -> int:
        with self.child.output.open("rb") as log:
            log.seek(self._offset)
            complete_lines, _, _ = log.read().rpartition(b"\n")
        self._offset += len(complete_lines)
        self.serving_count += complete_lines.count(SERVING_LINE)
        return self.serving_count


class SwapRun:
    """Both lanes' workers under a steady load."""

    def __init__(
        self, *, kafka: ApacheKafka, environment: BenchEnvironment, versions: Sequence[str], seed: int
    ) -> None:
        self._kafka, self._environment, self._versions, self._seed = kafka, environment, versions, seed
        self._folder = environment.folder / "bundles"
        topics = environment.topics
        kafka.create_topics({topics.scored: 1})  # one partition: a transaction lies in one row
        environment.create_topics()
        produce(kafka.bootstrap, {"products": topics.products}, generate_products(time.time_ns() // 1_000_000))

    def run(self, swaps: int, warm_s: float, report: Callable[[str], None]) -> SwapResult:
        """So many swaps; raises RuntimeError where a worker ends or does not take a bundle up."""
        started_s = time.monotonic()
        set_current(self._folder, self._versions[0])
        producer = RateProducer(
            bootstrap=self._kafka.bootstrap,
            topics=self._environment.topics,
            load=LoadGenerator(self._seed, None),
            rate=RATE,
            orders_every=ORDERS_EVERY,
        )
        with ExitStack() as stack:
            readers = [self._start_worker(lane, stack) for lane in LANES]
            with producer:
                time.sleep(warm_s)
                self._swap(readers, 1)  # what a first swap needs for ever is no leak
                self._swap(readers, 0)
                begin_mb = read_rss_mb(readers)
                moves, quiet = list[TimeWindow](), list[TimeWindow]()
                for number in range(1, swaps + 1):
                    moves.append(self._swap(readers, number))
                    quiet.append(self._wait_without_swap(moves[-1]))
                    if number % 20 == 0:
                        report(f"{number} swaps, {read_rss_mb(readers)} MB")
            end_mb = read_rss_mb(readers)
            self._wait_until_drained()
            for reader in readers:
                if status := reader.child.stop(timeout_s=60):
                    raise RuntimeError(f"A worker should end with 0. Found {status}:\n{reader.child.tail()}")
        grown_most = int(np.argmax(np.array(end_mb) - np.array(begin_mb)))
        return self._evaluate(producer, moves, quiet, [begin_mb[grown_most], end_mb[grown_most]], started_s)

    def _start_worker(self, lane: str, stack: ExitStack) -> ServingLogReader:
        (port,) = find_free_ports(1)
        variables = {**self._environment.env_variables(), "SHOPSTREAM_WORKER__HTTP_PORT": str(port)}
        output = self._environment.folder / f"{self._environment.prefix}{lane}.log"
        child = ChildProcess(command=self._environment.worker_command(lane), output=output, environment=variables)
        child.start()
        stack.callback(child.stop)
        child.wait_until(HealthProbe(port).is_ready, timeout_s=READY_TIMEOUT_S)
        return ServingLogReader(child)

    def _swap(self, readers: Sequence[ServingLogReader], number: int) -> TimeWindow:
        """Point to the next bundle, and wait until both lanes serve it."""
        counts_before = [reader.count_served() for reader in readers]
        begin_ms, deadline = time.time() * 1000, time.monotonic() + SWAP_TIMEOUT_S
        set_current(self._folder, self._versions[number % len(self._versions)])
        while any(
            reader.count_served() == count_before for reader, count_before in zip(readers, counts_before, strict=True)
        ):
            for reader in readers:
                if not reader.child.is_running or time.monotonic() > deadline:
                    raise RuntimeError(f"A bundle should serve in {SWAP_TIMEOUT_S:g} s. Found:\n{reader.child.tail()}")
            time.sleep(LOG_POLL_S)
        return TimeWindow(begin_ms, time.time() * 1000)

    def _wait_without_swap(self, swap: TimeWindow) -> TimeWindow:
        """As long a time in which nothing is swapped."""
        begin_ms = time.time() * 1000
        time.sleep((swap.end_ms - swap.begin_ms) / 1000)
        return TimeWindow(begin_ms, time.time() * 1000)

    def _wait_until_drained(self) -> None:
        log, deadline = KafkaLog(bootstrap=self._kafka.bootstrap), time.monotonic() + SWAP_TIMEOUT_S
        for lane, kind in zip(LANES, ("orders", "clicks"), strict=True):
            ends = log.end_offsets([self._environment.topics.topic_name(kind)])
            while any(
                offset < ends[partition]
                for partition, offset in log.committed_offsets(self._environment.group_id(lane), ends).items()
            ):
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"All {kind} should be answered in {SWAP_TIMEOUT_S:g} s. Found some that are not."
                    )
                time.sleep(0.1)

    def _evaluate(
        self,
        producer: RateProducer,
        moves: Sequence[TimeWindow],
        quiet: Sequence[TimeWindow],
        rss: list[float],
        started_s: float,
    ) -> SwapResult:
        log, topics = KafkaLog(bootstrap=self._kafka.bootstrap), self._environment.topics
        rows = {one.position.offset: read_scored_row(one.value or b"") for one in log.read(topics.scored)}
        decision_records = [read_decision(one.value or b"") for one in log.read(topics.decisions)]
        batches = [
            PublishedBatch.from_transaction(one, rows)
            for one in read_transactions(self._kafka.log_folder, topics.scored)
        ]
        batches = [one for one in batches if one.lane]
        row_counts = Counter(row.event_id for row in rows.values() if row.kind in ("order", "click"))
        decisions = {one.event_id: one.model_version for one in decision_records}
        sent = {*producer.orders, *producer.clicks}
        lost = len(sent - row_counts.keys()) + len(producer.orders.keys() - decisions.keys())
        rows_differ = [r for r in rows.values() if r.kind == "order" and decisions[r.event_id] != r.model_version]
        swap_ms, quiet_ms = (summarize_quantiles(find_longest_gaps(batches, windows)) for windows in (moves, quiet))
        return SwapResult(
            swaps=len(moves),
            events=len(sent),
            lost=lost,
            contradicting=len(rows_differ) + sum(count > 1 for count in row_counts.values()),
            batches=len(batches),
            mixed_batches=sum(len(one.versions) > 1 for one in batches),
            pause_ms={name: round(gap_ms - quiet_ms[name], 1) for name, gap_ms in swap_ms.items()},
            swap_gap_ms=swap_ms,
            quiet_gap_ms=quiet_ms,
            swap_ms=summarize_quantiles([one.end_ms - one.begin_ms for one in moves]),
            rss_mb=rss,
            seconds=round(time.monotonic() - started_s, 1),
        )


class PublishedBatch(NamedTuple):
    """What one transaction said: of which lane it is (empty: it holds no row), when it was sent, by which models."""

    lane: str
    at_ms: int
    versions: frozenset[str]

    @classmethod
    def from_transaction(cls, transaction: Transaction, rows: dict[int, ScoredRow]) -> "PublishedBatch":
        batch_rows = [rows[offset] for offset in transaction.offsets if offset in rows]
        kinds = {row.kind for row in batch_rows}
        lane = "" if not batch_rows else "orders" if "order" in kinds else "browsing"
        return cls(lane, transaction.last_ms, frozenset(row.model_version for row in batch_rows))


def find_longest_gaps(batches: Sequence[PublishedBatch], windows: Sequence[TimeWindow]) -> list[float]:
    """For each window the longest time between two batches of one lane, of those that begin in it."""
    longest = np.zeros(len(windows))
    for lane in LANES:
        times = np.sort(np.array([batch.at_ms for batch in batches if batch.lane == lane], np.float64))
        gaps = np.diff(times)
        for number, window in enumerate(windows):
            first, last = np.searchsorted(times, window).tolist()
            longest[number] = max(longest[number], gaps[first:last].max(initial=0.0))
    return longest.tolist()


def compute_quantile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def summarize_quantiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": round(compute_quantile(values, percent), 1) for percent in (50, 99)}


def read_rss_mb(readers: Sequence[ServingLogReader]) -> list[float]:
    """What is resident of each worker."""
    return [round(psutil.Process(reader.child.pid).memory_info().rss / 1e6, 1) for reader in readers]
