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

from bench.audit import Audit
from bench.flow import Flow
from bench.guarantee import GuaranteeLedger
from bench.kafka_log import KafkaLog
from bench.stage import Stage
from bench.traffic import Traffic
from bench.victim import IN_HAND, Killer, Victim
from contract.messages import DEAD_LETTER_HEADER, read_dead_letter, read_decision, read_scored_row
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from worker.ops.steps import STEPS
from worker.records.lanes import LANES

DRAIN_WITHIN_S: Final = 180.0
IN_HAND_SHARE: Final = 0.75  # of the kills should meet a worker with a batch in hand
SHOWN: Final = 10


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much flows and how often a worker dies."""

    orders: int
    clicks: int
    kills: int
    seed: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
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
    def kept(self) -> bool:
        """Whether every promise was kept, under enough kills that could have broken it."""
        broken = self.lost + self.conflicting + self.profile_mismatches
        return broken == 0 and self.kills_in_hand >= IN_HAND_SHARE * self.kills


class LedgerRun:
    """One run: kill while events flow, let the last lives finish, count."""

    def __init__(self, *, stage: Stage, plan: Plan, told: Callable[[str], None]) -> None:
        self.stage, self.plan, self.told = stage, plan, told
        self.victims = {lane: self._victim(lane) for lane in LANES}
        self.flows = {
            lane: self._flow(lane, total) for lane, total in (("orders", plan.orders), ("browsing", plan.clicks))
        }

    def run(self) -> Outcome:
        """The whole; raises RuntimeError where a worker ends by itself or does not finish."""
        began = time.monotonic()
        self.stage.create_topics()
        try:
            died_in = self._kill()
            self._finish()
        finally:
            for victim in self.victims.values():
                victim.child.kill()
                victim.close()
        return self._count(died_in, began)

    def _kill(self) -> Counter[str]:
        """Both lanes at once, each in a thread that outlives its workers."""
        plan, lanes = self.plan, list(LANES)
        killers = [
            Killer(
                victim=self.victims[lane],
                flow=self.flows[lane],
                kills=plan.kills // len(lanes) + (number < plan.kills % len(lanes)),
                seed=plan.seed,
            )
            for number, lane in enumerate(lanes)
        ]
        with ThreadPoolExecutor(len(killers)) as pool:
            return sum(pool.map(lambda killer: killer.run(self.told), killers), Counter())

    def _finish(self) -> None:
        """Nobody dies any more: the last lives answer the rest, remember it, and end when they are asked to."""
        for lane, victim in self.victims.items():
            self.flows[lane].finish()
            victim.start()
        self.told("no more kills; waiting until everything is answered and remembered")
        audit = Audit(self.stage)
        self.await_drained(audit)
        audit.close()
        for victim in self.victims.values():
            if (status := victim.stop()) != 0:
                raise RuntimeError(f"A worker should end with 0 when asked to. Found {status}:\n{victim.child.tail()}")

    def await_drained(self, audit: Audit) -> None:
        """Return when all is committed and merged; raises RuntimeError if it takes too long, or a worker ends."""
        deadline, log = time.monotonic() + DRAIN_WITHIN_S, KafkaLog(bootstrap=self.stage.kafka.bootstrap)
        while behind := [*self._uncommitted(log), *audit.unmerged()]:
            for victim in self.victims.values():
                if not victim.child.is_running:
                    raise RuntimeError(f"The last life should go on. Found:\n{victim.child.tail()}")
            if time.monotonic() > deadline:
                tails = "\n".join(victim.child.tail() for victim in self.victims.values())
                raise RuntimeError(
                    f"Everything should be done in {DRAIN_WITHIN_S:g} s. Found behind: {behind}\n{tails}"
                )
            time.sleep(0.1)

    def _uncommitted(self, log: KafkaLog) -> list[str]:
        behind = []
        for lane in LANES.values():
            ends = log.ends(self.stage.topics.topic_name(kind) for kind in lane.kinds)
            committed = log.committed(self.stage.group(lane.name), ends)
            behind += [
                f"{lane.name} at {committed[p]} of {end} in {p}"
                for p, end in ends.items()
                if end and committed[p] != end
            ]
        return behind

    def _count(self, died_in: Counter[str], began: float) -> Outcome:
        self.told("counting")
        audit, ledger = Audit(self.stage), GuaranteeLedger()
        self._fill(ledger, audit)
        lost, conflicting, mismatches = ledger.lost(), ledger.conflicting(), audit.mismatches()
        for sentence in (*lost[:SHOWN], *conflicting[:SHOWN], *mismatches[:SHOWN]):
            self.told(sentence)
        outcome = Outcome(
            events=sum(len(flow.acknowledged) for flow in self.flows.values()),
            orders=len(ledger.orders),
            clicks=len(ledger.clicks),
            bad_records=len(ledger.bad),
            kills=died_in.total(),
            kills_in_hand=sum(died_in[step] for step in IN_HAND),
            lost=len(lost),
            conflicting=len(conflicting),
            profile_mismatches=len(mismatches),
            profiles=len(dict(audit.slices())),
            duplicates=ledger.duplicates(),
            kills_by_step={step: died_in[step] for step in ("start", *STEPS) if died_in[step]},
            seconds=round(time.monotonic() - began, 1),
        )
        audit.close()
        return outcome

    def _fill(self, ledger: GuaranteeLedger, audit: Audit) -> None:
        """Tell the ledger what went in and what came out, on topics and in Redis."""
        for flow in self.flows.values():
            flow.tell(ledger)
        topics, log = self.stage.topics, KafkaLog(bootstrap=self.stage.kafka.bootstrap)
        for logged in log.read(topics.decisions):
            ledger.decided(read_decision(logged.value or b""))
        for logged in log.read(topics.scored):
            ledger.scored(read_scored_row(logged.value or b""))
        for logged in log.read(topics.dead_letters):
            ledger.buried(read_dead_letter(logged.headers[DEAD_LETTER_HEADER]), logged.key, logged.value)
        ledger.cached(read_decision(value) for value in audit.decisions(list(ledger.orders)) if value is not None)

    def _victim(self, lane: str) -> Victim:
        stage = self.stage
        return Victim(command=stage.command(lane), environment=stage.environment(), folder=stage.folder, lane=lane)

    def _flow(self, lane: str, total: int) -> Flow:
        traffic = Traffic(lane=lane, seed=self.plan.seed, now_ms=lambda: time.time_ns() // 1_000_000)
        return Flow(bootstrap=self.stage.kafka.bootstrap, topics=self.stage.topics, traffic=traffic, total=total)


def main(words: Sequence[str]) -> int:
    """Run it on servers of its own; 0 if every promise was kept."""
    arguments = parse(words)
    plan = Plan(orders=arguments.orders, clicks=arguments.clicks, kills=arguments.kills, seed=arguments.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-ledger-")))
        kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        stage = Stage(kafka=kafka, redis=redis, folder=folder, transactions=not arguments.no_transactions)
        outcome = LedgerRun(stage=stage, plan=plan, told=tell).run()
    if arguments.json:
        print(msgspec.json.encode(outcome).decode())
    else:
        for name, value in msgspec.structs.asdict(outcome).items():
            print(f"{name:20} {value}")
    return 0 if outcome.kept else 1


def tell(said: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {said}", file=sys.stderr, flush=True)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench ledger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="how often a worker dies, over both lanes")
    parser.add_argument("--orders", type=int, default=10_000, help="at least as many valid orders flow")
    parser.add_argument("--clicks", type=int, default=10_000, help="at least as many valid clicks flow")
    parser.add_argument("--seed", type=int, default=20111209, help="of the traffic and of the moments of death")
    parser.add_argument("--no-transactions", action="store_true", help="publish first, commit after: copies may repeat")
    parser.add_argument("--json", action="store_true", help="the outcome as one line of JSON, the last one")
    return parser.parse_args(words)
