"""The joiner process, over Kafka."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from contract.events.model import Judgement
from contract.events.reading import decode
from contract.messages import Example, ScoredRow, read_example, to_json, to_msgpack
from contract.settings.worker import FeedbackSettings
from devservers.apache_kafka import ApacheKafka, make_admin_client
from devservers.process import ChildProcess, find_free_ports
from tests.checkout import ROOT
from tests.conftest import KafkaBroker
from tests.contract.joining.builders import FEEDBACK, make_click, make_impression, make_label, make_row, minutes_to_ms
from tests.kafka import read_topics
from tests.probes import fetch_answer
from tests.worker.joiner_simulation import Input, TopicLogs, compute_expected_labels, simulate_shop
from transport.records import TopicPartition

TOPICS = ("scored", "impressions", "clicks", "orders", "labels", "erasures", "feedback", "judgements")
TIMEOUT_S = 60.0


class JoinerTopics:
    """The joiner's topics on a broker."""

    def __init__(self, broker: KafkaBroker, prefix: str, config: Mapping[str, str] | None = None) -> None:
        self.bootstrap, self.prefix = broker.bootstrap, prefix
        self.has_topic_ids = isinstance(broker, ApacheKafka)
        broker.create_topics({f"{prefix}{kind}": 4 for kind in TOPICS}, *([config] if config else []))
        self._producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def send(self, logs: Mapping[TopicPartition, Sequence[Input | bytes | None]]) -> None:
        """Append to the partitions in the given order."""
        for partition, messages in logs.items():
            for message in messages:
                self._producer.produce(
                    f"{self.prefix}{partition.topic}", encode(message), partition=partition.partition
                )
        assert self._producer.flush(30) == 0

    def read_topic(self, kind: str) -> list[tuple[bytes | None, bytes]]:
        """Key and value of each record on a topic now."""
        return [(record.key, record.value or b"") for record in read_topics(self.bootstrap, f"{self.prefix}{kind}")]

    def read_examples(self) -> list[Example]:
        return [read_example(value) for _, value in self.read_topic("feedback")]

    def read_judgements(self) -> list[Judgement]:
        events = [decode("judgements", value) for _, value in self.read_topic("judgements")]
        return [event for event in events if isinstance(event, Judgement)]

    def read_newest_examples(self) -> dict[str, Example]:
        return {e.example_id: e for e in sorted(self.read_examples(), key=lambda e: e.revision)}


def encode(message: Input | bytes | None) -> bytes | None:
    if message is None or isinstance(message, bytes):
        return message
    return to_msgpack(message) if isinstance(message, ScoredRow) else to_json(message)


@pytest.fixture
def kafka(broker: KafkaBroker, topic_prefix: str) -> JoinerTopics:
    return JoinerTopics(broker, topic_prefix)


