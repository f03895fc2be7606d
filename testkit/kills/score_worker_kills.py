"""Kills score workers of both lanes while events flow; then counts what was lost, contradicted or folded wrongly."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from testkit.audits.delivery_ledger import DeliveryLedger
from testkit.audits.published_outputs import record_outputs
from testkit.audits.state_audit import StateAudit
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.log_follower import LogFollower
from testkit.environment.run_environment import RunEnvironment
from testkit.kills.killed_process import STEPS_WITH_BATCH, KilledProcess, Killer
from testkit.traffic.event_generator import Traffic
from testkit.traffic.producer import TrafficProducer
from worker.ops.steps import STEPS
from worker.records.lanes import LANES

DRAIN_TIMEOUT_S: Final = 180.0
KILLS_WITH_BATCH_MIN: Final = 0.75  # of the kills should hit a step with a batch
SENTENCES_MAX: Final = 10


class KillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of events and kills."""

    orders: int
    clicks: int
    kills: int
    seed: int


class KillOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a run. `kills_in_hand`: kills in a step with a batch."""

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
        """Whether every promise was kept, with enough kills in steps that could have broken one."""
        violations = self.lost + self.conflicting + self.profile_mismatches
        return violations == 0 and self.kills_in_hand >= KILLS_WITH_BATCH_MIN * self.kills


class KillRun:
    """One run: kill workers while events flow, let the last processes finish, count."""

    def __init__(self, *, environment: RunEnvironment, plan: KillPlan, report: Callable[[str], None]) -> None:
        self.environment = environment
        self.plan = plan
        self.report = report
        self.processes = {lane: self._create_process(lane) for lane in LANES}
        self.producers = {
            lane: self._create_producer(lane, total)
            for lane, total in (("orders", plan.orders), ("browsing", plan.clicks))
        }

    def run(self) -> KillOutcome:
        """Run and evaluate; raises RuntimeError if a worker ends by itself or does not finish."""
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
        """Kill both lanes' workers at once, each lane in a thread that outlives its processes."""
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
        """Without further kills, let the last processes answer and merge everything, then stop them."""
        for lane, process in self.processes.items():
            self.producers[lane].flush()
            process.start()
        self.report("no more kills; waiting until everything is committed and merged")
        audit = StateAudit(self.environment)
        self.wait_until_drained(audit)
        audit.close()
        for process in self.processes.values():
            if (status := process.stop()) != 0:
                raise RuntimeError(f"A worker should end with 0 when asked to. Found {status}:\n{process.child.tail()}")

    def wait_until_drained(self, audit: StateAudit) -> None:
        """Return when everything is committed and merged; raises RuntimeError on a timeout or if a worker ends."""
        deadline, bootstrap = time.monotonic() + DRAIN_TIMEOUT_S, self.environment.kafka.bootstrap
        log, follower = KafkaLog(bootstrap=bootstrap), LogFollower(bootstrap=bootstrap)
        while lagging := [*self._find_uncommitted(log, follower), *audit.find_unmerged(follower.record_ends)]:
            for process in self.processes.values():
                if not process.child.is_running:
                    end = process.child.describe_end()
                    raise RuntimeError(
                        f"The last process should keep running. Found that it {end}:\n{process.child.tail()}"
                    )
            if time.monotonic() > deadline:
                tails = "\n".join(process.child.tail() for process in self.processes.values())
                raise RuntimeError(
                    f"Everything should be committed and merged in {DRAIN_TIMEOUT_S:g} s. Found {lagging}\n{tails}"
                )
            time.sleep(0.1)

    def _find_uncommitted(self, log: KafkaLog, follower: LogFollower) -> list[str]:
        """The partitions with records that are not committed; the joiner's judgements end with transaction markers."""
        lagging = []
        topics = {lane: {self.environment.topics.topic_name(kind) for kind in lane.kinds} for lane in LANES.values()}
        follower.read_new(set().union(*topics.values()))
        for lane, own in topics.items():
            ends = {partition: end for partition, end in follower.record_ends.items() if partition[0] in own}
            uncommitted = log.find_uncommitted(self.environment.group_id(lane.name), ends)
            lagging += [f"{lane.name} at {offset} of {ends[p]} in {p}" for p, offset in uncommitted.items()]
        return lagging

    def _evaluate(self, kills_by_step: Counter[str], started_s: float) -> KillOutcome:
        self.report("counting")
        audit, ledger = StateAudit(self.environment), DeliveryLedger()
        for producer in self.producers.values():
            producer.fill_ledger(ledger)
        record_outputs(ledger, self.environment, audit)
        lost = ledger.find_lost()
        conflicting = ledger.find_conflicts()
        mismatches = audit.find_mismatches()
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
