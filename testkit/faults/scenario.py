"""A scenario: two workers on their own topics and Redis prefix, a fault, and the count of broken promises."""

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from testkit.audits.delivery_ledger import DeliveryLedger
from testkit.audits.published_outputs import record_outputs
from testkit.audits.state_audit import StateAudit
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment
from testkit.faults.worker_harness import LANE, FaultyWorker, WorkerDeath, build_settings
from testkit.oracle.profiles import ProfileOracle
from testkit.traffic.event_generator import Traffic
from testkit.traffic.producer import AcknowledgedRecord, TrafficProducer
from transport.records import TopicPartition
from worker.redis.client import RedisClient
from worker.state.profile_store import open_profile_store

PARTITIONS: Final = 4
TIMEOUT_S: Final = 180.0  # the open transaction of a zombie holds the offsets of the group back for 60 s and more
POLL_S: Final = 0.05
ORDERS_PER_SEND: Final = 24
INSTANCES: Final = ("0", "1")


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """Result of a scenario: one sentence for each broken promise."""

    slices: int
    mismatches: list[str]
    lost: list[str]
    conflicting: list[str]

    @property
    def violations(self) -> list[str]:
        """All sentences."""
        return [*self.mismatches, *self.lost, *self.conflicting]


@dataclass(slots=True)
class FaultOptions:
    """Options that a fault needs.

    `keeps_claims`: Redis loses no claim, so cached decisions are compared. Otherwise no order may be produced twice:
    its second copy would be decided again, from a later state.
    """

    keeps_claims: bool = True
    duplicate_share: float = 0.01
    on_lost_log: str = "stop"
    client_settings: Mapping[str, int] = field(default_factory=dict)