class JoinerProcess(ChildProcess):
    """`python -m worker feedback` on a test's topics."""

    def __init__(self, kafka: JoinerTopics, output: Path, feedback: FeedbackSettings = FEEDBACK) -> None:
        (self.port,) = find_free_ports(1)
        environment = {
            "PYTHONPATH": str(ROOT),
            "SHOPSTREAM_CONFIG": str(ROOT / "shop.toml"),
            "SHOPSTREAM_FEATURES": str(ROOT / "features.toml"),
            "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
            "SHOPSTREAM_KAFKA__GROUP_PREFIX": f"{kafka.prefix}group",
            "SHOPSTREAM_KAFKA__TOPIC_IDS": str(kafka.has_topic_ids).lower(),
            "SHOPSTREAM_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "SHOPSTREAM_WORKER__HTTP_PORT": str(self.port),
            **{f"SHOPSTREAM_TOPICS__{kind.upper()}": f"{kafka.prefix}{kind}" for kind in TOPICS},
            **{f"SHOPSTREAM_FEEDBACK__{name.upper()}": str(value) for name, value in feedback.model_dump().items()},
            "SHOPSTREAM_FEEDBACK__STORE": str(output.parent / "rows"),
        }
        super().__init__(command=[sys.executable, "-m", "worker", "feedback"], output=output, environment=environment)

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 while the port does not answer."""
        return fetch_answer(self.port, path)

    def wait_for(self, condition: Callable[[], Any]) -> None:
        self.wait_until(lambda: bool(condition()), timeout_s=TIMEOUT_S)


@pytest.fixture
def process(kafka: JoinerTopics, tmp_path: Path) -> Iterator[JoinerProcess]:
    process = JoinerProcess(kafka, tmp_path / "joiner.log")
    yield process
    process.kill()


def split_at(logs: TopicLogs, minutes: float) -> tuple[TopicLogs, TopicLogs]:
    """The logs up to an event time and after it, so that no partition is ahead of another."""
    end_ms = minutes_to_ms(minutes)
    before = {partition: [value for value in values if value.ts_ms <= end_ms] for partition, values in logs.items()}
    after = {partition: [value for value in values if value.ts_ms > end_ms] for partition, values in logs.items()}
    return before, after


def test_a_click_and_a_label_become_examples_and_a_judgement(kafka: JoinerTopics, process: JoinerProcess) -> None:
    kafka.send(
        {
            TopicPartition("scored", 0): [make_row("recommendation", "r", 0, ("a", "b")), make_row("order", "o", 1)],
            TopicPartition("impressions", 0): [make_impression(2, "a", "b")],
            TopicPartition("clicks", 0): [make_click(3, "b")],
            TopicPartition("labels", 0): [make_label(4, 1)],
        }
    )

    process.start()
    process.wait_for(lambda: len(kafka.read_topic("feedback")) == 2 and kafka.read_topic("judgements"))

    assert {(e.example_id, tuple(e.labels.items())) for e in kafka.read_examples()} == {
        ("r~b", (("click", 1.0),)),
        ("o", (("fraud", 1.0),)),
    }
    assert {key for key, _ in kafka.read_topic("feedback")} == {b"u"}
    assert [(j.event_id, j.entities) for j in kafka.read_judgements()] == [("l-fraud-4", ("user:u", "device:d"))]


def test_unreadable_records_are_counted_and_the_others_are_joined(kafka: JoinerTopics, process: JoinerProcess) -> None:
    junk = [None, b"", b"\xff\xfe", b"{", b"[" * 10_000, b"x" * 1_000, b"null"]
    kafka.send({TopicPartition(kind, 0): junk for kind in ("scored", "labels")})
    kafka.send(
        {TopicPartition("scored", 0): [make_row("order", "o", 1)], TopicPartition("labels", 0): [make_label(4, 1)]}
    )
    kafka.send({TopicPartition(kind, 0): junk for kind in ("scored", "labels")})

    process.start()
    process.wait_for(lambda: kafka.read_topic("feedback"))

    process.wait_for(
        lambda: all(
            f'shopstream_unreadable_records_total{{kind="{kind}"}} {2 * len(junk)}.0' in process.fetch("/metrics")[1]
            for kind in ("scored", "labels")
        )
    )
    assert process.is_running


def test_the_joiner_is_ready_with_partitions_and_stops_cleanly(kafka: JoinerTopics, process: JoinerProcess) -> None:
    process.start()
    process.wait_for(lambda: process.fetch("/readyz") == (200, "ok\n"))
    assert process.fetch("/livez") == (200, "ok\n")

    assert process.stop() == 0


@pytest.mark.apache_kafka
def test_transaction_markers_do_not_hold_timers_back(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path
) -> None:
    kafka = JoinerTopics(apache_kafka, topic_prefix)
    transactional = {"bootstrap.servers": kafka.bootstrap, "transactional.id": topic_prefix}
    producer = Producer(transactional)
    producer.init_transactions(30)
    for ident, end_transaction in (("r", producer.commit_transaction), ("q", producer.abort_transaction)):
        producer.begin_transaction()
        value = to_msgpack(make_row("recommendation", ident, 0, ("a",)))
        producer.produce(f"{topic_prefix}scored", value, partition=0)
        assert producer.flush(30) == 0
        end_transaction(30)
    kafka.send(
        {
            TopicPartition("impressions", 0): [
                make_impression(1, "a", recommendation_id="r"),
                make_impression(1, "a", recommendation_id="q"),
                make_impression(100, "a", recommendation_id="other"),
            ]
        }
    )

    process = JoinerProcess(kafka, tmp_path / "joiner.log")
    process.start()
    try:
        process.wait_for(lambda: kafka.read_topic("feedback"))
    finally:
        process.kill()

    assert [(e.example_id, e.revision) for e in kafka.read_examples()] == [("r~a", 0)]


@pytest.mark.apache_kafka
def test_no_silent_label_is_published_while_a_transaction_is_open(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path
) -> None:
    # given an order whose chargeback is in an open transaction, and a partition without a wait for silence
    kafka = JoinerTopics(apache_kafka, topic_prefix)
    chargebacks = Producer(
        {"bootstrap.servers": kafka.bootstrap, "transactional.id": topic_prefix, "transaction.timeout.ms": 900_000}
    )
    chargebacks.init_transactions(30)
    chargebacks.begin_transaction()
    chargebacks.produce(f"{topic_prefix}labels", to_json(make_label(4, 1)), partition=0)
    assert chargebacks.flush(30) == 0
    later = make_row("order", "later", 60 * 24 * 10)  # its event time is past the window of the first order
    kafka.send({TopicPartition("scored", 0): [make_row("order", "o", 1), later]})
    process = JoinerProcess(kafka, tmp_path / "joiner.log", FEEDBACK.model_copy(update={"idle_ms": 0}))
    process.start()
    try:
        # when everything else is read
        process.wait_for(partial(has_lag, process, f"{topic_prefix}scored", 0))
        process.wait_for(partial(has_lag, process, f"{topic_prefix}labels", 1))
        assert kafka.read_examples() == []
        chargebacks.commit_transaction(30)
        # then the order's only example has the label of the transaction
        process.wait_for(lambda: kafka.read_topic("feedback"))
    finally:
        process.kill()
    assert [(e.example_id, e.labels) for e in kafka.read_examples()] == [("o", {"fraud": 1.0})]


@pytest.mark.apache_kafka
def test_a_joiner_of_topics_with_different_partitions_names_the_command_until_it_is_run(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path
) -> None:
    # given labels with one partition, and four of everything else
    apache_kafka.create_topics({f"{topic_prefix}labels": 1})
    kafka = JoinerTopics(apache_kafka, topic_prefix)
    process = JoinerProcess(kafka, tmp_path / "joiner.log")
    process.start()
    command = (
        f"kafka-topics.sh --bootstrap-server {kafka.bootstrap} --alter --topic {topic_prefix}labels --partitions 4"
    )
    try:
        process.wait_for(lambda: process.fetch("/readyz")[0] == 503 and command in process.fetch("/readyz")[1])
        process.wait_for(lambda: f"Start check of {topic_prefix}labels" in process.output.read_text())
        # when partitions are added
        admin = make_admin_client(kafka.bootstrap)
        admin.create_partitions([NewPartitions(f"{topic_prefix}labels", 4)])[f"{topic_prefix}labels"].result()
        # then
        process.wait_for(lambda: process.fetch("/readyz") == (200, "ok\n"))
    finally:
        process.kill()


def test_a_killed_joiner_loses_no_example(kafka: JoinerTopics, process: JoinerProcess, seed: int) -> None:
    before, after = split_at(simulate_shop(seed), minutes=700)
    kafka.send(before)
    process.start()
    process.wait_for(lambda: kafka.read_topic("feedback"))
    process.kill()

    kafka.send(after)
    process.start()

    expected = compute_expected_labels(simulate_shop(seed))
    process.wait_for(lambda: {ident: e.labels for ident, e in kafka.read_newest_examples().items()} == expected)
    revisions = {(e.example_id, e.revision): e for e in kafka.read_examples()}
    assert all(e == revisions[e.example_id, e.revision] for e in kafka.read_examples())


def has_lag(process: JoinerProcess, topic: str, records: int) -> bool:
    """Whether partition 0 of the topic has this lag."""
    return f'shopstream_lag_records{{partition="0",topic="{topic}"}} {records}.0' in process.fetch("/metrics")[1]


def has_more_examples(kafka: JoinerTopics, count: int) -> bool:
    return len(kafka.read_topic("feedback")) > count


@pytest.mark.apache_kafka
def test_a_joiner_killed_repeatedly_publishes_nothing_twice(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path, seed: int
) -> None:
    kafka = JoinerTopics(apache_kafka, topic_prefix)
    logs = simulate_shop(seed)
    process = JoinerProcess(kafka, tmp_path / "joiner.log")
    try:
        for begin, end in ((0, 400), (400, 800), (800, 1200)):
            kafka.send(split_at(split_at(logs, begin)[1], end)[0])
            process.start()
            process.wait_for(partial(has_more_examples, kafka, len(kafka.read_topic("feedback"))))
            process.kill()
        kafka.send(split_at(logs, 1200)[1])
        process.start()
        process.wait_for(
            lambda: (
                {ident: e.labels for ident, e in kafka.read_newest_examples().items()} == compute_expected_labels(logs)
            )
        )
    finally:
        process.kill()

    examples, judgements = kafka.read_examples(), kafka.read_judgements()
    assert len(examples) == len({(e.example_id, e.revision) for e in examples})
    assert len(judgements) == len({(j.judged_event_id, j.event_id) for j in judgements})
