"""`python -m bench join`: the joiner dies by SIGKILL again and again while a shop goes on; then all is counted.

On Apache Kafka, rows as served, impressions, clicks, orders and labels of five days lie on their topics portion by
portion: some late, early, twice, of another user, or of an order that never was. At the end every label that came
inside its window should be in an example with the features as served, nothing said twice or early, and the joiner's own
count of orphans (`shopstream_orphan_labels`, carried from life to life) should be that of the simulator.
"""

import argparse
import random
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Producer

from bench.guarantees.ledger import print_progress
from contract.events import Judgement, decode
from contract.messages import read_example
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess, find_free_ports
from testkit.checkout import ROOT
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import KafkaServer
from testkit.joiner.expected import FEEDBACK_SETTINGS, HOUR_MS, KINDS, PARTITIONS, TimedRecord, split_portions
from testkit.joiner.oracle import JoinOracle, PublishedExample, SentPortion
from testkit.joiner.simulator import JoinSimulator

HOURS: Final = 120.0
OUTPUT_KINDS: Final = ("feedback", "judgements")
LIFE_TIMEOUT_S: Final = 600.0
POLL_S: Final = 0.05
JOINED_SHARE_MIN: Final = 0.9999
KILLS_MIN: Final = 5
SENTENCES_MAX: Final = 5


class JoinerKillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much happens and how often the joiner dies."""

    events: int
    kills: int
    seed: int


class JoinerKillOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has shown."""

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
        """Whether it is what was promised, under enough kills that could have broken it."""
        violations = self.early + self.duplicates + self.wrong_features + abs(self.orphans - self.orphans_expected)
        return violations == 0 and self.joined_share >= JOINED_SHARE_MIN and self.kills >= KILLS_MIN


class JoinerProcess:
    """`python -m worker feedback` on the topics of a run, as often as it is started."""

    def __init__(self, *, kafka: KafkaServer, prefix: str, folder: Path) -> None:
        (self._port,) = find_free_ports(1)
        command = [sys.executable, "-m", "worker", "feedback"]
        self.child = ChildProcess(
            command=command, output=folder / "joiner.log", environment=self._env_variables(kafka, prefix)
        )

    def wait_for_stream_time(self, ms: int) -> None:
        """Return when the streams' time is that late and what it has to say is published."""
        self.child.wait_until(lambda: self.read_metric("stream_time_seconds") * 1000 >= ms, timeout_s=LIFE_TIMEOUT_S)

    def read_metric(self, name: str) -> float:
        """The sum of a metric's series; 0 while nobody answers."""
        time.sleep(POLL_S)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        return sum(map(float, re.findall(rf"^shopstream_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))

    def _env_variables(self, kafka: KafkaServer, prefix: str) -> Mapping[str, str]:
        feedback = {
            **FEEDBACK_SETTINGS.model_dump(),
            "idle_ms": 5_000,
        }  # nobody is quiet who only waits for a slow machine
        return {
            "PYTHONPATH": str(ROOT),
            "SHOPSTREAM_CONFIG": str(ROOT / "shop.toml"),
            "SHOPSTREAM_FEATURES": str(ROOT / "features.toml"),
            "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
            "SHOPSTREAM_KAFKA__GROUP_PREFIX": f"{prefix}join",
            "SHOPSTREAM_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "SHOPSTREAM_WORKER__HTTP_PORT": str(self._port),
            **{f"SHOPSTREAM_TOPICS__{kind.upper()}": f"{prefix}{kind}" for kind in (*KINDS, *OUTPUT_KINDS)},
            **{f"SHOPSTREAM_FEEDBACK__{name.upper()}": str(value) for name, value in feedback.items()},
        }


class JoinerKillRun:
    """One run: kill while portions come, let the last life finish, judge."""

    def __init__(
        self, *, kafka: KafkaServer, plan: JoinerKillPlan, folder: Path, report: Callable[[str], None], prefix: str = ""
    ) -> None:
        self.plan, self.report, self._kafka, self._prefix = plan, report, kafka, prefix
        begin_ms = round(time.time() * 1000) - 20 * 24 * HOUR_MS
        self.simulator = JoinSimulator(events=plan.events, hours=HOURS, begin_ms=begin_ms, seed=plan.seed)
        self.joiner = JoinerProcess(kafka=kafka, prefix=prefix, folder=folder)
        self._rng = random.Random(f"kills {plan.seed}")
        self._portions: list[SentPortion] = []
        self.wrong_examples: list[str] = []

    def run(self) -> JoinerKillOutcome:
        """The whole; raises `Unavailable` where the joiner ends by itself or does not finish."""
        self._kafka.create_topics(
            {f"{self._prefix}{kind}": PARTITIONS for kind in (*KINDS, *OUTPUT_KINDS)}, {"retention.ms": "-1"}
        )
        self.simulator.run()
        self.report(f"{len(self.simulator.records)} records; labels among them: {self.simulator.label_counts}")
        try:
            orphans = self._run_lives()
        finally:
            self.joiner.child.kill()
        return self._evaluate(orphans)

    def _run_lives(self) -> int:
        """All lives; returns how many orphans the last one tells of."""
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
        self.report(f"withheld by the last life: {self.joiner.read_metric('examples_withheld_total'):.0f}")
        self.joiner.child.stop()
        return orphans

    def _wait_for_moment(self, number: int, portion: Sequence[TimedRecord]) -> None:
        """Somewhere within what is new; each third life dies young, maybe before it has spoken."""
        if number % 3 == 2:
            time.sleep(self._rng.uniform(0.5, 4.0))
            return
        begin_ms, end_ms = portion[0].ts_ms, portion[-1].arrival_ms
        self.joiner.wait_for_stream_time(begin_ms + round(self._rng.uniform(0.1, 0.9) * (end_ms - begin_ms)))

    def _send(self, portion: Sequence[TimedRecord]) -> None:
        """Lay a portion on its topics, each partition in the order of arrival."""
        self._portions.append(SentPortion(round(time.time() * 1000), max(record.ts_ms for record in portion)))
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap, "enable.idempotence": True, "log_level": 0})
        for record in portion:
            while True:
                try:
                    producer.produce(f"{self._prefix}{record.kind}", record.value, record.key, record.partition)
                    break
                except BufferError:
                    producer.poll(0.1)
        if waiting := producer.flush(60):
            raise RuntimeError(f"Kafka should take every record. Found {waiting} waiting.")

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
        self.report(
            f"{len(published)} examples, {len(labels)} judgements, {len(self.wrong_examples)} not true in the end"
        )
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


def main(argv: Sequence[str]) -> int:
    """Run it on a broker of its own; 0 if every promise was kept and every example is true in the end."""
    arguments = parse(argv)
    plan = JoinerKillPlan(events=round(arguments.events * arguments.scale), kills=arguments.kills, seed=arguments.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-join-")))
        kafka = stack.enter_context(ApacheKafka())
        run = JoinerKillRun(kafka=kafka, plan=plan, folder=folder, report=print_progress)
        outcome = run.run()
    if arguments.json:
        print(msgspec.json.encode(outcome).decode())
    else:
        for name, value in msgspec.structs.asdict(outcome).items():
            print(f"{name:20} {value}")
    return 0 if outcome.passed and not run.wrong_examples else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench join", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000, help="how many records flow in, at least")
    parser.add_argument("--kills", type=int, default=6, help="how often the joiner dies")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of events")
    parser.add_argument("--seed", type=int, default=20111209, help="of what happens and of the moments of death")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    return parser.parse_args(argv)
