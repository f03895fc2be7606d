"""`python -m bench replay`: all orders of a real shop through Kafka, both lanes' workers and Redis.

Everything is produced before the workers start; time is taken by Kafka's timestamps, from the first decision to the
last one. There is no bundle, so rules and popular items answer: the pipeline is measured, not the model.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Producer

from bench.performance.measure.drain import read_cpu_s
from bench.results.report import print_missing_data, print_progress, print_result
from contract.messages import DEAD_LETTER_HEADER, read_dead_letter, read_decision
from demo.online_retail.events import OnlineRetail, count_expected_dead_letters
from demo.online_retail.invoices import read_invoices
from demo.simulator.records import SourceRecord
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.audits.state_audit import StateAudit
from testkit.environment.batch_producer import OutgoingRecord, produce_all
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment
from worker.records.lanes import LANES
from worker.redis.client import RedisClient

DRAIN_TIMEOUT_S: Final = 900.0
LISTS_TIMEOUT_S: Final = 30.0  # without a further list
POLL_S: Final = 0.2
SENTENCES_MAX: Final = 10


class ReplayOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a replay. `cpu_us_per_order`: of both workers, from their first commit on."""

    orders: int
    answered: int
    events_per_second: float
    users_with_recommendations: int
    users_expected: int
    dead_letters: dict[str, int]
    dead_letters_expected: dict[str, int]
    labels: int
    labels_unmatched: int
    profile_mismatches: int
    cpu_us_per_order: float
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every order has a decision or a dead letter, and every slice equals the oracle's."""
        return (
            self.answered + sum(self.dead_letters.values()) == self.orders
            and self.dead_letters == self.dead_letters_expected
            and self.users_with_recommendations == self.users_expected
            and self.profile_mismatches == 0
        )


