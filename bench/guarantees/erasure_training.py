"""The joiner and the learner in `bench erasure`: what they hold of erased people, and what they still learn of them.

A learner updates a small random network from labels of decided orders. What it holds is read from its checkpoints:
replay buffer, pending examples and interactions; the buffer is large enough for every example that it learns from.
"""

import random
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from bench.performance.load.workload import make_checkpoint
from contract.bundle import current_version, read_manifest
from contract.events.model import Erasure, Label
from contract.messages import read_example, to_json
from devservers.process import ChildProcess
from export.exporter import export
from model.checkpoint import read_checkpoint, write_checkpoint
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment
from testkit.traffic.event_generator import TrafficRecord
from training.data.parquet import read_table
from training.online.rejected_updates import RejectedUpdateStore
from transport.positions import without_ids

LEARNER_SETTINGS: Final = {  # the gate passes: with random weights its result would be random
    "SHOPSTREAM_TRAINING__PAUSE_S": "1",
    "SHOPSTREAM_TRAINING__KEEP": "100000",
    "SHOPSTREAM_TRAINING__MARGIN": "1000",
    "SHOPSTREAM_TRAINING__JUMP": "1000000",
    "SHOPSTREAM_TRAINING__REFUSALS_MAX": "1000",
}
TIMEOUT_S: Final = 180.0
POLL_S: Final = 0.2


class TrainingProcesses:
    """A joiner and a learner with bundles of its own: the workers decide by rules, as without this class."""

    def __init__(self, *, environment: RunEnvironment, seed: int) -> None:
        self._environment = environment
        self._rng = random.Random(seed)
        self._bundles = environment.folder / "trained"
        self._log = KafkaLog(bootstrap=environment.kafka.bootstrap)
        checkpoint = make_checkpoint(seed, seed)
        write_checkpoint(self._bundles, checkpoint)
        export(checkpoint, self._bundles, {})
        self._children = [
            self._create_child("worker", "feedback"),
            self._create_child("training", "follow", "--bundles", str(self._bundles)),
        ]

    def start(self) -> None:
        for child in self._children:
            child.start()

    def close(self) -> None:
        for child in self._children:
            child.kill()

    def label(self, orders: Sequence[TrafficRecord], erased: Collection[str]) -> None:
        """Label these orders, and wait until the learner has read the examples of those that are not `erased`."""
        producer = Producer({"bootstrap.servers": self._environment.kafka.bootstrap, "log_level": 0})
        for order in orders:
            label = Label(
                event_id=f"l-{order.event_id}",
                ts_ms=time.time_ns() // 1_000_000,
                user_id=order.key,
                judged_event_id=order.event_id,
                task="fraud",
                value=float(self._rng.random() < 0.2),
            )
            producer.produce(self._environment.topics.labels, to_json(label), order.key)
        producer.flush()
        expected = {order.event_id for order in orders} - set(erased)
        self.wait_until(lambda: self._has_read(expected), "a learner that has read every example")

    def wait_until(self, condition: Callable[[], bool], expected: str) -> None:
        """Wait for `condition`; raises RuntimeError on a timeout or if a process ends."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition():
            dead = [f"{child.describe_end()}: {child.tail()}" for child in self._children if not child.is_running]
            if dead or time.monotonic() > deadline_s:
                tails = "\n".join(dead or [child.tail() for child in self._children])
                raise RuntimeError(f"There should be {expected} in {TIMEOUT_S:g} s. Found:\n{tails}")
            time.sleep(POLL_S)

    def count_samples(self, erasures: Iterable[Erasure]) -> int:
        """The rows in all checkpoints that these erasures cover."""
        until_ms = {erasure.user_id: erasure.ts_ms for erasure in erasures}
        return sum(
            ts_ms <= until_ms.get(user_id, -1)
            for path in (self._bundles / "checkpoints").glob("*.pt")
            for user_id, ts_ms in list_rows(path)
        )

    def count_examples(self, erasures: Iterable[Erasure], since_ms: int) -> int:
        """The examples that the joiner published since, and that these erasures cover."""
        until_ms = {erasure.user_id: erasure.ts_ms for erasure in erasures}
        records = self._log.read(self._environment.topics.feedback)
        examples = [read_example(record.value or b"") for record in records if record.kafka_ms >= since_ms]
        return sum(example.ts_ms <= until_ms.get(example.user_id, -1) for example in examples)

    def _has_read(self, orders: AbstractSet[str]) -> bool:
        """Whether the joiner has published an example of each of these orders, and the learner has read them all."""
        topic = self._environment.topics.feedback
        ends = self._log.read_end_offsets([topic])
        if not orders <= {read_example(record.value or b"").event_id for record in self._log.read(topic)}:
            return False
        version = current_version(self._bundles)
        assert version is not None
        positions: Mapping[str, int] = read_manifest(self._bundles, version).positions
        positions = without_ids(RejectedUpdateStore(self._bundles).resume_positions(version, positions))
        return all(positions.get(f"{name}/{number}", 0) >= end for (name, number), end in ends.items())

    def _create_child(self, module: str, *arguments: str) -> ChildProcess:
        return ChildProcess(
            command=[sys.executable, "-m", module, *arguments],
            output=self._environment.folder / f"{arguments[0]}.log",
            environment={**self._environment.env_variables(), **LEARNER_SETTINGS},
        )


def list_rows(checkpoint_file: Path) -> list[tuple[Any, Any]]:
    """User and time of the rows that a checkpoint holds."""
    checkpoint = read_checkpoint(checkpoint_file, is_lazy=True)
    contents = (checkpoint.replay_buffer, checkpoint.pending_examples, checkpoint.interactions)
    tables = [read_table(content) for content in contents if content]
    return [
        pair
        for table in tables
        for pair in zip(table.column("user_id").to_pylist(), table.column("ts_ms").to_pylist(), strict=True)
    ]
