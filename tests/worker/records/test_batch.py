"""A batch: records become arrivals, or rejects with everything that a dead letter states."""

import io
import json
import logging

import pytest

from contract.logs import create_handler
from contract.mapping.event_topics import EventTopics
from contract.messages import DEAD_LETTER_HEADER, DeadLetter, read_dead_letter
from contract.profiles.entity_updates import Arrival
from contract.settings.servers import TopicSettings
from contract.settings.worker import LogSettings
from tests.metrics import assert_increases
from tests.worker.events import KINDS, NOW_MS, make_click, make_order, make_record
from transport.record_reader import RecordReader
from transport.records import Record, TopicPartition
from worker.ops import metrics
from worker.records.batch import Batch, Reject, decode_records, report_rejects
from worker.records.lanes import LANES

ORDERS, CLICKS = TopicPartition("shop.orders", 0), TopicPartition("shop.clicks", 1)


def decode_batch(*records: Record, watches: tuple[str, ...] = (), inspects: tuple[str, ...] = ()) -> Batch:
    return decode_records(records, KINDS, {ORDERS: "orders~id/0"}, watches, inspects)


def test_a_rejected_event_still_moves_the_position_and_the_others_arrive() -> None:
    # when
    batch = decode_batch(make_record(make_order("o1"), 7), make_record(b"{", 8), make_record(make_order("o2"), 9))
    # then
    assert [(a.source, a.offset, a.event.event_id) for a in batch.arrivals] == [
        ("orders~id/0", 7, "o1"),
        ("orders~id/0", 9, "o2"),
    ]
    assert [(r.record.offset, r.reason) for r in batch.rejects] == [(8, "not_json")]
    assert (len(batch), batch.first_offsets, batch.end_offsets) == (3, {ORDERS: 7}, {ORDERS: 10})


def test_a_watched_event_is_separate_and_a_bad_one_is_left_to_the_folding_lane() -> None:
    # when
    batch = decode_batch(make_record(make_order("o1")), make_record(b"", 1), watches=("orders",))
    # then
    assert [a.event.event_id for a in batch.watched] == ["o1"]
    assert (batch.arrivals, batch.rejects, batch.end_offsets) == ([], [], {ORDERS: 2})


@pytest.mark.parametrize(
    ("topic", "key", "reasons"),
    [
        ("shop.orders", b"key", ["not_json", "empty"]),
        ("shop.labels", b"key", ["not_json", "empty"]),
        ("shop.products", b"key", ["not_json"]),
        ("shop.products", None, ["not_json", "empty"]),
    ],
)
def test_an_inspected_kind_leaves_only_bad_records_and_a_tombstone_of_a_product_is_not_bad(
    topic: str, key: bytes | None, reasons: list[str]
) -> None:
    # when
    batch = decode_batch(
        make_record(b"{", 1, topic=topic),
        make_record(b"", 2, topic=topic)._replace(key=key, value=None),
        inspects=(KINDS[topic],),
    )
    # then
    assert (batch.arrivals, batch.watched) == ([], [])
    assert [reject.reason for reject in batch.rejects] == reasons
    assert batch.end_offsets == {TopicPartition(topic, 0): 3}


def test_an_inspected_kind_leaves_no_arrivals() -> None:
    # when
    batch = decode_batch(make_record(make_order("o1")), inspects=("orders",))
    # then
    assert (batch.arrivals, batch.watched, batch.rejects) == ([], [], [])


def test_each_partition_of_a_batch_has_its_own_offsets() -> None:
    # when
    topic = CLICKS.topic
    batch = decode_batch(
        make_record(make_order("o1"), 4),
        make_record(make_click("c1"), 90, topic=topic, partition=1),
        make_record(make_click("c2"), 91, topic=topic, partition=1),
    )
    # then
    assert (batch.first_offsets, batch.end_offsets) == ({ORDERS: 4, CLICKS: 90}, {ORDERS: 5, CLICKS: 92})


def test_a_time_far_ahead_is_clamped_to_the_record_and_counted() -> None:
    # when
    with assert_increases(metrics.CLAMPED_TIMESTAMPS):
        batch = decode_batch(make_record(make_order("o1", ts_ms=32_503_680_000_000)))
    # then
    assert [arrival.event.ts_ms for arrival in batch.arrivals] == [NOW_MS]


def test_a_time_far_ahead_without_a_kafka_time_is_clamped_to_the_record_before() -> None:
    # given a record of a raw client, which has no Kafka time
    far = make_record(make_order("o1", ts_ms=4_000_000_000_000), 1)._replace(kafka_ms=-1)
    # when
    batch = decode_batch(make_record(make_order("o0")), far)
    # then
    assert [arrival.event.ts_ms for arrival in batch.arrivals][1:] == [NOW_MS]


