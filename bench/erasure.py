"""`python -m bench erasure`: people are erased while events flow; how long until nothing of them is left in Redis.

On Apache Kafka and Redis, with a worker for each lane. One person after the other is erased; from the moment at which
Kafka has the request, Redis is asked again and again whether it still holds something covered: slices, decisions,
lists, rankings. Then everything is folded again over an empty Redis, then the state is rebuilt: each time every slice
is compared with a plain oracle that knows the erasures, and what is left of the erased is counted.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Producer

from bench.audit import Audit
from bench.kafka_log import KafkaLog
from bench.ledger import LedgerRun, Plan, tell
from bench.stage import Stage
from contract.events import AHEAD_MS_MAX, Erasure
from contract.messages import read_erasure_confirmation, read_recommendations, to_json
from contract.profiles.record import profile_key
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.oracle.profiles import ProfileOracle
from worker.erasure.slice_eraser import plan_deletion
from worker.redis.client import RedisClient, to_pairs
from worker.state.profile_store import open_profile_store

POLL_S: Final = 0.01
FED_AT_ONCE: Final = 2  # events of each lane, at each look at Redis
WITHIN_S: Final = 120.0


class Spread(msgspec.Struct, frozen=True):
    """Seconds."""

    median: float
    max: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has shown. `gone_s`, `confirmed_s`: from the request until then. `left`: keys that should not be."""

    people: int
    events: int
    gone_s: Spread
    confirmed_s: Spread
    confirmations: int
    left: int
    left_after_replay: int
    left_after_rebuild: int
    mismatches: int
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether everybody is gone, stays so, is confirmed once, and nobody else's slice has changed."""
        left = self.left + self.left_after_replay + self.left_after_rebuild
        return left + self.mismatches == 0 and self.confirmations == self.people and self.gone_s.max <= 60


class Erased(NamedTuple):
    """Somebody, and the orders before that which are covered; `whole`: nothing that was sent before is of later."""

    erasure: Erasure
    orders: list[str]
    whole: bool


