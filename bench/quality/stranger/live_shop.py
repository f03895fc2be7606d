"""A shop that follows docs/tutorial.md: its folder, the commands in their order, and its live days."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka import Producer

from bench.quality.stranger.orders import LABEL_DELAY_MS, OrderTable
from bench.quality.stranger.records import ORDERS, OUTCOMES, SETTINGS, describe_features, make_order, make_outcome
from bench.results.report import print_progress
from contract.arrays import Integers
from contract.settings.servers import KafkaSettings, TopicSettings
from contract.units import DAY_MS
from demo.live.health_probe import HealthProbe
from devservers.process import ChildProcess, find_free_ports
from testkit.checkout import ROOT
from testkit.environment.batch_producer import OutgoingRecord, produce_all
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.log_follower import LogFollower

READY_TIMEOUT_S: Final = 120.0
DRAIN_TIMEOUT_S: Final = 300.0
POLL_S: Final = 0.1
TASK: Final = "fraud"
GROUP: Final = KafkaSettings().group("orders")


class LiveShop:
    """The commands of the tutorial, each a process in the shop's folder; raises RuntimeError where one fails."""

    def __init__(self, *, folder: Path, bootstrap: str, redis_url: str) -> None:
        self.folder, self._bootstrap = folder, bootstrap
        self._environment = {
            "PYTHONPATH": str(ROOT),
            "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
            "SHOPSTREAM_REDIS__URL": redis_url,
        }
        self._log, self._follower = KafkaLog(bootstrap=bootstrap), LogFollower(bootstrap=bootstrap)
        self._judged: set[str] = set()

    def write_folder(self, table: OrderTable, cut: int) -> None:
        """Steps 2 to 4: the settings, and exports of what had happened by the time of the row `cut`."""
        self.run("init")
        with (self.folder / "shop.toml").open("a") as file:
            file.write(SETTINGS)
        with (self.folder / "features.toml").open("a") as file:
            file.write(describe_features())
        settled = find_settled(table, 0, table.ts_ms[cut])
        write_lines(self.folder / "purchases.jsonl", (make_order(table, row) for row in range(cut)))
        write_lines(self.folder / "cases.jsonl", (make_outcome(table, row) for row in settled.tolist()))

    def learn(self) -> None:
        """Steps 5 to 7: topics, history, examples, the features that say something, model and profiles."""
        replay = ("training", "replay", "history", "--out", "examples.parquet")
        self.run("worker", "topics")
        self.run("training", "history", "map.purchases=purchases.jsonl", "map.cases=cases.jsonl", "--out", "history")
        self.run(*replay)
        self.run("training", "describe", "examples.parquet", "--write", "features-used.toml")
        settings = self.folder / "shop.toml"
        settings.write_text(settings.read_text().replace('"features.toml"', '"features-used.toml"'))
        self.run(*replay)
        self.run("training", "fit", "examples.parquet")
        self.run("export", "--latest")
        self.run("worker", "bootstrap", "history")

    def serve(self, table: OrderTable, cut: int) -> dict[str, float]:
        """Steps 8 to 11: the rows from `cut` on, day by day, with the outcomes of each; probabilities by order."""
        with ExitStack() as stack:
            self._start_worker(stack, "score", "--lane", "orders")
            self._start_worker(stack, "feedback")
            begin, rows = int(table.ts_ms[cut]), np.arange(cut, len(table))
            for day_ms in range(begin, int(table.ts_ms[-1]) + 1, DAY_MS):
                today = rows[(table.ts_ms[rows] >= day_ms) & (table.ts_ms[rows] < day_ms + DAY_MS)]
                self._send(ORDERS, ((f"C{table.customer[row]}", make_order(table, row)) for row in today.tolist()))
                self._log.wait_until_committed(GROUP, [ORDERS], DRAIN_TIMEOUT_S)
                outcomes = find_settled(table, day_ms, day_ms + DAY_MS).tolist()
                self._send(OUTCOMES, ((f"C{table.customer[row]}", make_outcome(table, row)) for row in outcomes))
                self._wait_until_judged({make_outcome(table, row)["case"] for row in outcomes if row >= cut})
        return self.read_decisions()

    def read_decisions(self) -> dict[str, float]:
        """The probability of fraud by the id of the order, of all decisions that have one."""
        decisions = (msgspec.json.decode(record.value or b"{}") for record in self._log.read(TopicSettings().decisions))
        return {each["event_id"]: each["probability"][TASK] for each in decisions if TASK in each["probability"]}

    def run(self, *words: str) -> None:
        """Run a command and keep its output in a file of the folder."""
        started_s, log = time.monotonic(), self.folder / f"{'-'.join(words[:2])}.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, "-m", "shopstream", *words],
                cwd=self.folder,
                env={**os.environ, **self._environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            command, output_end = " ".join(words), log.read_text()[-2_000:]
            raise RuntimeError(f"`shopstream {command}` should end with 0. Found {done.returncode}:\n{output_end}")
        print_progress(f"{' '.join(words[:2])}: {time.monotonic() - started_s:.1f} s")

    def _start_worker(self, stack: ExitStack, *words: str) -> None:
        (port,) = find_free_ports(1)
        module = [sys.executable, "-m", "shopstream", "worker", *words]
        worker = ChildProcess(
            command=["sh", "-c", 'cd "$0" && exec "$@"', str(self.folder), *module],
            output=self.folder / f"worker-{words[0]}.log",
            environment={**self._environment, "SHOPSTREAM_WORKER__HTTP_PORT": str(port)},
        )
        worker.start()
        stack.callback(worker.stop)
        worker.wait_until(HealthProbe(port).is_ready, timeout_s=READY_TIMEOUT_S)

    def _send(self, topic: str, records: Iterable[tuple[str, dict[str, Any]]]) -> None:
        producer = Producer({"bootstrap.servers": self._bootstrap})
        produce_all(producer, (OutgoingRecord(topic, key, json.dumps(value).encode()) for key, value in records))

    def _wait_until_judged(self, outcomes: set[str]) -> None:
        """Until these outcomes are joined and in the profiles; those of orders in the history join nothing."""
        deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
        while not outcomes <= self._judged or self._log.find_uncommitted(GROUP, self._follower.record_ends):
            judgements = self._follower.read_new([TopicSettings().judgements])
            self._judged |= {msgspec.json.decode(record.value)["event_id"] for record in judgements if record.value}
            if time.monotonic() > deadline_s:
                raise RuntimeError(
                    f"Each outcome should be joined. Found {len(outcomes - self._judged)} that were not."
                )
            time.sleep(POLL_S)


def find_settled(table: OrderTable, begin_ms: int, end_ms: int) -> Integers:
    """The rows whose outcome is known from `begin_ms` on and before `end_ms`."""
    known_ms = table.ts_ms + LABEL_DELAY_MS
    return np.flatnonzero((known_ms >= begin_ms) & (known_ms < end_ms))


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
