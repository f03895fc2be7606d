"""`python -m bench erasure`: users are erased while events flow; measures the time until no data of them is left.

On Apache Kafka and Redis, with a worker for each lane, a joiner and a learner. One user after the other is erased. From
the acknowledgement of the request on, Redis is polled for covered data: slices, decisions, lists, rankings. Once all
erasures are confirmed, the samples in the learner's checkpoints are counted; then the other orders are labelled, those
of erased users too, and what the joiner publishes and the learner learns of them is counted. Then everything is folded
again over an empty Redis, and then the state is rebuilt. Each time every slice is compared with a plain oracle that
applies the erasures, and the remaining data of the erased users is counted.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import Producer

from bench.guarantees.erasure_outcome import ErasureOutcome, summarize_seconds
from bench.guarantees.erasure_training import TrainingProcesses
from bench.results.report import print_progress, print_result
from contract.events.model import AHEAD_MS_MAX, Erasure
from contract.messages import read_erasure_confirmation, read_recommendations, to_json
from contract.profiles.record import profile_key
from contract.units import HOUR_MS
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.audits.state_audit import StateAudit
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment
from testkit.kills.score_worker_kills import KillPlan, KillRun
from testkit.oracle.profiles import ProfileOracle
from testkit.traffic.event_generator import USERS
from worker.erasure.slice_eraser import has_erased_entries, plan_deletion
from worker.redis.client import RedisClient, to_pairs
from worker.state.profile_store import open_profile_store

POLL_S: Final = 0.01
EVENTS_PER_POLL: Final = 2  # events of each lane that are sent at each poll of Redis
TIMEOUT_S: Final = 120.0


class ErasedUser(NamedTuple):
    """An erased user and the covered orders; `covers_all`: the erasure covers every event sent before it."""

    erasure: Erasure
    orders: list[str]
    covers_all: bool


class ErasureRun:
    """One run on running servers."""

    def __init__(
        self, *, environment: RunEnvironment, events: int, people: int, seed: int, report: Callable[[str], None]
    ) -> None:
        self.environment = environment
        self.people = people
        self.report = report
        self.rng = random.Random(seed)
        self.workers = KillRun(
            environment=environment, plan=KillPlan(orders=events, clicks=events, kills=0, seed=seed), report=report
        )
        self.redis = RedisClient(url=environment.redis.url, timeout_s=60)
        self.log = KafkaLog(bootstrap=environment.kafka.bootstrap)
        self.producer = Producer({"bootstrap.servers": environment.kafka.bootstrap, "linger.ms": 0, "log_level": 0})
        self.training = TrainingProcesses(environment=environment, seed=seed)
        self.erased_users: list[ErasedUser] = []
        self.labelled: set[str] = set()

    def run(self) -> ErasureOutcome:
        """Run and evaluate; raises RuntimeError if a worker ends by itself or data remains for two minutes."""
        started_s = time.monotonic()
        self.environment.create_topics()
        try:
            for process in self.workers.processes.values():
                process.start()
            self.training.start()
            self.check_state("before")
            self.label_orders()
            erased = [f"u{user}" for user in self.rng.sample(range(USERS), self.people)]
            everything = [self.create_erasure(user, covers_all=True).erasure for user in erased]
            samples = self.training.count_samples(everything)
            gone_s = [self.erase(user) for user in erased]
            checks = [self.check_state("erased")]
            left_in_samples, emitted, learned = self.check_training()
            self.redis.pipeline([("FLUSHALL",)])
            checks.append(self.check_state("folded again"))
            self.rebuild()
            checks.append(self.check_state("rebuilt"))
        finally:
            self.training.close()
            for process in self.workers.processes.values():
                process.child.kill()
                process.close()
        lefts, mismatches = zip(*checks, strict=True)
        confirmed_s = self.read_confirmations()
        return ErasureOutcome(
            people=self.people,
            events=sum(len(producer.acknowledged) for producer in self.workers.producers.values()),
            gone_s=summarize_seconds(gone_s),
            confirmed_s=summarize_seconds(confirmed_s),
            confirmations=len(confirmed_s),
            samples=samples,
            left=lefts[0],
            left_in_samples=left_in_samples,
            emitted_afterwards=emitted,
            learned_afterwards=learned,
            left_after_replay=lefts[1],
            left_after_rebuild=lefts[2],
            mismatches=sum(mismatches),
            seconds=round(time.monotonic() - started_s, 1),
        )

    def erase(self, user: str) -> float:
        """Request an erasure while events flow; returns the seconds until no covered key is left."""
        erased_user = self.create_erasure(user, covers_all=len(self.erased_users) % 2 == 0)
        erasure, before = erased_user.erasure, self.count_left(erased_user)
        self.producer.produce(self.environment.topics.erasures, to_json(erasure), user)
        self.producer.flush()
        started_s = time.monotonic()
        while self.count_left(erased_user):
            if time.monotonic() > started_s + TIMEOUT_S:
                raise RuntimeError(
                    f"The data of {user} should be gone in {TIMEOUT_S:g} s. Found {self.count_left(erased_user)} keys."
                )
            for producer in self.workers.producers.values():
                producer.send(EVENTS_PER_POLL)
            time.sleep(POLL_S)
        self.erased_users.append(erased_user)
        self.report(f"{user}: {before} keys gone after {time.monotonic() - started_s:.2f} s")
        return time.monotonic() - started_s

    def create_erasure(self, user: str, *, covers_all: bool) -> ErasedUser:
        """An erasure of everything until now, or of events older than an hour: then the rest is folded again."""
        until_ms = time.time_ns() // 1_000_000 + (AHEAD_MS_MAX if covers_all else -HOUR_MS)
        user_orders = [
            json.loads(record.value)
            for record, _ in self.workers.producers["orders"].acknowledged
            if (record.kind, record.key, record.reason) == ("orders", user, None) and record.value
        ]
        orders = [order["event_id"] for order in user_orders if covers_all or order["ts_ms"] <= until_ms]
        return ErasedUser(Erasure(event_id=f"e-{user}", ts_ms=until_ms, user_id=user), orders, covers_all)

    def label_orders(self) -> None:
        """Label the orders that have none; returns once the learner has learned from them."""
        acknowledged = self.workers.producers["orders"].acknowledged
        records = [record for record, _ in acknowledged if record.kind == "orders" and record.reason is None]
        orders = {record.event_id: record for record in records if record.event_id not in self.labelled}
        chosen = list(orders.values())[: max(1, len(orders) // 2)]
        self.labelled |= {order.event_id for order in chosen}
        self.training.label(chosen, [order for user in self.erased_users for order in user.orders])
        self.report(f"{len(chosen)} orders labelled and learned")

    def check_training(self) -> tuple[int, int, int]:
        """Wait for the confirmations; returns the samples left then, and the examples emitted and learned later."""
        self.training.wait_until(lambda: len(self.read_confirmations()) >= self.people, "all confirmations")
        erasures = [erased_user.erasure for erased_user in self.erased_users]
        left, since_ms = self.training.count_samples(erasures), time.time_ns() // 1_000_000
        self.label_orders()
        emitted, learned = self.training.count_examples(erasures, since_ms), self.training.count_samples(erasures)
        self.report(f"samples left {left}, examples emitted {emitted}, learned {learned}")
        return left, emitted, learned

    def count_left(self, erased_user: ErasedUser) -> int:
        """The number of covered keys, slices and histories that Redis still holds."""
        user, prefix = erased_user.erasure.user_id, self.environment.redis_prefix
        profiles = open_profile_store(self.redis, prefix)
        profiles.refresh_generation()
        reply, histories, list_value, rankings, *decisions = self.redis.pipeline(
            [
                ("HGETALL", profiles.prefix + profile_key(f"user:{user}")),
                ("HVALS", *profiles.keys.histories([f"user:{user}"])),
                ("GET", f"{prefix}rec:{user}"),
                ("KEYS", f"{prefix}search:{user}:*"),
                *(("EXISTS", f"{prefix}decision:{order}") for order in erased_user.orders),
            ]
        )
        until_ms = erased_user.erasure.ts_ms
        slices = [
            plan_deletion(f"user:{user}", source.decode(), until_ms, record, include_ambiguous=False)
            for source, record in to_pairs(reply)
        ]
        has_list = list_value is not None and read_recommendations(list_value).source_ms <= until_ms
        covered_slices = sum(covered is not None for covered in slices)
        covered_slices += sum(has_erased_entries(record, until_ms) for record in histories)
        covered_rankings = len(rankings) if erased_user.covers_all else 0
        return covered_slices + has_list + sum(map(int, decisions)) + covered_rankings

    def check_state(self, phase: str) -> tuple[int, int]:
        """Wait until everything is committed and merged; returns the keys left of all users, and the wrong slices."""
        for producer in self.workers.producers.values():
            producer.flush()
        audit = StateAudit(self.environment)
        self.workers.wait_until_drained(audit)
        until_ms = {
            f"user:{erased_user.erasure.user_id}": erased_user.erasure.ts_ms for erased_user in self.erased_users
        }
        mismatches = audit.find_mismatches(ProfileOracle(until_ms))
        audit.close()
        left = sum(map(self.count_left, self.erased_users))
        self.report(f"{phase}: {left} keys left, {len(mismatches)} slices wrong {mismatches[:3]}")
        return left, len(mismatches)

    def rebuild(self) -> None:
        """Run `python -m worker rebuild` next to the running workers, as an operator does."""
        output = self.environment.folder / "rebuild.log"
        command = [sys.executable, "-m", "worker", "rebuild"]
        child = ChildProcess(command=command, output=output, environment=self.environment.env_variables())
        child.start()
        while child.is_running:
            time.sleep(POLL_S)
        if (status := child.stop()) != 0:
            raise RuntimeError(f"The state should be rebuilt. Found status {status}:\n{child.tail()}")

    def read_confirmations(self) -> list[float]:
        """The seconds between each request and its confirmation, by Kafka's timestamps."""
        requested_ms = {record.key: record.kafka_ms for record in self.log.read(self.environment.topics.erasures)}
        confirmations = list(self.log.read(self.environment.topics.erased))
        assert {read_erasure_confirmation(record.value or b"").event_id for record in confirmations} <= {
            erased_user.erasure.event_id for erased_user in self.erased_users
        }
        return [(record.kafka_ms - requested_ms[record.key]) / 1000 for record in confirmations]


def main(argv: Sequence[str]) -> int:
    """Run on its own servers. 0: all erased data is gone within a minute and stays gone."""
    arguments = parse(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-erasure-")))
        kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        environment = RunEnvironment(kafka=kafka, redis=redis, folder=folder)
        run = ErasureRun(
            environment=environment,
            events=arguments.events,
            people=arguments.people,
            seed=arguments.seed,
            report=print_progress,
        )
        outcome = run.run()
    print_result(outcome, as_json=arguments.json)
    return 0 if outcome.passed else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench erasure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=40, help=f"number of erased users, of {USERS}")
    parser.add_argument(
        "--events", type=int, default=4_000, help="orders, and as many clicks, before the first erasure"
    )
    parser.add_argument("--seed", type=int, default=20111209, help="seed of the traffic and of the choice of users")
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
