"""A scene: two workers on topics and a Redis prefix of their own, a fault, and the count of what came of it."""

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

from bench.audit import Audit
from bench.flow import Flow
from bench.guarantee import GuaranteeLedger
from bench.kafka_log import KafkaLog
from bench.mortal import LANE, Died, Mortal, settings_of
from bench.stage import Stage
from bench.traffic import Traffic
from contract.messages import DEAD_LETTER_HEADER, Decision, read_dead_letter, read_decision, read_scored_row
from testkit.oracle.profiles import ProfileOracle
from transport.records import TopicPartition
from worker.redis.client import RedisClient
from worker.state.profile_store import open_profile_store

PARTITIONS: Final = 4
WITHIN_S: Final = 90.0
PORTION: Final = 24
INSTANCES: Final = ("0", "1")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scene has shown: sentences for each promise that was broken."""

    slices: int
    mismatches: list[str]
    lost: list[str]
    conflicting: list[str]

    @property
    def broken(self) -> list[str]:
        """All sentences."""
        return [*self.mismatches, *self.lost, *self.conflicting]


@dataclass(slots=True)
class Terms:
    """What a fault asks of its scene.

    `keeps_claims`: Redis loses no claim, so the cached decisions are asked for. Else no order is produced twice: its
    second copy would be decided anew, by what is known then.
    """

    keeps_claims: bool = True
    retried: float = 0.01
    on_lost_log: str = "stop"
    client: Mapping[str, int] = field(default_factory=dict)


class Scene:
    """Sends orders and what goes along, moves the workers, and counts at the end."""

    def __init__(self, *, stage: Stage, seed: str, terms: Terms) -> None:
        self.stage, self.terms = stage, terms
        self.rng = random.Random(seed)
        self.topics = [stage.topics.topic_name(kind) for kind in LANE.folded_kinds]
        self.admin = AdminClient({"bootstrap.servers": stage.kafka.bootstrap, "log_level": 0})
        self.redis = RedisClient(url=stage.redis.url, timeout_s=30)
        self.log = KafkaLog(bootstrap=stage.kafka.bootstrap)
        self.on_lost_log = terms.on_lost_log
        self.removed: dict[TopicPartition, range] = {}  # records that retention took before they were answered
        self.begun: ProfileOracle | None = None  # knows of records that are in the log no more
        names = [*self.topics, *(stage.topics.topic_name(kind) for kind in ("decisions", "scored", "dead_letters"))]
        stage.kafka.create_topics({name: PARTITIONS if name in self.topics else 1 for name in names})
        self.traffic = Traffic(lane="orders", seed=self.rng.randrange(2**32), now_ms=now_ms, retried=terms.retried)
        self.flows = [self._flow()]
        self.workers: list[Mortal] = []

    def open(self) -> None:
        """Both workers at work, with a share of the partitions each."""
        self.send()
        for instance in INSTANCES:
            self.workers.append(self.born(instance))
        self.until(self.settled)

    def born(self, instance: str) -> Mortal:
        """A new life."""
        terms = self.terms
        settings = settings_of(self.stage, instance, on_lost_log=self.on_lost_log, client=terms.client)
        worker = Mortal(stage=self.stage, settings=settings)
        worker.stop.meanwhile = lambda: self._stay_beside(worker)
        return worker

    def _stay_beside(self, waiting: Mortal) -> None:
        for number, worker in enumerate(self.workers):
            if worker is not waiting:
                with self.mourned(number):
                    worker.stay()

    def settled(self) -> bool:
        """Whether every partition has one owner, and every worker owns some."""
        held = [place for worker in self.workers for place in worker.intake.assignment]
        spread = all(worker.intake.assignment for worker in self.workers)
        return spread and len(held) == len(set(held)) == len(self.partitions())

    def partitions(self) -> list[TopicPartition]:
        """Every partition that is read."""
        known = self.admin.list_topics(timeout=10).topics
        return [TopicPartition(topic, p) for topic in self.topics if topic in known for p in known[topic].partitions]

    def send(self, count: int = PORTION) -> None:
        """So many more orders and what goes along, acknowledged."""
        self.flows[-1].send(count)
        self.flows[-1].finish()

    def turn(self) -> None:
        """A step of each worker, in any order; who dies comes back."""
        for number in self.rng.sample(range(len(self.workers)), len(self.workers)):
            with self.mourned(number):
                self.workers[number].step()

    def keep_house(self) -> None:
        for number, worker in enumerate(self.workers):
            with self.mourned(number):
                worker.keep_house()

    @contextmanager
    def mourned(self, number: int) -> Iterator[None]:
        """A worker that dies meanwhile is followed by its next life."""
        try:
            yield
        except Died:
            self.replace(number)

    def replace(self, number: int) -> Mortal:
        """Abandon a worker; its next life takes its place."""
        self.workers[number].close(in_order=False)
        self.workers[number] = self.born(self.workers[number].instance)
        return self.workers[number]

    def until(self, reached: Callable[[], bool], *, feeding: bool = False) -> None:
        """Turn until then; raises RuntimeError if it takes too long."""
        deadline = time.monotonic() + WITHIN_S
        while not reached():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{reached} should come true in {WITHIN_S:g} s. Found {self.behind()}.")
            if feeding and not self.rng.randrange(3):
                self.send(PORTION // 2)
            self.turn()
            if not self.rng.randrange(8):
                self.keep_house()

    def drain(self) -> None:
        """Everything sent is answered, and remembered in every bucket of Redis; the workers notice what lacks."""
        ends = self.log.ends(self.topics)
        deadline = time.monotonic() + WITHIN_S
        while behind := self.behind(ends):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Everything should be done in {WITHIN_S:g} s. Found behind: {behind}.")
            self.turn()
            self.keep_house()

    def behind(self, ends: Mapping[tuple[str, int], int] | None = None) -> list[str]:
        """What is not answered, or not merged in some bucket of Redis."""
        ends = self.log.ends(self.topics) if ends is None else ends
        committed = {place: at for w in self.workers for place, at in w.positions.committed.items()}
        sources = {place: source for w in self.workers for place, source in w.positions.sources.items()}
        found = [f"{place} at {committed.get(TopicPartition(*place))} of {end}" for place, end in ends.items()
                 if committed.get(TopicPartition(*place), -1) < end and end]  # fmt: skip
        if found or len(sources) < len(ends):
            return found or [f"{len(sources)} of {len(ends)} partitions are owned"]
        profiles = open_profile_store(self.redis, self.stage.redis_prefix)
        profiles.refresh_generation()
        merged = profiles.merged_offsets(sources.values())
        lacking = {s for held in merged.values() for place, s in sources.items() if held.get(s) != ends[place]}
        return [f"{source} is not merged everywhere" for source in sorted(lacking)]

    def owner(self, place: TopicPartition) -> Mortal | None:
        return next((worker for worker in self.workers if place in worker.intake.assignment), None)

    def add_partitions(self, topic: str, total: int) -> None:
        self._done(self.admin.create_partitions([NewPartitions(topic, total)]))

    def delete_before(self, offsets: Mapping[TopicPartition, int]) -> None:
        """What retention does: records before these offsets are gone."""
        self._done(self.admin.delete_records([KafkaPartition(*place, at) for place, at in offsets.items()]))

    def remember(self) -> None:
        """What the log says now will be in the slices, also when it is gone."""
        audit = Audit(self.stage, LANE.folded_kinds)
        self.begun = audit.oracle()
        audit.close()

    def recreate(self, topic: str, before: Callable[[], None] = lambda: None) -> None:
        """Delete a topic and create it again; its slices so far stay as they are."""
        self.remember()
        for name, future in self.admin.delete_topics([topic], operation_timeout=30).items():
            future.result()
            while name in self.admin.list_topics(timeout=10).topics:
                time.sleep(0.02)
        before()
        self.stage.kafka.create_topics({topic: PARTITIONS})
        self.flows.append(self._flow())

    def close(self) -> None:
        """Abandon everything; clients whose last reference goes with a cycle would try to reach the broker for ever."""
        for worker in self.workers:
            worker.close(in_order=False)
        self.workers.clear()
        self.redis.close()
        gc.collect()

    def verdict(self) -> Verdict:
        """Everything, counted."""
        ledger, audit = GuaranteeLedger(), Audit(self.stage, LANE.folded_kinds)
        self._fill(ledger, audit)
        slices, mismatches = len(dict(audit.slices())), audit.mismatches(self.begun)
        audit.close()
        return Verdict(slices, mismatches, ledger.lost(), ledger.conflicting())

    def _fill(self, ledger: GuaranteeLedger, audit: Audit) -> None:
        for flow in self.flows:
            flow.acknowledged = [a for a in flow.acknowledged
                                 if a.place.offset not in self.removed.get(TopicPartition(*a.place[:2]), ())]  # fmt: skip
            flow.tell(ledger)
        topics, published = self.stage.topics, list[Decision]()
        for logged in self.log.read(topics.decisions):
            published.append(read_decision(logged.value or b""))
            ledger.decided(published[-1])
        for logged in self.log.read(topics.scored):
            ledger.scored(read_scored_row(logged.value or b""))
        for logged in self.log.read(topics.dead_letters):
            ledger.buried(read_dead_letter(logged.headers[DEAD_LETTER_HEADER]), logged.key, logged.value)
        if not self.terms.keeps_claims:
            ledger.cached(published)
        ledger.cached(read_decision(value) for value in audit.decisions(list(ledger.orders)) if value is not None)

    def _flow(self) -> Flow:
        return Flow(bootstrap=self.stage.kafka.bootstrap, topics=self.stage.topics, traffic=self.traffic, total=0)

    @staticmethod
    def _done(futures: Mapping[Any, Future[Any]]) -> None:
        for future in futures.values():
            future.result()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
