"""Whole workers of the orders lane, asked over HTTP while they run or stand still."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka.admin import AdminClient

from contract.messages import to_json
from devservers.process import ChildProcess, find_free_ports
from testkit.environment.run_environment import RunEnvironment
from tests.kafka import BlockingProducer, read_topics
from tests.probes import fetch_answer
from tests.worker.events import make_order

TIMEOUT_S = 60.0
# Short times, so that a test waits for seconds.
TIMES = {"SHOPSTREAM_WORKER__BLOCKED_S": "2", "SHOPSTREAM_WORKER__STALL_S": "6"}


class WorkerProcess(ChildProcess):
    """`python -m worker score --lane LANE` in an environment; `variables` are added to those of its settings."""

    def __init__(
        self, environment: RunEnvironment, *, lane: str = "orders", variables: Mapping[str, str] | None = None
    ) -> None:
        (self.port,) = find_free_ports(1)
        self.run_environment = environment
        super().__init__(
            command=environment.worker_command(lane),
            output=environment.folder / f"{lane}.log",
            environment={
                **environment.env_variables(),
                **TIMES,
                "SHOPSTREAM_WORKER__HTTP_PORT": str(self.port),
                "SHOPSTREAM_KAFKA__SESSION_TIMEOUT_MS": "6000",
                **(variables or {}),
            },
        )

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 while the port does not answer."""
        return fetch_answer(self.port, path)

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of a sample; None without one."""
        text = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        sample = re.search(rf"^shopstream_{name}{re.escape('{' + text + '}')} (\S+)$", self.fetch("/metrics")[1], re.M)
        return float(sample[1]) if sample else None

    def lag(self, kind: str, partition: int = 0, what: str = "records") -> float | None:
        topic = self.run_environment.topics.topic_name(kind)
        return self.metric(f"lag_{what}", topic=topic, partition=str(partition))

    def is_ready(self) -> bool:
        return self.fetch("/readyz") == (200, "ok\n")

    def says(self, path: str, *words: str) -> bool:
        """Whether a probe fails with all these words."""
        status, body = self.fetch(path)
        return status == 503 and all(word in body for word in words)

    def has_logged(self, *words: str) -> bool:
        """Whether one line of the log has all these words."""
        lines = self.output.read_text().splitlines() if self.output.exists() else []
        return any(all(word in line for word in words) for line in lines)

    def wait_for(self, condition: Callable[[], Any]) -> None:
        try:
            self.wait_until(lambda: bool(condition()), timeout_s=TIMEOUT_S)
        except Exception as error:
            probes = {path: self.fetch(path) for path in ("/livez", "/readyz")}
            raise AssertionError(f"{error} Found {probes} and:\n{self.tail()}") from error


def send_orders(environment: RunEnvironment, *ids: str, partition: int = 0) -> None:
    """Send orders to one partition."""
    with BlockingProducer(environment.kafka.bootstrap) as producer:
        orders = [make_order(ident, "i", ts_ms=time.time_ns() // 1_000_000) for ident in ids]
        producer.send(environment.topics.orders, [("u", to_json(order)) for order in orders], partition=partition)


def count_decisions(environment: RunEnvironment) -> int:
    return len(read_topics(environment.kafka.bootstrap, environment.topics.decisions))


def delete_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.delete_topics([topic])[topic].result()
