"""`python -m bench ledger`: workers die by SIGKILL while events flow; then everything is counted.

On Apache Kafka and Redis, both lanes' workers are killed at seeded moments, in every step of the protocol, and started
again. At the end every order should have a decision, every click a scored row, every bad record a dead letter, all
copies of a decision should agree, and every profile should be what a plain oracle makes of the log.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from contract.messages import DEAD_LETTER_HEADER, read_dead_letter, read_decision, read_scored_row
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.audits.delivery_ledger import DeliveryLedger
from testkit.audits.state_audit import StateAudit
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment
from testkit.kills.killed_process import STEPS_WITH_BATCH, KilledProcess, Killer
from testkit.traffic.event_generator import Traffic
from testkit.traffic.producer import TrafficProducer
from worker.ops.steps import STEPS
from worker.records.lanes import LANES

DRAIN_TIMEOUT_S: Final = 180.0
KILLS_WITH_BATCH_MIN: Final = 0.75  # of the kills should meet a worker with a batch in hand
SENTENCES_MAX: Final = 10


class KillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much flows and how often a worker dies."""

    orders: int
    clicks: int
    kills: int
    seed: int


class KillOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has shown. `kills_in_hand`: those that met a worker with a batch in hand."""

    events: int
    orders: int
    clicks: int
    bad_records: int
    kills: int
    kills_in_hand: int
    lost: int
    conflicting: int
    profile_mismatches: int
    profiles: int
    duplicates: int
    kills_by_step: dict[str, int]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every promise was kept, under enough kills that could have broken it."""
        violations = self.lost + self.conflicting + self.profile_mismatches
        return violations == 0 and self.kills_in_hand >= KILLS_WITH_BATCH_MIN * self.kills