class ErasureRun:
    """One run on running servers."""

    def __init__(self, *, stage: Stage, events: int, people: int, seed: int, told: Callable[[str], None]) -> None:
        self.stage, self.people, self.told = stage, people, told
        self.rng = random.Random(seed)
        self.shop = LedgerRun(stage=stage, plan=Plan(orders=events, clicks=events, kills=0, seed=seed), told=told)
        self.redis = RedisClient(url=stage.redis.url, timeout_s=60)
        self.log = KafkaLog(bootstrap=stage.kafka.bootstrap)
        self.producer = Producer({"bootstrap.servers": stage.kafka.bootstrap, "linger.ms": 0, "log_level": 0})
        self.erased: list[Erased] = []

    def run(self) -> Outcome:
        """The whole; raises RuntimeError where a worker ends by itself, or somebody is not gone in two minutes."""
        began = time.monotonic()
        self.stage.create_topics()
        try:
            for victim in self.shop.victims.values():
                victim.start()
            self.check("before")
            gone_s = [self.erase(f"u{user}") for user in self.rng.sample(range(400), self.people)]
            found = [self.check("erased")]
            self.redis.pipeline([("FLUSHALL",)])
            found.append(self.check("folded again"))
            self.rebuild()
            found.append(self.check("rebuilt"))
        finally:
            for victim in self.shop.victims.values():
                victim.child.kill()
                victim.close()
        lefts, mismatches = zip(*found, strict=True)
        confirmed = self.confirmations()
        return Outcome(
            people=self.people,
            events=sum(len(flow.acknowledged) for flow in self.shop.flows.values()),
            gone_s=spread(gone_s),
            confirmed_s=spread(confirmed),
            confirmations=len(confirmed),
            left=lefts[0],
            left_after_replay=lefts[1],
            left_after_rebuild=lefts[2],
            mismatches=sum(mismatches),
            seconds=round(time.monotonic() - began, 1),
        )

    def erase(self, user: str) -> float:
        """Ask for it while events flow; returns the seconds until nothing that is covered is found."""
        one = self.somebody(user, whole=len(self.erased) % 2 == 0)
        erasure, before = one.erasure, self.left(one)
        self.producer.produce(self.stage.topics.erasures, to_json(erasure), user)
        self.producer.flush()
        began = time.monotonic()
        while self.left(one):
            if time.monotonic() > began + WITHIN_S:
                raise RuntimeError(f"{user} should be gone in {WITHIN_S:g} s. Found {self.left(one)} keys.")
            for flow in self.shop.flows.values():
                flow.send(FED_AT_ONCE)
            time.sleep(POLL_S)
        self.erased.append(one)
        self.told(f"{user}: {before} keys gone after {time.monotonic() - began:.2f} s")
        return time.monotonic() - began

    def somebody(self, user: str, *, whole: bool) -> Erased:
        """Whose erasure covers all until now, or what is older than an hour: the rest has to be folded again alone."""
        until_ms = time.time_ns() // 1_000_000 + (AHEAD_MS_MAX if whole else -3_600_000)
        placed = [
            json.loads(sent.value)
            for sent, _ in self.shop.flows["orders"].acknowledged
            if (sent.kind, sent.key, sent.reason) == ("orders", user, None) and sent.value
        ]
        orders = [order["event_id"] for order in placed if whole or order["ts_ms"] <= until_ms]
        return Erased(Erasure(event_id=f"e-{user}", ts_ms=until_ms, user_id=user), orders, whole)

    def left(self, one: Erased) -> int:
        """How much Redis still holds of somebody that their erasure covers."""
        user, prefix = one.erasure.user_id, self.stage.redis_prefix
        profiles = open_profile_store(self.redis, prefix)
        profiles.refresh_generation()
        reply, made, rankings, *decisions = self.redis.pipeline(
            [
                ("HGETALL", profiles.prefix + profile_key(f"user:{user}")),
                ("GET", f"{prefix}rec:{user}"),
                ("KEYS", f"{prefix}search:{user}:*"),
                *(("EXISTS", f"{prefix}decision:{order}") for order in one.orders),
            ]
        )
        until_ms = one.erasure.ts_ms
        slices = [
            plan_deletion(f"user:{user}", source.decode(), until_ms, record, include_ambiguous=False)
            for source, record in to_pairs(reply)
        ]
        has_list = made is not None and read_recommendations(made).source_ms <= until_ms
        found = [covered is not None for covered in slices]
        return sum(map(int, [*found, has_list, *decisions])) + (len(rankings) if one.whole else 0)

    def check(self, when: str) -> tuple[int, int]:
        """Wait until all is answered, confirmed and remembered; what is left of all, and the slices that are wrong."""
        for flow in self.shop.flows.values():
            flow.finish()
        audit = Audit(self.stage)
        self.shop.await_drained(audit)
        until_ms = {f"user:{one.erasure.user_id}": one.erasure.ts_ms for one in self.erased}
        mismatches = audit.mismatches(ProfileOracle(until_ms))
        audit.close()
        left = sum(map(self.left, self.erased))
        self.told(f"{when}: {left} keys left, {len(mismatches)} slices wrong {mismatches[:3]}")
        return left, len(mismatches)

    def rebuild(self) -> None:
        """As an operator does, beside the workers."""
        output = self.stage.folder / "rebuild.log"
        command = [*self.stage.command("orders")[:-3], "rebuild"]
        child = ChildProcess(command=command, output=output, environment=self.stage.environment())
        child.start()
        while child.is_running:
            time.sleep(POLL_S)
        if (status := child.stop()) != 0:
            raise RuntimeError(f"The state should be rebuilt. Found status {status}:\n{child.tail()}")

    def confirmations(self) -> list[float]:
        """The seconds between the two records in Kafka, by Kafka's own clock, of each confirmation."""
        asked_ms = {logged.key: logged.kafka_ms for logged in self.log.read(self.stage.topics.erasures)}
        said = list(self.log.read(self.stage.topics.erased))
        assert {read_erasure_confirmation(logged.value or b"").event_id for logged in said} <= {
            o.erasure.event_id for o in self.erased
        }
        return [(logged.kafka_ms - asked_ms[logged.key]) / 1000 for logged in said]


def spread(seconds: Sequence[float]) -> Spread:
    return Spread(round(statistics.median(seconds), 2), round(max(seconds), 2)) if seconds else Spread(0.0, 0.0)


def main(words: Sequence[str]) -> int:
    """Run it on servers of its own; 0 if everybody is gone within a minute and stays so."""
    arguments = parse(words)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-erasure-")))
        kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        stage = Stage(kafka=kafka, redis=redis, folder=folder)
        run = ErasureRun(stage=stage, events=arguments.events, people=arguments.people, seed=arguments.seed, told=tell)
        outcome = run.run()
    if arguments.json:
        print(msgspec.json.encode(outcome).decode())
    else:
        for name, value in msgspec.structs.asdict(outcome).items():
            print(f"{name:20} {value}")
    return 0 if outcome.kept else 1


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench erasure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=40, help="how many of 400 are erased")
    parser.add_argument("--events", type=int, default=4_000, help="orders, and clicks, that lie there before")
    parser.add_argument("--seed", type=int, default=20111209, help="of the traffic and of who is erased")
    parser.add_argument("--json", action="store_true", help="the outcome as one line of JSON, the last one")
    return parser.parse_args(words)