class RetailReplay:
    """One replay in its own environment."""

    def __init__(self, *, environment: RunEnvironment, data: Path, report: Callable[[str], None]) -> None:
        self.environment = environment
        self.data = data
        self.report = report
        self.log = KafkaLog(bootstrap=environment.kafka.bootstrap)
        self.sent_counts = Counter[str]()

    def run(self) -> ReplayOutcome:
        """Run and evaluate; raises RuntimeError if a worker ends by itself or does not finish."""
        started_s = time.monotonic()
        retail = OnlineRetail(self.data)
        self.environment.create_topics()
        self._produce(retail.records())
        self.report(f"sent {dict(self.sent_counts)}; starting the workers")
        workers = [self._create_worker(lane) for lane in LANES]
        try:
            for worker in workers:
                worker.start()
            cpu_s = self._wait_until_drained(workers)
            self._wait_for_lists()
        finally:
            statuses = [worker.stop() for worker in workers]
        if any(statuses):
            raise RuntimeError(f"Stopped workers should end with 0. Found {statuses}.")
        return self._evaluate(retail, cpu_s, started_s)

    def _produce(self, records: Iterable[SourceRecord]) -> None:
        producer = Producer({"bootstrap.servers": self.environment.kafka.bootstrap, "linger.ms": 50})

        def route() -> Iterator[OutgoingRecord]:
            for record in records:
                self.sent_counts[record.kind] += 1
                yield OutgoingRecord(self.environment.topics.topic_name(record.kind), record.key or None, record.value)

        produce_all(producer, route())

    def _create_worker(self, lane: str) -> ChildProcess:
        variables = {**self.environment.env_variables(), "SHOPSTREAM_WORKER__BATCH_MAX": "500"}
        return ChildProcess(
            command=self.environment.worker_command(lane),
            output=self.environment.folder / f"{lane}.log",
            environment=variables,
        )

    def _wait_until_drained(self, workers: Sequence[ChildProcess]) -> float:
        """Wait until both groups have committed every order; returns the CPU seconds since the first commit."""
        deadline, ends = time.monotonic() + DRAIN_TIMEOUT_S, self.log.read_end_offsets([self.environment.topics.orders])
        started_s: float | None = None
        while True:
            committed = [self.log.read_committed_offsets(self.environment.group_id(lane), ends) for lane in LANES]
            if started_s is None and any(offset > 0 for offsets in committed for offset in offsets.values()):
                started_s = sum(map(read_cpu_s, workers))
            if all(offsets[partition] >= end for offsets in committed for partition, end in ends.items() if end):
                return sum(map(read_cpu_s, workers)) - (started_s or 0.0)
            for worker in workers:
                if not worker.is_running:
                    raise RuntimeError(
                        f"A worker should keep running. Found that it {worker.describe_end()}:\n{worker.tail()}"
                    )
            if time.monotonic() > deadline:
                raise RuntimeError(f"Every order should be committed in {DRAIN_TIMEOUT_S:g} s. Found {committed}")
            time.sleep(POLL_S)

    def _evaluate(self, retail: OnlineRetail, cpu_s: float, started_s: float) -> ReplayOutcome:
        topics = self.environment.topics
        times = list[int]()
        answered = set[str]()
        for record in self.log.read(topics.decisions):
            answered.add(read_decision(record.value or b"").event_id)
            times.append(record.kafka_ms)
        letters = [
            read_dead_letter(dict(record.headers)[DEAD_LETTER_HEADER]) for record in self.log.read(topics.dead_letters)
        ]
        audit = StateAudit(self.environment)
        mismatches = audit.find_mismatches()
        for sentence in mismatches[:SENTENCES_MAX]:
            self.report(sentence)
        orders, took_s = self.sent_counts["orders"], (max(times) - min(times)) / 1000
        audit.close()
        return ReplayOutcome(
            orders=orders,
            answered=len(answered),
            events_per_second=round(orders / took_s, 1),
            users_with_recommendations=self._count_lists(),
            users_expected=self.users_expected,
            dead_letters=dict(sorted(Counter(letter.reason for letter in letters).items())),
            dead_letters_expected=dict(sorted(count_expected_dead_letters(self.data).items())),
            labels=self.sent_counts["labels"],
            labels_unmatched=retail.cancellations.unmatched,
            profile_mismatches=len(mismatches),
            cpu_us_per_order=round(cpu_s / orders * 1e6, 1),
            seconds=round(time.monotonic() - started_s, 1),
        )

    def _wait_for_lists(self) -> None:
        """Wait until every user has a list, or until no list has been added for a while."""
        lists, changed_s = -1, time.monotonic()
        while lists < self.users_expected and time.monotonic() < changed_s + LISTS_TIMEOUT_S:
            time.sleep(POLL_S)
            if (count := self._count_lists()) != lists:
                lists, changed_s = count, time.monotonic()

    @cached_property
    def users_expected(self) -> int:
        """The number of users who bought something."""
        return len({i.customer for i in read_invoices(self.data) if i.is_clean and not i.is_cancellation})

    def _count_lists(self) -> int:
        """The number of users with a list in Redis."""
        client, prefix = RedisClient(url=self.environment.redis.url, timeout_s=60), self.environment.redis_prefix
        keys = {key for page in client.scan(f"{prefix}rec:") for key in page}
        client.close()
        return sum(not key.startswith(f"{prefix}rec:popular") for key in keys)


def main(argv: Sequence[str]) -> int:
    """Replay on its own servers. 0: every promise was kept; 2: the data is missing."""
    arguments = parse(argv)
    if not (arguments.data / "online_retail.parquet").exists():
        print_missing_data(arguments.data)
        return 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-replay-")))
        kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        environment = RunEnvironment(kafka=kafka, redis=redis, folder=folder)
        outcome = RetailReplay(environment=environment, data=arguments.data, report=print_progress).run()
    print_result(outcome, as_json=arguments.json)
    return 0 if outcome.passed else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data")) / "online_retail"
    parser.add_argument("--source", choices=["online_retail"], default="online_retail")
    parser.add_argument("--data", type=Path, default=data, help="the folder with online_retail.parquet")
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
