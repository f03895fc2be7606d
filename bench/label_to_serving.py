"""From a label's event to the first decision by a model that has learned from it, through every process in between.

A worker decides orders; labels of some come; the joiner makes examples of them; `training follow` learns and
publishes; the worker takes the bundle up. A round ends with the first decision of a model whose positions cover the
examples of the round's labels.
"""

import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from bench.load import Load
from bench.pump import Pump
from bench.track import Track
from contract.bundle import read_manifest
from contract.events import Label
from contract.messages import read_decision, read_example, to_json
from demo.health_probe import HealthProbe
from devservers.process import ChildProcess, find_free_ports

RATE: Final = 20.0  # orders a second
LABELS: Final = 100  # a round
PAUSE_S: Final = 5.0  # of `training follow` between two looks; 30 by default
READY_S: Final = 120.0
ROUND_S: Final = 180.0
LOOK_S: Final = 0.05


@dataclass(slots=True)
class Seen:
    """When each model first decided (seconds since 1970), and where the examples of orders lie."""

    first_s: dict[str, float] = field(default_factory=dict)
    examples: dict[str, tuple[int, int]] = field(default_factory=dict)
    decided: list[str] = field(default_factory=list)


class LabelToServing:
    """One worker, the joiner and the learner, on topics of their own; `track.folder` holds a bundle's checkpoint."""

    def __init__(self, *, track: Track, seed: int) -> None:
        self._track, self._seed = track, seed
        self._seen, self._stop = Seen(), threading.Event()
        track.create_topics()

    def run(self, rounds: int, told: Callable[[str], None]) -> list[float]:
        """Seconds of each round; raises RuntimeError where one takes too long."""
        bootstrap, topics = self._track.kafka.bootstrap, self._track.topics
        pump = Pump(bootstrap=bootstrap, topics=topics, load=Load(self._seed, None), rate=RATE, orders_every=1)
        watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        with ExitStack() as stack:
            watcher.start()
            stack.callback(watcher.join)
            stack.callback(self._stop.set)
            children = [
                self._child(stack, "worker", "score", "--lane", "orders"),
                self._child(stack, "worker", "feedback"),
            ]
            children.append(self._child(stack, "training", "follow"))
            stack.enter_context(pump)
            found = list[float]()
            for number in range(rounds):
                found.append(self._round(pump, number, children))
                told(f"round {number + 1}: {found[-1]:.1f} s from label to serving")
        return found

    def _child(self, stack: ExitStack, module: str, *words: str) -> ChildProcess:
        (port,) = find_free_ports(1)
        told = {
            **self._track.environment(),
            "SHOPSTREAM_WORKER__HTTP_PORT": str(port),
            "SHOPSTREAM_TRAINING__PAUSE_S": str(PAUSE_S),
        }
        output = self._track.folder / f"{self._track.prefix}{words[0]}.log"
        child = ChildProcess(command=[sys.executable, "-m", module, *words], output=output, environment=told)
        child.start()
        stack.callback(child.stop)
        if module == "worker":
            child.wait_until(HealthProbe(port).is_ready, timeout_s=READY_S)
        return child

    def _round(self, pump: Pump, number: int, children: Sequence[ChildProcess]) -> float:
        """Label decided orders that have no label yet, and wait for a model that knows of it."""
        deadline = time.monotonic() + ROUND_S
        begin = number * LABELS
        while len(self._seen.decided) < begin + LABELS:
            self._wait(deadline, children, "decisions to label")
        chosen, at_s = self._seen.decided[begin : begin + LABELS], time.time()
        self._label([(order, pump.orders[order]) for order in chosen], at_s, number)
        while not any(self._knows(version, chosen) for version in list(self._seen.first_s)):
            self._wait(deadline, children, "a model that has learned from the labels")
        return min(self._seen.first_s[v] for v in list(self._seen.first_s) if self._knows(v, chosen)) - at_s

    def _wait(self, deadline: float, children: Sequence[ChildProcess], what: str) -> None:
        dead = [child.tail() for child in children if not child.is_running]
        if dead or time.monotonic() > deadline:
            tails = "\n".join(dead or [child.tail() for child in children])
            raise RuntimeError(f"There should be {what} in {ROUND_S:g} s. Found:\n{tails}")
        time.sleep(LOOK_S)

    def _label(self, orders: Sequence[tuple[str, str]], at_s: float, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        producer = Producer({"bootstrap.servers": self._track.kafka.bootstrap, "linger.ms": 5, "log_level": 3})
        for order, user in orders:
            label = Label(
                event_id=f"l-{order}",
                ts_ms=round(at_s * 1000),
                user_id=user,
                judged_event_id=order,
                task="fraud",
                value=float(chance.random() < 0.2),
            )
            producer.produce(self._track.topics.labels, to_json(label), user)
        producer.flush(READY_S)

    def _knows(self, version: str, orders: Sequence[str]) -> bool:
        """Whether a model was taught with the examples of all these orders."""
        places = [self._seen.examples.get(order) for order in orders]
        positions = read_manifest(self._track.folder / "bundles", version).positions
        topic = self._track.topics.feedback
        return all(place is not None and positions.get(f"{topic}/{place[0]}", 0) > place[1] for place in places)

    def _watch(self) -> None:
        """Look at decisions and at feedback as they come."""
        topics = self._track.topics
        consumer = Consumer(
            {"bootstrap.servers": self._track.kafka.bootstrap, "group.id": "watcher", "enable.auto.commit": False}
        )
        named = [(topic, p) for topic in (topics.decisions, topics.feedback) for p in range(topics.partitions)]
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for topic, p in named])
        while not self._stop.is_set():
            for message in consumer.consume(500, LOOK_S):
                if message.error() is not None:
                    continue
                if message.topic() == topics.decisions:
                    decision = read_decision(message.value() or b"")
                    self._seen.decided.append(decision.event_id)
                    self._seen.first_s.setdefault(decision.model_version, time.time())
                elif (example := read_example(message.value() or b"")).labels:
                    self._seen.examples[example.event_id] = (message.partition() or 0, message.offset() or 0)
        consumer.close()
