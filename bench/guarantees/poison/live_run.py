"""Odd records on all topics of Apache Kafka, read by workers of both lanes and a joiner, each a process of its own."""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from bench.guarantees.poison.corpus import make_corpus
from bench.guarantees.poison.expectations import Expectations, Published, find_ends
from bench.guarantees.poison.mutations import Mutator
from bench.guarantees.poison.record_forms import OddRecord
from bench.guarantees.poison.sender import Sender
from contract.errors import BadEvent
from contract.events.model import KINDS
from contract.events.reading import make_readers
from contract.settings.reading import Settings
from testkit.chaos.fleet import JOINER, Fleet, FleetProcess
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment
from testkit.environment.tiny_bundle import ITEMS, publish_tiny
from worker.records.lanes import LANES

TICK_S: Final = 0.05
READY_TIMEOUT_S: Final = 180.0
DRAIN_TIMEOUT_S: Final = 900.0
GOOD_EVERY: Final = 10  # records, one is a good order or click
POISON_EVERY: Final = 100
SENTENCES_MAX: Final = 10
GOOD_KINDS: Final = ("orders", "clicks")
VARIABLES: Final = {"SHOPSTREAM_WORKER__DEAD_LETTER_SHARE_MAX": "1.0", "SHOPSTREAM_WORKER__BATCH_MAX": "1000"}


class LiveOutcome(msgspec.Struct, kw_only=True):
    """`good`: orders among odd records. `shares`: speed of good records with poison to that without, by pair.

    `clean_cpu_share`: the same of records by CPU second of the workers, which other load moves less.
    """

    records: int = 0
    good: int = 0
    refused: int = 0
    dead_letters: int = 0
    restarts: int = 0
    unanswered: int = 0
    clean_share: float = 0.0
    clean_cpu_share: float = 0.0
    shares: list[float] = msgspec.field(default_factory=list)
    seconds: float = 0.0


