"""Kills the joiner again and again while a simulated shop runs; then compares every example with the expected one."""

import random
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Producer

from contract.events import Judgement, decode
from contract.messages import read_example
from contract.units import HOUR_MS
from devservers.process import ChildProcess, find_free_ports
from testkit.checkout import CHECKOUT_VARIABLES
from testkit.environment.batch_producer import OutgoingRecord, produce_all
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import KafkaServer
from testkit.joiner.expected import FEEDBACK_SETTINGS, KINDS, PARTITIONS, TimedRecord, split_portions
from testkit.joiner.oracle import JoinOracle, PublishedExample, SentPortion
from testkit.joiner.simulator import JoinSimulator

HOURS: Final = 120.0
OUTPUT_KINDS: Final = ("feedback", "judgements")
RUN_TIMEOUT_S: Final = 600.0
POLL_S: Final = 0.05
JOINED_SHARE_MIN: Final = 0.9999
KILLS_MIN: Final = 5
SENTENCES_MAX: Final = 5


class JoinerKillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of records and kills."""

    events: int
    kills: int
    seed: int


class JoinerKillOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a run. `orphans`: the joiner's own metric; `orphans_expected`: the simulator's count."""

    in_window: int
    joined_share: float
    early: int
    duplicates: int
    wrong_features: int
    orphans: int
    orphans_expected: int
    kills: int

    @property
    def passed(self) -> bool:
        """Whether every promise was kept, with enough kills that could have broken one."""
        violations = self.early + self.duplicates + self.wrong_features + abs(self.orphans - self.orphans_expected)
        return violations == 0 and self.joined_share >= JOINED_SHARE_MIN and self.kills >= KILLS_MIN


