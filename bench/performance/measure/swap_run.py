"""Swaps bundles in turn while events flow, and examines the outputs batch by batch.

A batch is the output of one transaction. It is mixed if its scored rows name two models. A pause is the longest time
between two batches of a lane while a bundle was loaded and activated. After each swap a window of the same length
without a swap is measured in the same way, so that other load on the machine shows in both.
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
from bench.performance.measure.worker_processes import start_process
from bench.results.statistics import percentiles
from contract.bundle import set_current
from contract.messages import ScoredRow, read_decision, read_scored_row
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from testkit.environment.kafka_log import KafkaLog

RATE: Final = 120.0  # events per second, every third an order
ORDERS_EVERY: Final = 3
POLL_MS: Final = 20  # interval at which workers poll for a new bundle
LOG_POLL_S: Final = 0.005
SWAP_TIMEOUT_S: Final = 60.0
LANES: Final = ("orders", "browsing")
SERVING_LINE: Final = b"Serving model "


class TimeWindow(NamedTuple):
    """From making a bundle current until both lanes serve it, in ms since 1970; or as long without a swap."""

    begin_ms: float
    end_ms: float


class SwapResult(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a run; `pause_ms` is `swap_gap_ms` minus `quiet_gap_ms`, quantile by quantile."""

    swaps: int
    events: int
    lost: int
    contradicting: int
    batches: int
    mixed_batches: int
    pause_ms: dict[str, float]
    swap_gap_ms: dict[str, float]
    quiet_gap_ms: dict[str, float]
    swap_ms: dict[str, float]  # from making the bundle current until both lanes serve it
    rss_mb: list[float]
    seconds: float


