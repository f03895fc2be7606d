"""`python -m bench join-scale`: speed of one, two and four joiners, and what waiting rows cost in memory and on disk.

Joiners read the records of a simulated shop from Apache Kafka, from topics with four partitions each. Then orders are
written to the store of waiting rows, by the joiner's own code and without Kafka, and a joiner is opened on them; the
time for reading the log again is that of the same number of records at the measured speed of one joiner.
"""

import argparse
import math
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import psutil
from confluent_kafka import Producer

from bench.results.report import print_missed, print_progress, print_result
from contract.features.declaration import Block
from contract.features.packing import pack
from contract.joining.joiner import Joiner
from contract.messages import ScoredRow
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task
from contract.units import DAY_MS
from devservers.apache_kafka import ApacheKafka
from testkit.environment.batch_producer import OutgoingRecord, produce_all
from testkit.joiner.expected import KINDS, PARTITIONS, TimedRecord
from testkit.joiner.joiner_process import JoinerGroup
from testkit.joiner.simulator import JoinSimulator
from worker.joiner.store.sqlite_rows import SqliteRows

JOINERS: Final = (1, 2, 4)
EVENTS: Final = 60_000
WAITING: Final = (100_000, 1_000_000, 10_000_000)
IN_MEMORY: Final = 100_000
COMMIT_ROWS: Final = 25_000
NUMBERS: Final = 200  # of an order's features: a row of 1 kB
BEGIN_MS: Final = 1_700_000_000_000
FRAUD: Final = Task("fraud", "binary", ("user", "order", "context"), "decide")
RESTART_MAX_S, SLOWER_MAX = 60.0, 0.1
OUTPUTS: Final = ("feedback", "judgements")


class JoinersRow(msgspec.Struct, frozen=True, kw_only=True):
    """A number of joiners; CPU in microseconds per record, of all of them, with start-up."""

    events_per_second: float
    cpu_us_per_event: float


class WaitingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A number of waiting orders. `restart_s`: until a joiner has looked up a row; `log_s`: to read the log again."""

    fill_us_per_row: float
    disk_bytes_per_row: float
    rss_mb: float
    restart_s: float
    log_s: float


class JoinScaleFigures(msgspec.Struct, frozen=True, kw_only=True):
    """By number of joiners, and by number of waiting rows. `memory_bytes_per_row`: of a row that is in memory."""

    events: int
    joiners: dict[str, JoinersRow]
    memory_only: JoinersRow
    memory_bytes_per_row: float
    waiting: dict[str, WaitingRow]

    @property
    def missed_aims(self) -> Iterator[str]:
        """The missed aims."""
        with_store, without = self.joiners["1"].cpu_us_per_event, self.memory_only.cpu_us_per_event
        if with_store > without * (1 + SLOWER_MAX):
            yield f"a store costs at most {SLOWER_MAX:.0%} of a joiner's CPU"
        if any(row.restart_s > RESTART_MAX_S for row in self.waiting.values()):
            yield f"a restart takes at most {RESTART_MAX_S:g} s"


class JoinersBench:
    """Joins the same records with several numbers of joiners."""

    def __init__(self, *, kafka: ApacheKafka, folder: Path, events: int, seed: int) -> None:
        self._kafka, self._folder = kafka, folder
        simulator = JoinSimulator(events=events, hours=120.0, begin_ms=BEGIN_MS, seed=seed)
        simulator.run()
        self.records: list[TimedRecord] = simulator.records

    def prepare(self) -> None:
        """Produce the records."""
        self._kafka.create_topics(dict.fromkeys(KINDS, PARTITIONS), {"retention.ms": "-1"})
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap, "log_level": 0})
        produce_all(producer, (OutgoingRecord(r.kind, r.key, r.value, r.partition) for r in self.records))

    def run(self, name: str, joiners: int, overrides: dict[str, str]) -> JoinersRow:
        """Join all records with this many joiners."""
        self._kafka.create_topics({f"{name}.{kind}": PARTITIONS for kind in OUTPUTS}, {})
        variables = {
            "SHOPSTREAM_KAFKA__GROUP_PREFIX": name,
            "SHOPSTREAM_WORKER__BATCH_MAX": "2000",
            "SHOPSTREAM_FEEDBACK__ROWS_MAX": "200000",
            "SHOPSTREAM_FEEDBACK__SAVE_MS": "10000",
            "SHOPSTREAM_FEEDBACK__STORE": str(self._folder / name),
            **{f"SHOPSTREAM_TOPICS__{kind.upper()}": f"{name}.{kind}" for kind in OUTPUTS},
            **overrides,
        }
        group = JoinerGroup(
            kafka=self._kafka,
            prefix="",
            folder=self._folder,
            count=joiners,
            partitions=PARTITIONS,
            overrides=variables,
        )
        begin_s = time.monotonic()
        try:
            group.start()
            group.wait_for_end(max(record.ts_ms for record in self.records))
            seconds = time.monotonic() - begin_s
            cpu_s = math.fsum(self._read_cpu_s(member.child.pid) for member in group.members)
        finally:
            group.kill()
        return JoinersRow(
            events_per_second=round(len(self.records) / seconds),
            cpu_us_per_event=round(cpu_s / len(self.records) * 1e6, 1),
        )

    @staticmethod
    def _read_cpu_s(pid: int | None) -> float:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)


class WaitingBench:
    """Fills a store with orders that wait for labels, more and more, and opens a joiner on it."""

    def __init__(self, *, path: Path, seed: int) -> None:
        self._path, self._rng = path, random.Random(seed)
        self._feedback = FeedbackSettings(rows_max=20_000)
        numbers = np.random.default_rng(seed).normal(size=(256, NUMBERS)).astype("f4")
        self._blocks = [pack(Block(row.reshape(1, -1), np.ones((1, 4), np.int64))) for row in numbers]
        self._count = 0

    def measure_memory(self, rows: int) -> float:
        """Bytes of a row in memory."""
        joiner = Joiner(feedback=FeedbackSettings(rows_max=rows), tasks=[FRAUD])
        before = psutil.Process().memory_info().rss
        for number in range(rows):
            joiner.add_row(self._create_row(number, rows))
        return (psutil.Process().memory_info().rss - before) / rows

    def fill(self, rows: int) -> float:
        """Add orders up to this number of them; returns the CPU per row in microseconds."""
        store = SqliteRows(self._path)
        joiner, before = Joiner(feedback=self._feedback, tasks=[FRAUD], rows=store), self._count
        begin_s = time.process_time()
        while self._count < rows:
            for number in range(self._count, min(rows, self._count + COMMIT_ROWS)):
                joiner.add_row(self._create_row(number, WAITING[-1]))
            self._count = min(rows, self._count + COMMIT_ROWS)
            store.commit(joiner.changes(), {})
            joiner.confirm_commit()
        cpu_s = time.process_time() - begin_s
        store.close()
        return cpu_s / (rows - before) * 1e6

    def measure(self, rows: int, log_speed: float) -> WaitingRow:
        fill_us = self.fill(rows)
        begin_s = time.monotonic()
        store = SqliteRows(self._path)
        joiner = Joiner(feedback=self._feedback, tasks=[FRAUD], rows=store)
        joiner.add_row(self._create_row(self._rng.randrange(rows), WAITING[-1]))
        joiner.advance(BEGIN_MS)
        restart_s = time.monotonic() - begin_s
        assert joiner.counts["duplicate", "row"] == 1
        store.close()
        return WaitingRow(
            fill_us_per_row=round(fill_us, 1),
            disk_bytes_per_row=round(self._path.stat().st_size / rows),
            rss_mb=round(psutil.Process().memory_info().rss / 2**20),
            restart_s=round(restart_s, 3),
            log_s=round(rows / log_speed, 1),
        )

    def _create_row(self, number: int, rows: int) -> ScoredRow:
        """One of `rows` orders of a week."""
        user = f"user-{number * 7919 % (rows // 10 + 1)}"
        return ScoredRow(
            event_id=f"{number * 2654435761 % 2**32:08x}-{number}",
            kind="order",
            user_id=user,
            ts_ms=BEGIN_MS + number * 7 * DAY_MS // rows,
            topic="shop.orders",
            partition=0,
            offset=number,
            model_version="model-1",
            features="features-1",
            groups={"order": self._blocks[number % len(self._blocks)]},
            scores={"fraud": (0.01,)},
            entities=(f"user:{user}",),
        )


def main(argv: Sequence[str]) -> int:
    """Measure on its own broker; always 0."""
    arguments = parse(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-join-scale-")))
        kafka = stack.enter_context(ApacheKafka())
        bench = JoinersBench(kafka=kafka, folder=folder, events=arguments.events, seed=arguments.seed)
        bench.prepare()
        memory_only = bench.run("memory", 1, {"SHOPSTREAM_FEEDBACK__STORE": ""})
        print_progress(f"1 joiner without a store: {memory_only}")
        joiners = dict[str, JoinersRow]()
        for count in JOINERS:
            joiners[str(count)] = bench.run(f"of{count}", count, {})
            print_progress(f"{count} joiners: {joiners[str(count)]}")
    with tempfile.TemporaryDirectory(prefix="shopstream-join-scale-") as name:
        waiting_bench = WaitingBench(path=Path(name) / "rows.sqlite", seed=arguments.seed)
        memory_bytes = waiting_bench.measure_memory(IN_MEMORY)
        waiting = dict[str, WaitingRow]()
        for rows in WAITING:
            if rows <= arguments.rows:
                waiting[str(rows)] = waiting_bench.measure(rows, joiners["1"].events_per_second)
                print_progress(f"{rows} waiting rows: {waiting[str(rows)]}")
    figures = JoinScaleFigures(
        events=len(bench.records),
        joiners=joiners,
        memory_only=memory_only,
        memory_bytes_per_row=round(memory_bytes),
        waiting=waiting,
    )
    print_missed(figures.missed_aims)
    print_result(figures, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench join-scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=EVENTS, help="records of the simulated shop")
    parser.add_argument("--rows", type=int, default=WAITING[-1], help="waiting rows at most")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