class LiveRun:
    """One run on new topics. `mutated`: how many mutated records follow the corpus; `pairs`: of measured backlogs."""

    def __init__(
        self,
        *,
        environment: RunEnvironment,
        seed: int,
        mutated: int,
        pairs: int,
        backlog: int,
        report: Callable[[str], None],
        corpus: Sequence[OddRecord] | None = None,
    ) -> None:
        self._environment, self._report = environment, report
        self._mutated, self._pairs, self._backlog = mutated, pairs, backlog
        self._corpus = list(make_corpus()) if corpus is None else list(corpus)
        self._mutator = Mutator(seed)
        settings = Settings()
        self._readers = make_readers(settings.intake, settings.tasks)
        self._expectations = Expectations(self._readers)
        self._outcome = LiveOutcome()
        self._sender = Sender(environment, self._expectations, report)
        self._fleet = Fleet(environment=environment, variables=VARIABLES, workers_per_lane=1, joiners=1)

    def run(self) -> LiveOutcome:
        """Send everything, wait until it is committed, compare, then measure."""
        begin_s = time.monotonic()
        self._environment.create_topics()
        publish_tiny(self._environment.bundles, "v1")
        for item in ITEMS:
            self._sender.send(self._sender.make_good("products", item_id=item))
        try:
            self._wait("all processes are ready", lambda: not list(self._fleet.find_unready()), READY_TIMEOUT_S)
            self._report(f"sending {len(self._corpus)} records of the corpus and {self._mutated} mutated ones")
            self._send_all([*self._corpus, *self._mutator.make(self._mutated)])
            self._drain()
            self._compare()
            self._measure()
            self._wait("all processes are ready", lambda: not list(self._fleet.find_unready()), READY_TIMEOUT_S)
        finally:
            self._outcome.restarts = len(self._fleet.own_exits)
            for own in self._fleet.own_exits[:SENTENCES_MAX]:
                self._report(f"{own.name} ended by itself with {own.status}:\n{own.tail}")
            self._fleet.close()
        self._outcome.records, self._outcome.refused = len(self._expectations.odd), self._sender.refused
        self._outcome.good = len(self._expectations.good_orders)
        self._outcome.seconds = round(time.monotonic() - begin_s, 1)
        return self._outcome

    def _send_all(self, records: Iterable[OddRecord]) -> None:
        """Send odd records with good ones between them, and wait until Kafka has taken or refused each."""
        for number, record in enumerate(records):
            if number % GOOD_EVERY == 0:
                self._sender.send(self._sender.make_good(GOOD_KINDS[number // GOOD_EVERY % len(GOOD_KINDS)]))
            self._sender.send(record)
        self._sender.flush()

    def _drain(self, kinds: Sequence[str] = tuple(KINDS)) -> float:
        """Wait until both lanes have committed all records of these kinds that were taken; returns the seconds."""
        ends, groups = find_ends(self._expectations.odd), list[_Group]()
        for name, lane in LANES.items():
            topics = {self._environment.topics.topic_name(kind) for kind in lane.kinds if kind in kinds}
            own = {partition: end for partition, end in ends.items() if partition[0] in topics}
            groups.append(_Group(self._environment.kafka.bootstrap, self._environment.group_id(name), own))
        try:
            begin_s = time.monotonic()
            self._wait("everything is committed", lambda: all(group.is_done() for group in groups), DRAIN_TIMEOUT_S)
            return time.monotonic() - begin_s
        finally:
            for group in groups:
                group.close()

    def _compare(self) -> None:
        log, topics, published = (
            KafkaLog(bootstrap=self._environment.kafka.bootstrap),
            self._environment.topics,
            Published(),
        )
        published.add_letters(log.read(topics.dead_letters))
        published.add_scored(log.read(topics.scored))
        published.add_decisions(log.read(topics.decisions))
        sentences = list(self._expectations.find_unanswered(published))
        self._outcome.dead_letters, self._outcome.unanswered = len(published.letters), len(sentences)
        for sentence in sentences[:SENTENCES_MAX]:
            self._report(sentence)

    def _measure(self) -> None:
        """Backlogs of good records, alternately without and with poison."""
        poison = self._repeat_poison()
        cpu_shares = []
        self._measure_backlog(())  # a first one warms up
        for pair in range(self._pairs):
            order = (False, True) if pair % 2 == 0 else (True, False)
            speeds = {is_poisoned: self._measure_backlog(poison if is_poisoned else ()) for is_poisoned in order}
            self._outcome.shares.append(round(speeds[True][0] / speeds[False][0], 3))
            cpu_shares.append(speeds[True][1] / speeds[False][1])
            self._report(
                f"pair {pair + 1}: {speeds[False][0]:,.0f} good records a second, {speeds[True][0]:,.0f} with poison"
            )
        if self._pairs:
            self._outcome.clean_share = round(statistics.median(self._outcome.shares), 3)
            self._outcome.clean_cpu_share = round(statistics.median(cpu_shares), 3)

    def _repeat_poison(self) -> Iterator[OddRecord]:
        """The corpus again and again, without erasures that can be read: each is a search through all of Redis."""
        poison = [record for record in self._corpus if record.kind != "erasures" or not self._is_readable(record)]
        while True:
            yield from self._mutator.shuffle(poison)

    def _is_readable(self, record: OddRecord) -> bool:
        try:
            self._readers[record.kind].read(record.value)
        except BadEvent:
            return False
        return True

    def _measure_backlog(self, poison: Iterable[OddRecord]) -> tuple[float, float]:
        """Good records by second and by CPU second, from frozen workers until all is committed."""
        workers, odd = [process for process in self._fleet.processes if process.role != JOINER], iter(poison)
        for process in self._fleet.processes:
            signal_process(process, signal.SIGSTOP)
        try:
            for number in range(self._backlog):
                self._sender.send(self._sender.make_good(GOOD_KINDS[number % len(GOOD_KINDS)]))
                if number % POISON_EVERY == 0 and (record := next(odd, None)):
                    self._sender.send(record)
            self._sender.flush()
        finally:
            before_s = sum(map(read_cpu_s, workers))
            for process in self._fleet.processes:
                signal_process(process, signal.SIGCONT)
        seconds = self._drain(GOOD_KINDS)
        return self._backlog / seconds, self._backlog / max(sum(map(read_cpu_s, workers)) - before_s, 1e-9)

    def _wait(self, what: str, is_done: Callable[[], bool], timeout_s: float) -> None:
        """Wait until a condition holds, starting processes that do not run; raises RuntimeError."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._fleet.tick()
            if is_done():
                return
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"In {timeout_s:g} s {what} should hold. Found {list(self._fleet.find_unready())}.")
            time.sleep(TICK_S)


class _Group:
    """Whether a group has committed these ends."""

    def __init__(self, bootstrap: str, group: str, ends: dict[tuple[str, int], int]) -> None:
        self._ends = ends
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})

    def is_done(self) -> bool:
        try:
            committed = self._consumer.committed([TopicPartition(*partition) for partition in self._ends], 10)
        except KafkaException:  # its coordinator is still being elected
            return False
        return all(tp.offset >= self._ends[tp.topic, tp.partition] for tp in committed)

    def close(self) -> None:
        self._consumer.close()


def signal_process(process: FleetProcess, number: signal.Signals) -> None:
    if pid := process.process.child.pid:
        os.kill(pid, number)


def read_cpu_s(process: FleetProcess) -> float:
    times = psutil.Process(process.process.child.pid).cpu_times()
    return times.user + times.system