def test_a_dead_letter_carries_the_original_record_and_the_reason() -> None:
    # given
    (reject,) = decode_batch(make_record(b'{"event_id": 7}', 8)).rejects
    # when
    letter = reject.to_dead_letter("shop.dead-letters", "v7")
    # then
    (trace, (name, header)) = letter.headers
    assert (letter.topic, letter.key, letter.value, trace) == (
        "shop.dead-letters",
        b"key",
        b'{"event_id": 7}',
        ("trace", b"\x00\xff"),
    )
    assert name == DEAD_LETTER_HEADER
    assert read_dead_letter(header) == DeadLetter(
        reason="missing_field",
        error="BadEvent",
        detail=reject.detail,
        topic="shop.orders",
        partition=0,
        offset=8,
        attempts=1,
        model_version="v7",
    )
    assert "ts_ms" in reject.detail


@pytest.mark.parametrize("length", [1_000, 1_001])
def test_the_detail_of_a_dead_letter_is_cut_to_fit_a_header(length: int) -> None:
    reject = Reject(make_record(b"x"), "not_json", "BadEvent", "d" * length)

    dead_letter = read_dead_letter(reject.to_dead_letter("t", "").headers[-1][1])

    assert dead_letter.detail == "d" * 1_000


def test_the_reject_of_an_unscored_event_has_its_record_and_attempts() -> None:
    # given
    batch = decode_batch(make_record(make_order("o1"), 7))
    arrival: Arrival = batch.arrivals[0]
    # when
    reject = batch.to_reject(arrival, ZeroDivisionError("by zero"), 4)
    # then
    assert (reject.record.offset, reject.reason, reject.error, reject.detail, reject.attempts) == (
        7,
        "cannot_score",
        "ZeroDivisionError",
        "by zero",
        4,
    )


def test_the_first_dead_letter_has_its_position_in_the_fields_of_a_log_line() -> None:
    # given
    stream, logger = io.StringIO(), logging.getLogger("worker.records.batch")
    handler = create_handler(LogSettings(format="json"), stream, process="score worker")
    logger.addHandler(handler)
    # when
    try:
        report_rejects(decode_batch(make_record(make_order("o1"), 7), make_record(b"{", 8)).rejects)
    finally:
        logger.removeHandler(handler)
    # then
    line = json.loads(stream.getvalue())
    assert (line["topic"], line["partition"], line["offset"]) == ("shop.orders", 0, 8)
    assert "shop.orders[0]@8" in line["message"]


ACME = TopicPartition("acme", 0)
PLACED = b'{"type":"placed","id":1,"ms":1764000000000,"user":"u1","sku":"A","n":1,"price":5,"currency":"EUR"}'
VIEWED = b'{"type":"viewed","id":2,"ms":1764000000000,"user":"u1","sku":"A"}'
ACME_FIELDS = {"event_id": "id", "ts_ms": "ms", "user_id": "user"}
ACME_MAPS = {
    "orders": {
        "topics": "acme",
        "kind": {"path": "type", "table": {"placed": "orders"}},
        "fields": {
            **ACME_FIELDS,
            "lines": {"item_id": "sku", "quantity": "n", "unit_price": "price"},
            "amount": "price",
            "currency": "currency",
            "payment_method": {"constant": "card"},
        },
    },
    "clicks": {
        "topics": "acme",
        "kind": {"path": "type", "table": {"viewed": "clicks"}},
        "fields": {**ACME_FIELDS, "item_id": "sku"},
    },
}


def decode_mapped_batch(lane: str, source: str, *values: bytes | None) -> Batch:
    reader = RecordReader(EventTopics(TopicSettings(), ACME_MAPS))
    records = [Record(ACME, offset, b"k", value, (), NOW_MS) for offset, value in enumerate(values)]
    kinds = LANES[lane]
    return decode_records(
        records, reader.kinds, {ACME: source}, kinds.watched_kinds, kinds.inspected_kinds, record_reader=reader
    )


def test_a_mapped_topic_feeds_both_lanes_and_each_bad_record_is_the_dead_letter_of_one() -> None:
    # given records of both kinds, one of a type that no map has, and bad ones of each kind and of none
    values = (PLACED, VIEWED, b'{"type":"shipped"}', b'{"type":"placed"}', b'{"type":"viewed"}', b"{", None)
    # when
    orders = decode_mapped_batch("orders", "orders~id/0", *values)
    browsing = decode_mapped_batch("browsing", "clicks~id/0", *values)
    # then
    assert [(a.source, a.offset) for a in orders.arrivals] == [("orders~id/0", 0)]
    assert [(a.source, a.offset) for a in browsing.arrivals] == [("clicks~id/0", 1)]
    assert [a.offset for a in browsing.watched] == [0]
    assert [(r.record.offset, r.reason) for r in orders.rejects] == [
        (3, "missing_field"),
        (5, "not_json"),
        (6, "empty"),
    ]
    assert [(r.record.offset, r.reason) for r in browsing.rejects] == [(4, "missing_field")]
    assert orders.end_offsets == browsing.end_offsets == {ACME: 7}


def test_a_record_of_a_schema_registry_that_is_not_set_says_so() -> None:
    batch = decode_batch(make_record(b"\0\0\0\0\x07\x02"))
    assert "framing of a schema registry (schema 7): set registry.url" in batch.rejects[0].detail
