"""What the demo says at its end is what came out: counted once, by reason, and with nothing trimmed."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from msgspec.structs import replace

from contract.messages import DEAD_LETTER_HEADER, DeadLetter, Decision, Example, to_json, to_msgpack
from contract.settings import KafkaSettings, TopicSettings
from demo.health_probe import HealthProbe
from demo.output_consumer import OutputConsumer
from demo.sent_counts import SentCounts
from demo.simulator.malformed import make_malformed
from demo.simulator.records import SourceRecord
from demo.simulator.sessions import HomePage
from demo.simulator.shop import ShopSimulator
from devservers.embedded import PARTITIONS, EmbeddedKafka
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
    answers = ("decisions", "dead_letters", "scored", "feedback")
    topics = TopicSettings(**{kind: f"{topic_prefix}{kind}" for kind in answers})  # type: ignore[arg-type]
    embedded_kafka.create_topics({topics.topic_name(kind): PARTITIONS for kind in answers})
    return topics


@pytest.fixture
def witness(embedded_kafka: EmbeddedKafka, topics: TopicSettings) -> Iterator[OutputConsumer]:
    witness = OutputConsumer(kafka=KafkaSettings(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)
    yield witness
    witness.close()


def test_copies_count_once_and_the_newest_revision_counts(
    embedded_kafka: EmbeddedKafka, topics: TopicSettings, witness: OutputConsumer
) -> None:
    # Given
    producer = Producer({"bootstrap.servers": embedded_kafka.bootstrap, "log_level": 0})
    bought = replace(EXAMPLE, revision=3)
    for value in (to_json(DECISION), to_json(DECISION)):
        producer.produce(topics.decisions, value, "u1")
    for example in (bought, EXAMPLE):
        producer.produce(topics.feedback, to_msgpack(example), "u1")
    producer.produce(topics.dead_letters, b"{", "u1", headers={DEAD_LETTER_HEADER: to_json(LETTER)})
    producer.produce(topics.scored, b"row", "u1")
    producer.flush()

    # When
    while not (witness.decisions and witness.examples and witness.scored and witness.dead_letters):
        witness.poll()

    # Then
    assert witness.decisions == {"o1": DECISION}
    assert witness.examples["e1"].revision == 3
    assert witness.count_labels() == {"click": 1}
    assert witness.dead_letters == {"not_json": 1}


def test_records_that_the_embedded_kafka_forgot_are_noticed(
    embedded_kafka: EmbeddedKafka, topics: TopicSettings, witness: OutputConsumer
) -> None:
    # Given as many bytes as it keeps of a partition, and then as many again
    producer = Producer({"bootstrap.servers": embedded_kafka.bootstrap, "log_level": 0})
    assert witness.find_trimmed_partitions([topics.scored]) == []
    for _ in range(100):
        producer.produce(topics.scored, bytes(100_000), partition=2)
        producer.flush()

    # When, Then
    assert witness.find_trimmed_partitions([topics.scored, topics.decisions]) == [f"{topics.scored}/2"]


def test_the_tally_tells_orders_malformed_records_and_clicks_on_our_lists(seed: int) -> None:
    # Given
    tally, shop = SentCounts(), ShopSimulator(seed, users=50, items=80)
    list(shop.simulate_history(1))

    # When
    live = shop.simulate_live(lambda user: HomePage("ours", ("i0001", "i0002")), 2)
    records = [*live, make_malformed(0, 0)]
    for record in records:
        tally.record(record)

    # Then
    valid = [record for record in records if not record.reason]
    assert tally.records == len(records)
    assert tally.valid.total() == len(valid)
    assert tally.malformed.total() == len(records) - len(valid)
    assert len(tally.order_ids) == tally.valid["orders"]
    assert tally.our_lists.impressions > tally.our_lists.clicks > 0
    assert tally.shop_lists.impressions == 0
    assert tally.shop_lists.click_rate == 0


def test_a_probe_reads_readiness_and_metrics_of_a_worker() -> None:
    # Given
    unready: list[str | None] = ["not yet"]
    server = HealthServer(port=0, live=lambda: None, ready=lambda: unready[0], metrics=metrics.render)
    probe = HealthProbe(server.port)

    # When
    metrics.set_serving_model("m-1")
    before, unready[0] = probe.is_ready(), None

    # Then
    assert (before, probe.is_ready()) == (False, True)
    assert probe.served_version() == "m-1"
    assert probe.read_total("process_cpu_seconds_total") > 0
    server.close()
    assert (probe.is_ready(), probe.served_version()) == (False, "")


def test_a_happening_carries_bytes_as_they_are() -> None:
    assert SourceRecord("orders", "u1", b"\xff", 1).value == b"\xff"