class JoinerProcess:
    """The process `python -m worker feedback` on the topics of a run, restarted after each kill."""

    def __init__(self, *, kafka: KafkaServer, prefix: str, folder: Path) -> None:
        (self._port,) = find_free_ports(1)
        command = [sys.executable, "-m", "worker", "feedback"]
        self.child = ChildProcess(
            command=command, output=folder / "joiner.log", environment=self._env_variables(kafka, prefix, folder)
        )

    def wait_for_stream_time(self, ms: int) -> None:
        """Return when the joiner has published everything up to this stream time."""
        self.child.wait_until(lambda: self.read_metric("stream_time_seconds") * 1000 >= ms, timeout_s=RUN_TIMEOUT_S)

    def read_metric(self, name: str) -> float:
        """The sum of a metric's series; 0 while the joiner does not answer."""
        time.sleep(POLL_S)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        return sum(map(float, re.findall(rf"^shopstream_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))

    def _env_variables(self, kafka: KafkaServer, prefix: str, folder: Path) -> Mapping[str, str]:
        # A partition that only waits for a slow machine should not count as idle.
        feedback = {
            **FEEDBACK_SETTINGS.model_dump(),
            "idle_ms": 5_000,
            "store": str(folder / f"{prefix}rows"),
            "save_ms": 500,
            "rows_max": 2_000,  # so that most rows wait on disk
        }
        return {
            **CHECKOUT_VARIABLES,
            "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
            "SHOPSTREAM_KAFKA__GROUP_PREFIX": f"{prefix}join",
            "SHOPSTREAM_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "SHOPSTREAM_WORKER__HTTP_PORT": str(self._port),
            **{f"SHOPSTREAM_TOPICS__{kind.upper()}": f"{prefix}{kind}" for kind in (*KINDS, *OUTPUT_KINDS)},
            **{f"SHOPSTREAM_FEEDBACK__{name.upper()}": str(value) for name, value in feedback.items()},
        }


class JoinerKillRun:
    """One run: kill the joiner after each portion of records, let the last process finish, evaluate."""

    def __init__(
        self, *, kafka: KafkaServer, plan: JoinerKillPlan, folder: Path, report: Callable[[str], None], prefix: str = ""
    ) -> None:
        self.plan = plan
        self.report = report
        self._kafka = kafka
        self._prefix = prefix
        begin_ms = round(time.time() * 1000) - 20 * 24 * HOUR_MS
        self.simulator = JoinSimulator(events=plan.events, hours=HOURS, begin_ms=begin_ms, seed=plan.seed)
        self.joiner = JoinerProcess(kafka=kafka, prefix=prefix, folder=folder)
        self._rng = random.Random(f"kills {plan.seed}")
        self._portions: list[SentPortion] = []
        self.wrong_examples: list[str] = []

    def run(self) -> JoinerKillOutcome:
        """Run and evaluate; raises `Unavailable` if the joiner ends by itself or does not finish."""
        self._kafka.create_topics(
            {f"{self._prefix}{kind}": PARTITIONS for kind in (*KINDS, *OUTPUT_KINDS)}, {"retention.ms": "-1"}
        )
        self.simulator.run()
        self.report(f"{len(self.simulator.records)} records; labels among them: {self.simulator.label_counts}")
        try:
            orphans = self._run_processes()
        finally:
            self.joiner.child.kill()
        return self._evaluate(orphans)

    def _run_processes(self) -> int:
        """Start and kill, then run to the end; returns the orphans that the last process reports."""
        *kill_portions, final = split_portions(self.simulator.records, self.plan.kills + 1)
        for number, portion in enumerate(kill_portions):
            self._send(portion)
            self.joiner.child.start()
            self._wait_for_moment(number, portion)
            self.joiner.child.kill()
            self.report(f"kill {number + 1} of {self.plan.kills}")
        self._send(final)
        self.joiner.child.start()
        self.joiner.wait_for_stream_time(final[-1].ts_ms)
        orphans = round(self.joiner.read_metric("orphan_labels"))
        self.report(f"examples withheld by the last process: {self.joiner.read_metric('examples_withheld_total'):.0f}")
        self.joiner.child.stop()
        return orphans

    def _wait_for_moment(self, number: int, portion: Sequence[TimedRecord]) -> None:
        """Wait for a point within the new portion; every third kill comes early, perhaps before any output."""
        if number % 3 == 2:
            time.sleep(self._rng.uniform(0.5, 4.0))
            return
        begin_ms, end_ms = portion[0].ts_ms, portion[-1].arrival_ms
        self.joiner.wait_for_stream_time(begin_ms + round(self._rng.uniform(0.1, 0.9) * (end_ms - begin_ms)))

    def _send(self, portion: Sequence[TimedRecord]) -> None:
        """Produce a portion, each partition in the order of arrival."""
        self._portions.append(SentPortion(round(time.time() * 1000), max(record.ts_ms for record in portion)))
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap, "enable.idempotence": True, "log_level": 0})
        produce_all(
            producer,
            (
                OutgoingRecord(f"{self._prefix}{record.kind}", record.key, record.value, record.partition)
                for record in portion
            ),
        )

    def _evaluate(self, orphans: int) -> JoinerKillOutcome:
        self.report("counting")
        log = KafkaLog(bootstrap=self._kafka.bootstrap)
        published = [
            PublishedExample(read_example(record.value or b""), record.kafka_ms)
            for record in log.read(f"{self._prefix}feedback")
        ]
        judgements = [decode("judgements", record.value) for record in log.read(f"{self._prefix}judgements")]
        labels = [
            (judgement.judged_event_id, judgement.event_id, judgement.task)
            for judgement in judgements
            if isinstance(judgement, Judgement)
        ]
        oracle = JoinOracle(expected=self.simulator.expected, records=self.simulator.records, portions=self._portions)
        counts = oracle.evaluate(published)
        self.wrong_examples = counts.wrong_examples
        self.report(f"{len(published)} examples, {len(labels)} judgements, {len(self.wrong_examples)} wrong in the end")
        for sentence in self.wrong_examples[:SENTENCES_MAX]:
            self.report(sentence)
        return JoinerKillOutcome(
            in_window=counts.in_window,
            joined_share=counts.joined / max(1, counts.in_window),
            early=counts.early,
            duplicates=counts.duplicates + len(labels) - len(set(labels)),
            wrong_features=counts.wrong_features,
            orphans=orphans,
            orphans_expected=self.simulator.orphans,
            kills=self.plan.kills,
        )
