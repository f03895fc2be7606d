"""Kills joiners again and again while a simulated shop runs; then compares every example with the expected one.

Several joiners are also suspended in the middle of a commit until the others have taken their shards over, and go on
then; and shards move when a joiner that was killed stays away.
"""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Producer

from contract.events.model import Judgement
from contract.events.reading import decode
from contract.messages import read_example
from contract.units import HOUR_MS
from testkit.environment.batch_producer import OutgoingRecord, produce_all
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import KafkaServer
from testkit.joiner.expected import KINDS, PARTITIONS, TimedRecord, split_portions
from testkit.joiner.joiner_process import OUTPUT_KINDS, JoinerGroup, JoinerProcess
from testkit.joiner.oracle import JoinOracle, PublishedExample, SentPortion
from testkit.joiner.simulator import JoinSimulator

HOURS: Final = 120.0
JOINED_SHARE_MIN: Final = 0.9999
KILLS_MIN: Final = 5
SENTENCES_MAX: Final = 5
PAUSE_STEPS: Final = ("publish", "commit")


class JoinerKillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of records, kills and joiners."""

    events: int
    kills: int
    seed: int
    joiners: int = 1


class JoinerKillOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a run. `orphans`: the joiners' own metric; `orphans_expected`: the simulator's count.

    `pauses`: joiners that were suspended until their shards had moved; `moves`: kills after which the shards moved.
    """

    in_window: int
    joined_share: float
    early: int
    duplicates: int
    wrong_features: int
    orphans: int
    orphans_expected: int
    kills: int
    joiners: int = 1
    pauses: int = 0
    moves: int = 0

    @property
    def passed(self) -> bool:
        """Whether every promise was kept, with enough kills that could have broken one."""
        violations = self.early + self.duplicates + self.wrong_features + abs(self.orphans - self.orphans_expected)
        return violations == 0 and self.joined_share >= JOINED_SHARE_MIN and self.kills >= KILLS_MIN


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
        self.joiners = JoinerGroup(kafka=kafka, prefix=prefix, folder=folder, count=plan.joiners, partitions=PARTITIONS)
        self._pauses = self._moves = 0
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
            self.joiners.kill()
        return self._evaluate(orphans)

    def _run_processes(self) -> int:
        """Start and kill, then run to the end; returns the orphans that the last process reports."""
        *kill_portions, final = split_portions(self.simulator.records, self.plan.kills + 1)
        for number, portion in enumerate(kill_portions):
            self._send(portion)
            self.joiners.start()
            if self.plan.joiners > 1 and number % 2 == 0:
                self._pause(self._rng.choice(self.joiners.members), PAUSE_STEPS[number // 2 % len(PAUSE_STEPS)])
            self._wait_for_moment(number, portion)
            self._kill(number)
        self._send(final)
        self.joiners.start()
        self.joiners.wait_for_end(final[-1].ts_ms)
        orphans = self.joiners.read_sum("orphan_labels")
        self.report(f"examples withheld by the last processes: {self.joiners.read_sum('examples_withheld_total')}")
        self.joiners.stop()
        return orphans

    def _kill(self, number: int) -> None:
        """Kill a joiner; of several, leave every second one away until its shards have moved."""
        killed = self._rng.choice(self.joiners.members)
        killed.child.kill()
        self.report(f"kill {number + 1} of {self.plan.kills}")
        if self.plan.joiners > 1 and number % 2 == 1:
            self.joiners.wait_for_takeover(killed)
            self._moves += 1

    def _pause(self, joiner: JoinerProcess, step: str) -> None:
        """Suspend a joiner, preferably in a transaction, and let it go on when the others have its shards."""
        self.report(f"suspended a joiner in {joiner.pause_in(step)}")
        self.joiners.wait_for_takeover(joiner)
        joiner.child.resume()
        self._pauses += 1

    def _wait_for_moment(self, number: int, portion: Sequence[TimedRecord]) -> None:
        """Wait for a point within the new portion; every third kill comes early, perhaps before any output."""
        if number % 3 == 2:
            time.sleep(self._rng.uniform(0.5, 4.0))
            return
        begin_ms, end_ms = portion[0].ts_ms, portion[-1].arrival_ms
        self.joiners.wait_for_stream_time(begin_ms + round(self._rng.uniform(0.1, 0.9) * (end_ms - begin_ms)))

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
            joiners=self.plan.joiners,
            pauses=self._pauses,
            moves=self._moves,
        )
