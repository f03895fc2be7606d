"""The joiner as a process, over Kafka."""

import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from contract.events import Judgement, decode
from contract.rows import Example, Scored, read_example, to_json, to_msgpack
from demo.servers.apache_kafka import ApacheKafka
from demo.servers.child import Child, free_ports
from tests.conftest import Broker
from tests.contract.joining.shop import FEEDBACK, at, click, label, row, shown
from tests.worker.joining import Log, Thing, shop, truth
from worker.intake import Place

ROOT = Path(__file__).parents[2]
TOPICS = ("scored", "impressions", "clicks", "orders", "labels", "feedback", "judgements")
WITHIN_S = 60.0


class Kafka:
    """The joiner's topics on a broker."""

    def __init__(self, broker: Broker, prefix: str) -> None:
        self.bootstrap, self.prefix = broker.bootstrap, prefix
        broker.create_topics({f"{prefix}{kind}": 4 for kind in TOPICS})
        self._producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def send(self, log: Mapping[Place, Sequence[Thing | bytes]]) -> None:
        """Append to partitions in their order."""
        for place, things in log.items():
            for thing in things:
                value = (
                    thing
                    if isinstance(thing, bytes)
                    else (to_msgpack(thing) if isinstance(thing, Scored) else to_json(thing))
                )
                self._producer.produce(f"{self.prefix}{place.topic}", value, partition=place.partition)
        assert self._producer.flush(30) == 0

    def read(self, kind: str) -> list[tuple[bytes | None, bytes]]:
        """Key and value of everything on a topic now."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.partition.eof": True})
        consumer.assign([TopicPartition(f"{self.prefix}{kind}", n, 0) for n in range(4)])
        found, ended = [], 0
        while ended < 4:
            for message in consumer.consume(1_000, 1):
                ended += message.error() is not None
                if message.error() is None:
                    found.append((as_bytes(message.key()), as_bytes(message.value()) or b""))
        consumer.close()
        return found

    def examples(self) -> list[Example]:
        return [read_example(value) for _, value in self.read("feedback")]

    def judgements(self) -> list[Judgement]:
        found = [decode("judgements", value) for _, value in self.read("judgements")]
        return [judgement for judgement in found if isinstance(judgement, Judgement)]

    def newest(self) -> dict[str, Example]:
        return {e.example_id: e for e in sorted(self.examples(), key=lambda e: e.revision)}


def as_bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


@pytest.fixture
def kafka(broker: Broker, topic_prefix: str) -> Kafka:
    return Kafka(broker, topic_prefix)


class JoinerProcess(Child):
    """`python -m worker feedback` on a test's topics."""

    def __init__(self, kafka: Kafka, output: Path) -> None:
        (self.port,) = free_ports(1)
        environment = {
            "PYTHONPATH": str(ROOT),
            "SHOPSTREAM_CONFIG": str(ROOT / "shop.toml"),
            "SHOPSTREAM_FEATURES": str(ROOT / "features.toml"),
            "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
            "SHOPSTREAM_KAFKA__GROUP_PREFIX": f"{kafka.prefix}group",
            "SHOPSTREAM_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "SHOPSTREAM_WORKER__HTTP_PORT": str(self.port),
            **{f"SHOPSTREAM_TOPICS__{kind.upper()}": f"{kafka.prefix}{kind}" for kind in TOPICS},
            **{f"SHOPSTREAM_FEEDBACK__{name.upper()}": str(value) for name, value in FEEDBACK.model_dump().items()},
        }
        super().__init__(command=[sys.executable, "-m", "worker", "feedback"], output=output, environment=environment)

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def eventually(self, ready: Callable[[], Any]) -> None:
        self.wait_until(lambda: bool(ready()), within_s=WITHIN_S)


@pytest.fixture
def process(kafka: Kafka, tmp_path: Path) -> Iterator[JoinerProcess]:
    made = JoinerProcess(kafka, tmp_path / "joiner.log")
    yield made
    made.kill()


def parts(of: Log, minutes: float) -> tuple[Log, Log]:
    """What has happened by then, and what comes after; no partition is ahead of another."""
    return (
        {place: [thing for thing in things if thing.ts_ms <= at(minutes)] for place, things in of.items()},
        {place: [thing for thing in things if thing.ts_ms > at(minutes)] for place, things in of.items()},
    )


