"""What the demo counts: outputs once each, dead letters by reason, trimmed partitions, records sent."""

from collections.abc import Iterator

import msgspec
import pytest
from msgspec.structs import replace

from contract.messages import DEAD_LETTER_HEADER, DeadLetter, Decision, Example, to_json, to_msgpack
from contract.settings.servers import KafkaSettings, TopicSettings
from demo.live.health_probe import HealthProbe
from demo.live.sent_counts import SentCounts
from demo.output_consumer import OutputConsumer
from demo.simulator.malformed import make_malformed
from demo.simulator.records import SourceRecord
from demo.simulator.sessions import HomePage
from demo.simulator.shop import ShopSimulator
from devservers.embedded import PARTITIONS, EmbeddedKafka
from tests.kafka import BlockingProducer
from tests.polling import wait_until
from worker.ops import metrics
from worker.ops.health import HealthServer

DECISION = Decision(
    event_id="o1",
    user_id="u1",
    ts_ms=1,
    probability={"fraud": 0.5},
    action="review",
    reasons=(),
    model_version="m1",
)
EXAMPLE = Example(
    example_id="e1",
    revision=1,
    event_id="o1",
    user_id="u1",
    ts_ms=1,
    model_version="m1",
    features="f",
    groups={},
    labels={"click": 1.0},
    known_ms={"click": 1},
)
LETTER = DeadLetter(
    reason="not_json", error="BadEvent", detail="", topic="t", partition=0, offset=0, attempts=1, model_version=""
)


@pytest.fixture
def topics(embedded_kafka: EmbeddedKafka, topic_prefix: str) -> TopicSettings:
    kinds = ("decisions", "dead_letters", "scored", "feedback")
    topics = TopicSettings(**{kind: f"{topic_prefix}{kind}" for kind in kinds})  # type: ignore[arg-type]
    embedded_kafka.create_topics({topics.topic_name(kind): PARTITIONS for kind in kinds})
    return topics


@pytest.fixture
def outputs(embedded_kafka: EmbeddedKafka, topics: TopicSettings) -> Iterator[OutputConsumer]:
    outputs = OutputConsumer(kafka=KafkaSettings(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)
    yield outputs
    outputs.close()


@pytest.fixture
def producer(embedded_kafka: EmbeddedKafka) -> Iterator[BlockingProducer]:
    with BlockingProducer(embedded_kafka.bootstrap) as producer:
        yield producer


def test_duplicates_count_once_and_the_newest_revision_is_kept(
    topics: TopicSettings, outputs: OutputConsumer, producer: BlockingProducer
) -> None:
    # given
    newer_example = replace(EXAMPLE, revision=3)
    producer.send(topics.decisions, [("u1", to_json(DECISION)), ("u1", to_json(DECISION))])
    producer.send(topics.feedback, [("u1", to_msgpack(newer_example)), ("u1", to_msgpack(EXAMPLE))])
    producer.send(topics.dead_letters, [("u1", b"{")], headers=[(DEAD_LETTER_HEADER, to_json(LETTER))])
    producer.send(topics.scored, [("u1", msgspec.msgpack.encode({"kind": "click", "user_id": "u1"}))])

    # when
    def has_read_every_topic() -> bool:
        outputs.poll()
        return bool(outputs.decisions and outputs.examples and outputs.scored and outputs.dead_letters)

    wait_until(has_read_every_topic)

    # then
    assert outputs.decisions == {"o1": DECISION}
    assert outputs.examples["e1"].revision == 3
    assert outputs.count_labels() == {"click": 1}
    assert outputs.scored == {"click": 1}
    assert outputs.dead_letters == {"not_json": 1}


def test_trimmed_partitions_are_found(
    topics: TopicSettings, outputs: OutputConsumer, producer: BlockingProducer
) -> None:
    # given twice as many bytes as the embedded Kafka keeps of a partition
    assert outputs.find_trimmed_partitions([topics.scored]) == []
    for _ in range(100):
        producer.send(topics.scored, [(None, bytes(100_000))], partition=2)

    # when, then
    assert outputs.find_trimmed_partitions([topics.scored, topics.decisions]) == [f"{topics.scored}/2"]


def test_sent_counts_separate_orders_malformed_records_and_clicks_on_home_pages(seed: int) -> None:
    # given
    counts, shop = SentCounts(), ShopSimulator(seed, users=50, items=80)
    list(shop.simulate_history(1))

    # when
    live = shop.simulate_live(lambda user: HomePage("ours", ("i0001", "i0002")), 2)
    records = [*live, make_malformed(0, 0)]
    for record in records:
        counts.record(record)

    # then
    valid = [record for record in records if not record.reason]
    assert counts.records == len(records)
    assert counts.valid.total() == len(valid)
    assert counts.malformed.total() == len(records) - len(valid)
    assert len(counts.order_ids) == counts.valid["orders"]
    shown, clicked = counts.home_pages.count_by_user("lists").sum(0)
    assert shown > clicked > 0


def test_a_health_probe_reads_readiness_and_metrics() -> None:
    # given
    unready: list[str | None] = ["not yet"]
    server = HealthServer(port=0, live=lambda: None, ready=lambda: unready[0], metrics=metrics.render)
    probe = HealthProbe(server.port)

    # when
    metrics.set_serving_model("m-1")
    before, unready[0] = probe.is_ready(), None

    # then
    assert (before, probe.is_ready()) == (False, True)
    assert probe.read_version() == "m-1"
    assert probe.read_total("process_cpu_seconds_total") > 0
    server.close()
    assert (probe.is_ready(), probe.read_version()) == (False, "")


def test_a_source_record_carries_bytes_unchanged() -> None:
    assert SourceRecord("orders", "u1", b"\xff", 1).value == b"\xff"
