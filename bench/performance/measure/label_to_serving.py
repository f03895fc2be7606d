"""Measures the time from a label to the first decision by a model that has learned from it, through all processes.

A score worker decides orders; labels of some arrive; the joiner publishes their examples; the learner (`training
follow`) updates the model and publishes it; the worker activates the bundle. A round ends with the first decision of a
model whose positions cover the examples of the round's labels.
"""

import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Producer

from bench.performance.load.rate_producer import RateProducer
from bench.performance.load.workload import LoadGenerator
from bench.performance.measure.environment import BenchEnvironment
from bench.performance.measure.worker_processes import start_process
from contract.bundle import read_manifest
from contract.events.model import Label
from contract.messages import read_decision, read_example, to_json
from devservers.process import ChildProcess
from transport.log_reader import TopicTailer
from transport.positions import without_ids
from transport.records import Record

RATE: Final = 20.0  # orders per second
LABELS: Final = 100  # per round
PAUSE_S: Final = 5.0  # of the learner between two polls; 30 by default
FLUSH_TIMEOUT_S: Final = 60.0
ROUND_TIMEOUT_S: Final = 180.0
POLL_S: Final = 0.05
POLL_MS: Final = 50


@dataclass(slots=True)
class ServingTimes:
    """First decision of each model (seconds since 1970), and the partition and offset of each order's example."""

    first_decision_s: dict[str, float] = field(default_factory=dict)
    examples: dict[str, tuple[int, int]] = field(default_factory=dict)
    decided_orders: list[str] = field(default_factory=list)


class LabelToServingRun:
    """A score worker, the joiner and the learner on their own topics; the environment's folder holds a checkpoint."""

    def __init__(self, *, environment: BenchEnvironment, seed: int) -> None:
        self._environment, self._seed = environment, seed
        self._times, self._stop = ServingTimes(), threading.Event()
        environment.create_topics()

    def run(self, rounds: int, report: Callable[[str], None]) -> list[float]:
        """The seconds of each round; raises RuntimeError if one takes too long."""
        bootstrap, topics = self._environment.kafka.bootstrap, self._environment.topics
        producer = RateProducer(
            bootstrap=bootstrap, topics=topics, load=LoadGenerator(self._seed, None), rate=RATE, orders_every=1
        )
        watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        with ExitStack() as stack:
            watcher.start()
            stack.callback(watcher.join)
            stack.callback(self._stop.set)
            children = [
                self._start_process(stack, "worker", "score", "--lane", "orders"),
                self._start_process(stack, "worker", "feedback"),
                self._start_process(stack, "training", "follow"),
            ]
            stack.enter_context(producer)
            rounds_s = list[float]()
            for number in range(rounds):
                rounds_s.append(self._run_round(producer, number, children))
                report(f"round {number + 1}: {rounds_s[-1]:.1f} s from label to serving")
        return rounds_s

    def _start_process(self, stack: ExitStack, module: str, *arguments: str) -> ChildProcess:
        return start_process(
            stack,
            self._environment,
            [sys.executable, "-m", module, *arguments],
            log_name=arguments[0],
            overrides={"SHOPSTREAM_TRAINING__PAUSE_S": str(PAUSE_S)},
            has_probe=module == "worker",
        )

    def _run_round(self, producer: RateProducer, number: int, children: Sequence[ChildProcess]) -> float:
        """Label decided orders that have no label yet, and wait for a model that has learned from the labels."""
        deadline = time.monotonic() + ROUND_TIMEOUT_S
        begin = number * LABELS
        while len(self._times.decided_orders) < begin + LABELS:
            self._wait(deadline, children, "decisions to label")
        chosen, at_s = self._times.decided_orders[begin : begin + LABELS], time.time()
        self._send_labels([(order, producer.orders[order]) for order in chosen], at_s, number)
        while not any(self._has_learned(version, chosen) for version in list(self._times.first_decision_s)):
            self._wait(deadline, children, "a model that has learned from the labels")
        first_decisions_s = [
            decided_s
            for version, decided_s in list(self._times.first_decision_s.items())
            if self._has_learned(version, chosen)
        ]
        return min(first_decisions_s) - at_s

    def _wait(self, deadline: float, children: Sequence[ChildProcess], expected: str) -> None:
        dead = [f"{child.describe_end()}: {child.tail()}" for child in children if not child.is_running]
        if dead or time.monotonic() > deadline:
            tails = "\n".join(dead or [child.tail() for child in children])
            raise RuntimeError(f"There should be {expected} in {ROUND_TIMEOUT_S:g} s. Found:\n{tails}")
        time.sleep(POLL_S)

    def _send_labels(self, orders: Sequence[tuple[str, str]], at_s: float, number: int) -> None:
        rng = random.Random(f"{self._seed} {number}")
        producer = Producer({"bootstrap.servers": self._environment.kafka.bootstrap, "linger.ms": 5, "log_level": 3})
        for order, user in orders:
            label = Label(
                event_id=f"l-{order}",
                ts_ms=round(at_s * 1000),
                user_id=user,
                judged_event_id=order,
                task="fraud",
                value=float(rng.random() < 0.2),
            )
            producer.produce(self._environment.topics.labels, to_json(label), user)
        producer.flush(FLUSH_TIMEOUT_S)

    def _has_learned(self, version: str, orders: Sequence[str]) -> bool:
        """Whether a model has learned from the examples of all these orders."""
        positions_of_examples = [self._times.examples.get(order) for order in orders]
        positions = without_ids(read_manifest(self._environment.folder / "bundles", version).positions)
        topic = self._environment.topics.feedback
        return all(
            position is not None and positions.get(f"{topic}/{position[0]}", 0) > position[1]
            for position in positions_of_examples
        )

    def _watch(self) -> None:
        """Read decisions and examples as they come."""
        topics = self._environment.topics
        tailer = TopicTailer(kafka=self._environment.kafka_settings, topics=[topics.decisions, topics.feedback])
        with closing(tailer):
            while not self._stop.is_set():
                for record in tailer.poll(500, POLL_MS):
                    self._record(record)

    def _record(self, record: Record) -> None:
        value = record.value or b""
        if record.topic_partition.topic == self._environment.topics.decisions:
            decision = read_decision(value)
            self._times.decided_orders.append(decision.event_id)
            self._times.first_decision_s.setdefault(decision.model_version, time.time())
        elif (example := read_example(value)).labels:
            self._times.examples[example.event_id] = (record.topic_partition.partition, record.offset)
