"""Records dated in the future do not move the joiner's stream time, on Apache Kafka."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from msgspec.structs import replace

from contract.messages import to_json, to_msgpack
from devservers.apache_kafka import ApacheKafka
from testkit.metrics import read_metric
from tests.contract.joining.builders import make_click, make_impression, make_label, make_order, make_row, minutes_to_ms
from tests.worker.joiner.test_worker import JoinerProcess, JoinerTopics
from tests.worker.joiner_simulation import Input
from transport.records import Record, TopicPartition
from worker.joiner.commit_metadata import CommitMetadata, encode_metadata
from worker.joiner.decoding import RecordDecoder
from worker.ops import metrics

CLICKS, SCORED = TopicPartition("shop.clicks", 0), TopicPartition("shop.scored", 0)
WALL_MS: Final = 1_764_000_000_000
FAR_MS: Final = 4_000_000_000_000
FAR_MINUTES: Final = FAR_MS / 60_000
NO_TIME: Final = -1
STRANGER: Final = "stranger"
CLICK: Final = ("clicks", make_click(FAR_MINUTES, "x", recommendation_id=None, user=STRANGER))
IMPRESSION: Final = ("impressions", make_impression(FAR_MINUTES, "x", recommendation_id=None, user=STRANGER))
ORDER: Final = ("orders", make_order(FAR_MINUTES, "x", user=STRANGER))
LABEL: Final = ("labels", make_label(FAR_MINUTES, 1, judged_event_id="x", user=STRANGER))
ROW: Final = ("scored", make_row("order", "x", FAR_MINUTES, user=STRANGER))
USERS: Final = ("u", "v", "w", "x")


class PoisonedShop:
    """A list and an order that wait for their labels, and records dated in the future."""

    def __init__(self, kafka: JoinerTopics) -> None:
        self.kafka = kafka
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})

    def open_rows(self) -> None:
        self.kafka.send(
            {
                TopicPartition("scored", 0): [make_row("recommendation", "r", 0, ("a",)), make_row("order", "o", 1)],
                TopicPartition("impressions", 0): [make_impression(1, "a")],
                TopicPartition("clicks", 0): [make_click(2, "x", recommendation_id=None, user=user) for user in USERS],
            }
        )

    def poison(self, records: Sequence[tuple[str, Input]], kafka_ms: int) -> None:
        for kind, message in records:
            value = to_msgpack(message) if kind == "scored" else to_json(message)
            self._producer.produce(f"{self.kafka.prefix}{kind}", value, partition=0, timestamp=kafka_ms)
        assert self._producer.flush(30) == 0

    def go_on(self, minutes: float) -> None:
        """Events of several users at this time."""
        clicks = [make_click(minutes, "x", recommendation_id=None, user=user) for user in USERS]
        self.kafka.send({TopicPartition("clicks", 0): clicks})

    def list_labels(self, example_id: str) -> list[Mapping[str, float | str]]:
        return [example.labels for example in self.kafka.read_examples() if example.example_id == example_id]


@pytest.fixture
def shop(apache_kafka: ApacheKafka, topic_prefix: str) -> PoisonedShop:
    return PoisonedShop(JoinerTopics(apache_kafka, topic_prefix, {"message.timestamp.after.max.ms": str(2**62)}))


@pytest.fixture
def process(shop: PoisonedShop, tmp_path: Path) -> Iterator[JoinerProcess]:
    process = JoinerProcess(shop.kafka, tmp_path / "joiner.log")
    yield process
    process.kill()


@pytest.mark.apache_kafka
@pytest.mark.parametrize(
    ("records", "kafka_ms"),
    [
        ([CLICK], NO_TIME),
        ([LABEL], NO_TIME),
        ([CLICK, IMPRESSION, ORDER, LABEL, ROW] * 3, NO_TIME),
        ([CLICK, IMPRESSION, ORDER, LABEL, ROW], FAR_MS),
        ([CLICK, IMPRESSION, ORDER, LABEL], 0),
    ],
    ids=["click", "label", "one user everywhere", "Kafka time in the future", "clamped to its Kafka time"],
)
def test_a_stranger_does_not_move_the_stream_time(
    shop: PoisonedShop, process: JoinerProcess, records: list[tuple[str, Input]], kafka_ms: int
) -> None:
    # given open rows, and records of one user that are dated in the future
    shop.open_rows()
    shop.poison(records, kafka_ms)
    # when the shop goes on, over a restart of the joiner
    process.start()
    shop.go_on(100)
    process.wait_for(lambda: shop.list_labels("r~a"))
    process.kill()
    shop.poison(records, kafka_ms)
    process.start()
    shop.go_on(200)
    shop.kafka.send({TopicPartition("labels", 0): [make_label(201, 1)]})
    process.wait_for(lambda: shop.list_labels("o"))
    # then the order was not labelled before its window passed
    assert shop.list_labels("o") == [{"fraud": 1.0}]
    # and when that has passed, time does not stand still
    shop.go_on(3_000)
    process.wait_for(lambda: stream_time_ms(process) >= minutes_to_ms(3_000))
    assert stream_time_ms(process) == minutes_to_ms(3_000)


@pytest.mark.apache_kafka
def test_a_stream_time_committed_in_the_future_is_reset(shop: PoisonedShop, process: JoinerProcess) -> None:
    # given an earlier release whose stream time had been moved
    shop.open_rows()
    group = f"{shop.kafka.prefix}group-feedback"
    metadata = encode_metadata(CommitMetadata({}, 2, FAR_MS, FAR_MS))
    consumer = Consumer({"bootstrap.servers": shop.kafka.bootstrap, "group.id": group, "log_level": 0})
    consumer.commit(offsets=[KafkaPartition(f"{shop.kafka.prefix}scored", 0, 0, metadata=metadata)], asynchronous=False)
    consumer.close()
    # when this one starts
    process.start()
    shop.go_on(100)
    # then it joins the rows again, and says so
    process.wait_for(lambda: shop.list_labels("r~a"))
    assert "shopstream_stream_times_reset_total 1.0" in process.fetch("/metrics")[1]
    assert "should not be in the future" in process.tail(100_000)


def stream_time_ms(process: JoinerProcess) -> int:
    lines = [line for line in process.fetch("/metrics")[1].splitlines() if line.startswith("shopstream_stream_time_")]
    return round(float(lines[0].split()[-1]) * 1000) if lines else 0


def make_decoder() -> RecordDecoder:
    return RecordDecoder(kinds_by_topic={CLICKS.topic: "clicks", SCORED.topic: "scored"}, clock_ms=lambda: WALL_MS)


def make_record(ms: int, kafka_ms: int, partition: TopicPartition = CLICKS) -> Record:
    click, row = make_click(0, "a"), make_row("order", "o", 0)
    value = to_msgpack(replace(row, ts_ms=ms)) if partition == SCORED else to_json(replace(click, ts_ms=ms))
    return Record(partition, 0, None, value, (), kafka_ms)


@pytest.mark.parametrize("partition", [CLICKS, SCORED])
@pytest.mark.parametrize("kafka_ms", [NO_TIME, WALL_MS + 10**9])
def test_a_time_without_a_trusted_kafka_time_is_that_of_the_records_before(
    partition: TopicPartition, kafka_ms: int
) -> None:
    decoder = make_decoder()
    untrusted = read_metric(metrics.UNTRUSTED_TIMES, "clicks") + read_metric(metrics.UNTRUSTED_TIMES, "scored")

    message, time = decoder.decode(make_record(FAR_MS, kafka_ms, partition))
    assert message
    assert (message.ts_ms, time) == (WALL_MS, None)  # no record before it: the time of reading

    decoder.decode(make_record(1_000, WALL_MS - 5_000, partition))
    decoder.decode(make_record(1_000, WALL_MS - 9_000, partition))
    message, time = decoder.decode(make_record(FAR_MS, kafka_ms, partition))
    assert message
    assert (message.ts_ms, time) == (WALL_MS - 5_000, None)
    total = read_metric(metrics.UNTRUSTED_TIMES, "clicks") + read_metric(metrics.UNTRUSTED_TIMES, "scored")
    assert total == untrusted + 2


def test_a_plausible_time_without_a_kafka_time_is_kept_but_does_not_confirm_itself() -> None:
    message, time = make_decoder().decode(make_record(WALL_MS, NO_TIME))

    assert message
    assert message.ts_ms == WALL_MS
    assert time == (WALL_MS, None)