class Scenario:
    """Sends orders and accompanying events, steps the workers, and evaluates the result."""

    def __init__(self, *, environment: RunEnvironment, seed: str, options: FaultOptions) -> None:
        self.environment, self.options = environment, options
        self.rng = random.Random(seed)
        self.topics = [environment.topics.topic_name(kind) for kind in LANE.folded_kinds]
        self.admin = AdminClient({"bootstrap.servers": environment.kafka.bootstrap, "log_level": 0})
        self.redis = RedisClient(url=environment.redis.url, timeout_s=30)
        self.log = KafkaLog(bootstrap=environment.kafka.bootstrap)
        self.on_lost_log = options.on_lost_log
        self.removed_offsets: dict[TopicPartition, range] = {}  # deleted by retention before they were answered
        self.prior_oracle: ProfileOracle | None = None  # has folded records that are no longer in the log
        names = [
            *self.topics,
            *(environment.topics.topic_name(kind) for kind in ("decisions", "scored", "dead_letters")),
        ]
        environment.kafka.create_topics({name: PARTITIONS if name in self.topics else 1 for name in names})
        self.traffic = Traffic(
            lane="orders", seed=self.rng.randrange(2**32), now_ms=now_ms, retry_share=options.duplicate_share
        )
        self.producers = [self._create_producer()]
        self.workers: list[FaultyWorker] = []

    def open(self) -> None:
        """Start both workers and wait until each owns a share of the partitions."""
        self.send()
        for instance in INSTANCES:
            self.workers.append(self.create_worker(instance))
        self.run_until(self.is_balanced)

    def create_worker(self, instance: str) -> FaultyWorker:
        """Start a worker, or its successor."""
        options = self.options
        settings = build_settings(
            self.environment, instance, on_lost_log=self.on_lost_log, client_settings=options.client_settings
        )
        worker = FaultyWorker(environment=self.environment, settings=settings)
        worker.stop.while_waiting = lambda: self._heartbeat_others(worker)
        return worker

    def _heartbeat_others(self, waiting_worker: FaultyWorker) -> None:
        for number, worker in enumerate(self.workers):
            if worker is not waiting_worker:
                with self.restart_on_death(number):
                    worker.heartbeat()

    def is_balanced(self) -> bool:
        """Whether every partition has one owner, and every worker owns some."""
        owned = [partition for worker in self.workers for partition in worker.consumer.assignment]
        all_own_partitions = all(worker.consumer.assignment for worker in self.workers)
        return all_own_partitions and len(owned) == len(set(owned)) == len(self.list_partitions())

    def list_partitions(self) -> list[TopicPartition]:
        """Every partition of the topics that the workers read."""
        topics = self.admin.list_topics(timeout=10).topics
        return [
            TopicPartition(topic, partition)
            for topic in self.topics
            if topic in topics
            for partition in topics[topic].partitions
        ]

    def send(self, count: int = ORDERS_PER_SEND) -> None:
        """Send `count` more orders and accompanying events; returns when they are acknowledged."""
        self.producers[-1].send(count)
        self.producers[-1].flush()

    def step_workers(self) -> None:
        """One step of each worker in random order; a worker that dies is restarted."""
        for number in self.rng.sample(range(len(self.workers)), len(self.workers)):
            with self.restart_on_death(number):
                self.workers[number].step()

    def run_periodic(self) -> None:
        for number, worker in enumerate(self.workers):
            with self.restart_on_death(number):
                worker.run_periodic()

    @contextmanager
    def restart_on_death(self, number: int) -> Iterator[None]:
        """Restart the worker if it dies in the block."""
        try:
            yield
        except WorkerDeath:
            self.restart_worker(number)

    def restart_worker(self, number: int) -> FaultyWorker:
        """Abandon a worker and start its successor."""
        self.workers[number].close(in_order=False)
        self.workers[number] = self.create_worker(self.workers[number].instance)
        return self.workers[number]

    def run_until(self, is_reached: Callable[[], bool], *, sending: bool = False) -> None:
        """Step the workers until the condition holds; raises RuntimeError on a timeout."""
        deadline = time.monotonic() + TIMEOUT_S
        while not is_reached():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{is_reached} should hold within {TIMEOUT_S:g} s. Found {self.find_lagging()}.")
            if sending and not self.rng.randrange(3):
                self.send(ORDERS_PER_SEND // 2)
            self.step_workers()
            if not self.rng.randrange(8):
                self.run_periodic()

    def drain(self) -> None:
        """Step the workers until every record is committed and merged into every bucket of Redis."""
        ends = self.log.read_end_offsets(self.topics)
        deadline = time.monotonic() + TIMEOUT_S
        while lagging := self.find_lagging(ends):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Everything should be committed and merged in {TIMEOUT_S:g} s. Found {lagging}.")
            self.step_workers()
            self.run_periodic()

    def find_lagging(self, ends: Mapping[tuple[str, int], int] | None = None) -> list[str]:
        """Partitions that are not committed to their ends, or else sources not merged into every bucket."""
        ends = self.log.read_end_offsets(self.topics) if ends is None else ends
        committed = {partition: offset for w in self.workers for partition, offset in w.offsets.committed.items()}
        sources = {partition: source for w in self.workers for partition, source in w.offsets.sources.items()}
        uncommitted = [
            f"{partition} at {committed.get(TopicPartition(*partition))} of {end}"
            for partition, end in ends.items()
            if committed.get(TopicPartition(*partition), -1) < end > 0
        ]
        if uncommitted or len(sources) != len(ends):
            return uncommitted or [f"{len(sources)} of {len(ends)} partitions are owned"]
        profiles = open_profile_store(self.redis, self.environment.redis_prefix)
        profiles.refresh_generation()
        merged = profiles.read_offsets(sources.values())
        unmerged = {
            source
            for offsets_by_source in merged.values()
            for partition, source in sources.items()
            if offsets_by_source.get(source) != ends[partition]
        }
        return [f"{source} is not merged everywhere" for source in sorted(unmerged)]

    def add_partitions(self, topic: str, total: int) -> None:
        """Returns once readers that ask from now on know them."""
        self._wait_for_all(self.admin.create_partitions([NewPartitions(topic, total)]))
        deadline = time.monotonic() + TIMEOUT_S
        while (known := sum(partition.topic == topic for partition in self.list_partitions())) < total:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{topic} should have {total} partitions within {TIMEOUT_S:g} s. Found {known}.")
            time.sleep(POLL_S)

    def delete_records_before(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Delete the records before these offsets, as retention does."""
        self._wait_for_all(
            self.admin.delete_records([KafkaPartition(*partition, offset) for partition, offset in offsets.items()])
        )

    def save_expected_slices(self) -> None:
        """Fold the present log into the oracle, before its records are deleted."""
        audit = StateAudit(self.environment, LANE.folded_kinds)
        self.prior_oracle = audit.build_oracle()
        audit.close()

    def recreate_topic(self, topic: str, before_creation: Callable[[], None] = lambda: None) -> None:
        """Delete a topic and create it again; its earlier slices stay as they are."""
        self.save_expected_slices()
        for name, future in self.admin.delete_topics([topic], operation_timeout=30).items():
            future.result()
            while name in self.admin.list_topics(timeout=10).topics:
                time.sleep(0.02)
        before_creation()
        self.environment.kafka.create_topics({topic: PARTITIONS})
        self.producers.append(self._create_producer())

    def close(self) -> None:
        """Abandon everything; clients in a reference cycle would otherwise go on trying to reach the broker."""
        for worker in self.workers:
            worker.close(in_order=False)
        self.workers.clear()
        self.redis.close()
        gc.collect()

    def evaluate(self) -> ScenarioResult:
        """Compare the answers and the state with what was produced."""
        ledger, audit = DeliveryLedger(), StateAudit(self.environment, LANE.folded_kinds)
        self._fill_ledger(ledger, audit)
        slices, mismatches = len(dict(audit.read_slices())), audit.find_mismatches(self.prior_oracle)
        audit.close()
        return ScenarioResult(slices, mismatches, ledger.find_lost(), ledger.find_conflicts())

    def _fill_ledger(self, ledger: DeliveryLedger, audit: StateAudit) -> None:
        for producer in self.producers:
            producer.acknowledged = [sent for sent in producer.acknowledged if not self._was_removed(sent)]
            producer.fill_ledger(ledger)
        record_outputs(ledger, self.environment, audit, keeps_claims=self.options.keeps_claims)

    def _was_removed(self, sent: AcknowledgedRecord) -> bool:
        topic, partition, offset = sent.position
        return offset in self.removed_offsets.get(TopicPartition(topic, partition), ())

    def _create_producer(self) -> TrafficProducer:
        return TrafficProducer(
            bootstrap=self.environment.kafka.bootstrap, topics=self.environment.topics, traffic=self.traffic, total=0
        )

    @staticmethod
    def _wait_for_all(futures: Mapping[Any, Future[Any]]) -> None:
        for future in futures.values():
            future.result()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