@dataclass(slots=True)
class ServingLogReader:
    """Counts in a worker's log how often it has begun to serve a bundle."""

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
    """Swaps bundles under both lanes' workers at a steady load."""

    def __init__(
        self, *, kafka: ApacheKafka, environment: BenchEnvironment, versions: Sequence[str], seed: int
    ) -> None:
        self._kafka = kafka
        self._environment = environment
        self._versions = versions
        self._seed = seed
        self._folder = environment.folder / "bundles"
        topics = environment.topics
        kafka.create_topics({topics.scored: 1})  # one partition holds a whole transaction
        environment.create_topics()
        produce(kafka.bootstrap, {"products": topics.products}, generate_products(time.time_ns() // 1_000_000))

    def run(self, swaps: int, warm_s: float, report: Callable[[str], None]) -> SwapResult:
        """Swap `swaps` times; raises RuntimeError if a worker ends or does not activate a bundle."""
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
                self._swap(readers, 1)  # memory that the first swaps keep is no leak
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
        return ServingLogReader(start_process(stack, self._environment, self._environment.worker_command(lane), lane))

    def _swap(self, readers: Sequence[ServingLogReader], number: int) -> TimeWindow:
        """Make the next bundle current, and wait until both lanes serve it."""
        counts_before = [reader.count_served() for reader in readers]
        begin_ms, deadline = time.time() * 1000, time.monotonic() + SWAP_TIMEOUT_S
        set_current(self._folder, self._versions[number % len(self._versions)])
        while any(
            reader.count_served() == count_before for reader, count_before in zip(readers, counts_before, strict=True)
        ):
            for reader in readers:
                if not reader.child.is_running or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"A bundle should serve in {SWAP_TIMEOUT_S:g} s. "
                        f"Found that its worker {reader.child.describe_end()}:\n{reader.child.tail()}"
                    )
            time.sleep(LOG_POLL_S)
        return TimeWindow(begin_ms, time.time() * 1000)

    def _wait_without_swap(self, swap: TimeWindow) -> TimeWindow:
        """A window as long as the swap's, without a swap."""
        begin_ms = time.time() * 1000
        time.sleep((swap.end_ms - swap.begin_ms) / 1000)
        return TimeWindow(begin_ms, time.time() * 1000)

    def _wait_until_drained(self) -> None:
        log = KafkaLog(bootstrap=self._kafka.bootstrap)
        for lane, kind in zip(LANES, ("orders", "clicks"), strict=True):
            topic = self._environment.topics.topic_name(kind)
            log.wait_until_committed(self._environment.group_id(lane), [topic], SWAP_TIMEOUT_S)

    def _evaluate(
        self,
        producer: RateProducer,
        moves: Sequence[TimeWindow],
        quiet: Sequence[TimeWindow],
        rss: list[float],
        started_s: float,
    ) -> SwapResult:
        log, topics = KafkaLog(bootstrap=self._kafka.bootstrap), self._environment.topics
        rows = {record.offset: read_scored_row(record.value or b"") for record in log.read(topics.scored)}
        decisions = [read_decision(record.value or b"") for record in log.read(topics.decisions)]
        transactions = read_transactions(self._kafka.log_folder, topics.scored)
        batches = [PublishedBatch.from_transaction(transaction, rows) for transaction in transactions]
        batches = [batch for batch in batches if batch.lane]
        row_counts = Counter(row.event_id for row in rows.values() if row.kind in ("order", "click"))
        deciding_version = {decision.event_id: decision.model_version for decision in decisions}
        sent = {*producer.orders, *producer.clicks}
        lost = len(sent - row_counts.keys()) + len(producer.orders.keys() - deciding_version.keys())
        order_rows = [row for row in rows.values() if row.kind == "order"]
        differing_rows = sum(deciding_version[row.event_id] != row.model_version for row in order_rows)
        swap_ms = percentiles(find_longest_gaps(batches, moves))
        quiet_ms = percentiles(find_longest_gaps(batches, quiet))
        return SwapResult(
            swaps=len(moves),
            events=len(sent),
            lost=lost,
            contradicting=differing_rows + sum(count > 1 for count in row_counts.values()),
            batches=len(batches),
            mixed_batches=sum(len(batch.versions) > 1 for batch in batches),
            pause_ms={name: round(gap_ms - quiet_ms[name], 1) for name, gap_ms in swap_ms.items()},
            swap_gap_ms=swap_ms,
            quiet_gap_ms=quiet_ms,
            swap_ms=percentiles([window.end_ms - window.begin_ms for window in moves]),
            rss_mb=rss,
            seconds=round(time.monotonic() - started_s, 1),
        )


class PublishedBatch(NamedTuple):
    """The output of one transaction: its lane (empty if it holds no row), timestamp and model versions."""

    lane: str
    at_ms: int
    versions: frozenset[str]

    @classmethod
    def from_transaction(cls, transaction: Transaction, rows: dict[int, ScoredRow]) -> "PublishedBatch":
        batch_rows = [rows[offset] for offset in transaction.offsets if offset in rows]
        kinds = {row.kind for row in batch_rows}
        lane = ""
        if batch_rows:
            lane = "orders" if "order" in kinds else "browsing"
        return cls(lane, transaction.last_ms, frozenset(row.model_version for row in batch_rows))


def find_longest_gaps(batches: Sequence[PublishedBatch], windows: Sequence[TimeWindow]) -> list[float]:
    """For each window the longest time between two consecutive batches of a lane that begins in it."""
    longest = np.zeros(len(windows))
    for lane in LANES:
        times = np.sort(np.array([batch.at_ms for batch in batches if batch.lane == lane], np.float64))
        gaps = np.diff(times)
        for number, window in enumerate(windows):
            first, last = np.searchsorted(times, window).tolist()
            longest[number] = max(longest[number], gaps[first:last].max(initial=0.0))
    return longest.tolist()


def read_rss_mb(readers: Sequence[ServingLogReader]) -> list[float]:
    """Resident memory of each worker."""
    return [round(psutil.Process(reader.child.pid).memory_info().rss / 1e6, 1) for reader in readers]