def test_a_click_and_a_label_come_out_as_example_and_judgement(kafka: Kafka, process: JoinerProcess) -> None:
    kafka.send(
        {
            Place("scored", 0): [row("recommendation", "r", 0, ("a", "b")), row("order", "o", 1)],
            Place("impressions", 0): [shown(2, "a", "b")],
            Place("clicks", 0): [click(3, "b")],
            Place("labels", 0): [label(4, 1)],
        }
    )

    process.start()
    process.eventually(lambda: len(kafka.read("feedback")) == 2 and kafka.read("judgements"))

    assert {(e.example_id, tuple(e.labels.items())) for e in kafka.examples()} == {
        ("r~b", (("click", 1.0),)),
        ("o", (("fraud", 1.0),)),
    }
    assert {key for key, _ in kafka.read("feedback")} == {b"u"}
    assert [(j.event_id, j.entities) for j in kafka.judgements()] == [("l-fraud-4", ("user:u", "device:d"))]


def test_what_cannot_be_read_is_passed_and_counted_and_its_neighbours_are_joined(
    kafka: Kafka, process: JoinerProcess
) -> None:
    junk = [b"", b"\xff\xfe", b"{", b"[" * 10_000, b"x" * 1_000, b"null"]
    kafka.send({Place(kind, 0): junk for kind in ("scored", "labels")})
    kafka.send({Place("scored", 0): [row("order", "o", 1)], Place("labels", 0): [label(4, 1)]})
    kafka.send({Place(kind, 0): junk for kind in ("scored", "labels")})

    process.start()
    process.eventually(lambda: kafka.read("feedback"))

    process.eventually(
        lambda: all(
            f'shopstream_unreadable_records_total{{kind="{kind}"}} {2 * len(junk)}.0' in process.ask("/metrics")[1]
            for kind in ("scored", "labels")
        )
    )
    assert process.running


def test_it_is_ready_when_it_has_partitions_and_ends_in_order_when_asked(kafka: Kafka, process: JoinerProcess) -> None:
    process.start()
    process.eventually(lambda: process.ask("/readyz") == (200, "ok\n"))
    assert process.ask("/livez") == (200, "ok\n")

    assert process.stop() == 0


@pytest.mark.apache_kafka
def test_rows_that_end_in_transactions_hold_no_timer_back(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path
) -> None:
    kafka = Kafka(apache_kafka, topic_prefix)
    transactional = {"bootstrap.servers": kafka.bootstrap, "transactional.id": topic_prefix}
    producer = Producer(transactional)
    producer.init_transactions(30)
    for ident, end in (("r", producer.commit_transaction), ("q", producer.abort_transaction)):
        producer.begin_transaction()
        value = to_msgpack(row("recommendation", ident, 0, ("a",)))
        producer.produce(f"{topic_prefix}scored", value, partition=0)
        assert producer.flush(30) == 0
        end(30)
    kafka.send({Place("impressions", 0): [shown(1, "a", of="r"), shown(1, "a", of="q"), shown(100, "a", of="other")]})

    process = JoinerProcess(kafka, tmp_path / "joiner.log")
    process.start()
    try:
        process.eventually(lambda: kafka.read("feedback"))
    finally:
        process.kill()

    assert [(e.example_id, e.revision) for e in kafka.examples()] == [("r~a", 0)]


def test_a_killed_joiner_loses_no_example(kafka: Kafka, process: JoinerProcess, seed: int) -> None:
    before, after = parts(shop(seed), minutes=700)
    kafka.send(before)
    process.start()
    process.eventually(lambda: kafka.read("feedback"))
    process.kill()

    kafka.send(after)
    process.start()

    expected = truth(shop(seed))
    process.eventually(lambda: {ident: e.labels for ident, e in kafka.newest().items()} == expected)
    revisions = {(e.example_id, e.revision): e for e in kafka.examples()}
    assert all(e == revisions[e.example_id, e.revision] for e in kafka.examples())


def grown(kafka: Kafka, before: int) -> bool:
    return len(kafka.read("feedback")) > before


@pytest.mark.apache_kafka
def test_a_joiner_that_is_killed_again_and_again_publishes_nothing_twice(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path, seed: int
) -> None:
    kafka, log = Kafka(apache_kafka, topic_prefix), shop(seed)
    process = JoinerProcess(kafka, tmp_path / "joiner.log")
    try:
        for begin, end in ((0, 400), (400, 800), (800, 1200)):
            kafka.send(parts(parts(log, begin)[1], end)[0])
            process.start()
            process.eventually(partial(grown, kafka, len(kafka.read("feedback"))))
            process.kill()
        kafka.send(parts(log, 1200)[1])
        process.start()
        process.eventually(lambda: {ident: e.labels for ident, e in kafka.newest().items()} == truth(log))
    finally:
        process.kill()

    examples, judgements = kafka.examples(), kafka.judgements()
    assert len(examples) == len({(e.example_id, e.revision) for e in examples})
    assert len(judgements) == len({(j.judged_event_id, j.event_id) for j in judgements})
