"""Whole processes go on by themselves after their broker was away for longer than a session, and decide once."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from contract.events.model import Label, UserEvent
from contract.messages import read_decision, read_example, to_json
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment
from tests.kafka import BlockingProducer, read_topics
from tests.polling import wait_until
from tests.worker.events import make_click, make_order

SESSION_MS = 6_000
TIMEOUT_S = 120.0
COMMANDS = {
    "orders": ["score", "--lane", "orders"],
    "browsing": ["score", "--lane", "browsing"],
    "joiner": ["feedback"],
}


class ShopRun:
    """Both lanes and the joiner as processes of one shop."""

    def __init__(self, kafka: ApacheKafka, redis: RedisServer, folder: Path, prefix: str) -> None:
        self.environment = RunEnvironment(kafka=kafka, redis=redis, folder=folder, prefix=prefix)
        self.environment.create_topics()
        variables = {
            **self.environment.env_variables(),
            "SHOPSTREAM_KAFKA__SESSION_TIMEOUT_MS": str(SESSION_MS),
            "SHOPSTREAM_KAFKA__CLIENT": '{"heartbeat.interval.ms": 300}',
        }
        self.processes = [
            ChildProcess(
                command=[sys.executable, "-m", "worker", *words], output=folder / f"{name}.log", environment=variables
            )
            for name, words in COMMANDS.items()
        ]

    def send(self, first: int, count: int) -> None:
        """Send orders from o`first` on, their labels, and as many clicks."""
        now_ms, topics = time.time_ns() // 1_000_000, self.environment.topics
        numbers = range(first, first + count)
        events: dict[str, Sequence[UserEvent]] = {
            topics.orders: [make_order(f"o{n}", user=f"u{n}", ts_ms=now_ms) for n in numbers],
            topics.clicks: [make_click(f"c{n}", user=f"u{n}", ts_ms=now_ms) for n in numbers],
            topics.labels: [
                Label(event_id=f"l{n}", ts_ms=now_ms, user_id=f"u{n}", judged_event_id=f"o{n}", task="fraud", value=1)
                for n in numbers
            ],
        }
        with BlockingProducer(self.environment.kafka.bootstrap) as producer:
            for topic, messages in events.items():
                producer.send(topic, [(message.user_id, to_json(message)) for message in messages])

    def read_values(self, topic: str) -> list[bytes]:
        return [record.value or b"" for record in read_topics(self.environment.kafka.bootstrap, topic)]

    def wait_until_processed(self, count: int) -> None:
        """Return once all orders are decided and labelled, and all clicks answered; raises if a process has ended."""
        topics, group = self.environment.topics, self.environment.group_id("browsing")

        def is_processed() -> bool:
            for process in self.processes:
                assert process.is_running, f"{process.describe_end()}: {process.tail()}"
            return len(self.read_values(topics.decisions)) >= count and len(self.read_values(topics.feedback)) >= count

        wait_until(is_processed, timeout_s=TIMEOUT_S)
        log = KafkaLog(bootstrap=self.environment.kafka.bootstrap)
        log.wait_until_committed(group, [topics.clicks], TIMEOUT_S)


@pytest.mark.apache_kafka
def test_lanes_and_joiner_go_on_after_their_broker_was_killed_twice(
    own_kafka: ApacheKafka, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    # given
    run = ShopRun(own_kafka, redis_server, tmp_path, topic_prefix)
    for process in run.processes:
        process.start()
    try:
        run.send(0, 20)
        run.wait_until_processed(20)
        # when
        for number in (1, 2):
            own_kafka.kill()
            until_s = time.monotonic() + 1.5 * SESSION_MS / 1000
            wait_until(lambda: time.monotonic() > until_s)  # noqa: B023 - called at once
            own_kafka.start()
            run.send(20 * number, 20)
            run.wait_until_processed(20 * (number + 1))
        # then
        once = Counter(f"o{n}" for n in range(60))
        topics = run.environment.topics
        assert Counter(read_decision(value).event_id for value in run.read_values(topics.decisions)) == once
        assert Counter(read_example(value).example_id for value in run.read_values(topics.feedback)) == once
        assert [process.stop() for process in run.processes] == [0, 0, 0]
    finally:
        for process in run.processes:
            process.kill()