class KillRun:
    """One run: kill while events flow, let the last lives finish, count."""

    def __init__(self, *, environment: RunEnvironment, plan: KillPlan, report: Callable[[str], None]) -> None:
        self.environment, self.plan, self.report = environment, plan, report
        self.processes = {lane: self._create_process(lane) for lane in LANES}
        self.producers = {
            lane: self._create_producer(lane, total)
            for lane, total in (("orders", plan.orders), ("browsing", plan.clicks))
        }

    def run(self) -> KillOutcome:
        """The whole; raises RuntimeError where a worker ends by itself or does not finish."""
        started_s = time.monotonic()
        self.environment.create_topics()
        try:
            kills_by_step = self._run_killers()
            self._run_to_end()
        finally:
            for process in self.processes.values():
                process.child.kill()
                process.close()
        return self._evaluate(kills_by_step, started_s)

    def _run_killers(self) -> Counter[str]:
        """Both lanes at once, each in a thread that outlives its workers."""
        plan, lanes = self.plan, list(LANES)
        killers = [
            Killer(
                process=self.processes[lane],
                producer=self.producers[lane],
                kills=plan.kills // len(lanes) + (number < plan.kills % len(lanes)),
                seed=plan.seed,
            )
            for number, lane in enumerate(lanes)
        ]
        with ThreadPoolExecutor(len(killers)) as pool:
            return sum(pool.map(lambda killer: killer.run(self.report), killers), Counter())

    def _run_to_end(self) -> None:
        """Nobody dies any more: the last lives answer the rest, remember it, and end when they are asked to."""
        for lane, process in self.processes.items():
            self.producers[lane].flush()
            process.start()
        self.report("no more kills; waiting until everything is answered and remembered")
        audit = StateAudit(self.environment)
        self.wait_until_drained(audit)
        audit.close()
        for process in self.processes.values():
            if (status := process.stop()) != 0:
                raise RuntimeError(f"A worker should end with 0 when asked to. Found {status}:\n{process.child.tail()}")

    def wait_until_drained(self, audit: StateAudit) -> None:
        """Return when all is committed and merged; raises RuntimeError if it takes too long, or a worker ends."""
        deadline, log = time.monotonic() + DRAIN_TIMEOUT_S, KafkaLog(bootstrap=self.environment.kafka.bootstrap)
        while lagging := [*self._find_uncommitted(log), *audit.find_unmerged()]:
            for process in self.processes.values():
                if not process.child.is_running:
                    raise RuntimeError(f"The last life should go on. Found:\n{process.child.tail()}")
            if time.monotonic() > deadline:
                tails = "\n".join(process.child.tail() for process in self.processes.values())
                raise RuntimeError(
                    f"Everything should be done in {DRAIN_TIMEOUT_S:g} s. Found behind: {lagging}\n{tails}"
                )
            time.sleep(0.1)

    def _find_uncommitted(self, log: KafkaLog) -> list[str]:
        lagging = []
        for lane in LANES.values():
            ends = log.end_offsets(self.environment.topics.topic_name(kind) for kind in lane.kinds)
            committed = log.committed_offsets(self.environment.group_id(lane.name), ends)
            lagging += [
                f"{lane.name} at {committed[partition]} of {end} in {partition}"
                for partition, end in ends.items()
                if end and committed[partition] != end
            ]
        return lagging

    def _evaluate(self, kills_by_step: Counter[str], started_s: float) -> KillOutcome:
        self.report("counting")
        audit, ledger = StateAudit(self.environment), DeliveryLedger()
        self._fill_ledger(ledger, audit)
        lost, conflicting, mismatches = ledger.find_lost(), ledger.find_conflicts(), audit.find_mismatches()
        for sentence in (*lost[:SENTENCES_MAX], *conflicting[:SENTENCES_MAX], *mismatches[:SENTENCES_MAX]):
            self.report(sentence)
        outcome = KillOutcome(
            events=sum(len(producer.acknowledged) for producer in self.producers.values()),
            orders=len(ledger.orders),
            clicks=len(ledger.clicks),
            bad_records=len(ledger.bad_records),
            kills=kills_by_step.total(),
            kills_in_hand=sum(kills_by_step[step] for step in STEPS_WITH_BATCH),
            lost=len(lost),
            conflicting=len(conflicting),
            profile_mismatches=len(mismatches),
            profiles=len(dict(audit.read_slices())),
            duplicates=ledger.count_duplicates(),
            kills_by_step={step: kills_by_step[step] for step in ("start", *STEPS) if kills_by_step[step]},
            seconds=round(time.monotonic() - started_s, 1),
        )
        audit.close()
        return outcome

    def _fill_ledger(self, ledger: DeliveryLedger, audit: StateAudit) -> None:
        """Tell the ledger what went in and what came out, on topics and in Redis."""
        for producer in self.producers.values():
            producer.fill_ledger(ledger)
        topics, log = self.environment.topics, KafkaLog(bootstrap=self.environment.kafka.bootstrap)
        for record in log.read(topics.decisions):
            ledger.record_decision(read_decision(record.value or b""))
        for record in log.read(topics.scored):
            ledger.record_scored_row(read_scored_row(record.value or b""))
        for record in log.read(topics.dead_letters):
            ledger.record_dead_letter(read_dead_letter(record.headers[DEAD_LETTER_HEADER]), record.key, record.value)
        ledger.record_cached(
            read_decision(value) for value in audit.read_decisions(list(ledger.orders)) if value is not None
        )

    def _create_process(self, lane: str) -> KilledProcess:
        environment = self.environment
        return KilledProcess(
            command=environment.worker_command(lane),
            environment=environment.env_variables(),
            folder=environment.folder,
            lane=lane,
        )

    def _create_producer(self, lane: str, total: int) -> TrafficProducer:
        traffic = Traffic(lane=lane, seed=self.plan.seed, now_ms=lambda: time.time_ns() // 1_000_000)
        return TrafficProducer(
            bootstrap=self.environment.kafka.bootstrap, topics=self.environment.topics, traffic=traffic, total=total
        )


def main(argv: Sequence[str]) -> int:
    """Run it on servers of its own; 0 if every promise was kept."""
    arguments = parse(argv)
    plan = KillPlan(orders=arguments.orders, clicks=arguments.clicks, kills=arguments.kills, seed=arguments.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-ledger-")))
        kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        environment = RunEnvironment(
            kafka=kafka, redis=redis, folder=folder, transactions=not arguments.no_transactions
        )
        outcome = KillRun(environment=environment, plan=plan, report=print_progress).run()
    if arguments.json:
        print(msgspec.json.encode(outcome).decode())
    else:
        for name, value in msgspec.structs.asdict(outcome).items():
            print(f"{name:20} {value}")
    return 0 if outcome.passed else 1


def print_progress(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench ledger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="how often a worker dies, over both lanes")
    parser.add_argument("--orders", type=int, default=10_000, help="at least as many valid orders flow")
    parser.add_argument("--clicks", type=int, default=10_000, help="at least as many valid clicks flow")
    parser.add_argument("--seed", type=int, default=20111209, help="of the traffic and of the moments of death")
    parser.add_argument("--no-transactions", action="store_true", help="publish first, commit after: copies may repeat")
    parser.add_argument("--json", action="store_true", help="the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
