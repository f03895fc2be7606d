"""A map: from records of a shop's own form to documents in ours, or the reason why there is none."""

import base64
import json
from typing import Any

import pytest

from contract.errors import BadConfig, BadEvent
from contract.events.model import Click
from contract.events.reading import READERS
from contract.mapping.envelopes import Skipped
from contract.mapping.event_topics import EventTopics
from contract.mapping.topic_map import TopicMap, compile_maps
from contract.settings.mapping import read_maps
from contract.settings.servers import TopicSettings
from transport.record_reader import RecordReader
from transport.records import Record, TopicPartition

CLICK_FIELDS = {"event_id": "id", "ts_ms": "ms", "user_id": "user", "item_id": "sku"}
ORDER_FIELDS: dict[str, Any] = {
    "event_id": "id",
    "ts_ms": {"path": "created_at", "unit": "iso"},
    "user_id": ["customer.id", "email"],
    "lines": {
        "item_id": "items[].sku",
        "quantity": "items[].n",
        "unit_price": {"path": "items[].price", "unit": "minor"},
    },
    "amount": {"path": "total", "unit": "minor"},
    "currency": "currency",
    "payment_method": {"path": "gateway", "table": {"cc": "card"}},
    "platform": {"constant": "web"},
    "device_id": {"header": "device"},
    "shipping_country": {"path": "ship.country", "default": "DE"},
}
ORDER: dict[str, Any] = {
    "id": 5001,
    "created_at": "2026-11-30T04:20:00+01:00",
    "email": "a@b.c",
    "items": [{"sku": "A", "n": 2, "price": 1990}, {"sku": 7, "n": 1, "price": 500}],
    "total": 4480,
    "currency": "EUR",
    "gateway": "cc",
}


def open_map(fields: dict[str, Any], kind: object = "orders", **more: object) -> TopicMap:
    return compile_maps(read_maps({"shop": {"topics": "acme", "kind": kind, "fields": fields, **more}}))["acme"]


def read(topic_map: TopicMap, value: object, key: bytes | None = None, headers: Any = ()) -> tuple[str, dict[str, Any]]:
    return topic_map.read(json.dumps(value).encode(), key, headers)


def find_errors(**tables: Any) -> list[str]:
    with pytest.raises(BadConfig) as caught:
        read_maps(tables)
    return caught.value.errors


def test_a_nested_order_becomes_an_order_of_ours() -> None:
    # when
    kind, document = read(open_map(ORDER_FIELDS), ORDER, headers=[("device", b"d-1")])
    # then
    assert kind == "orders"
    assert document == {
        "event_id": 5001,
        "ts_ms": 1_796_008_800_000,
        "user_id": "a@b.c",
        "lines": [
            {"item_id": "A", "quantity": 2, "unit_price": 19.9},
            {"item_id": 7, "quantity": 1, "unit_price": 5.0},
        ],
        "amount": 44.8,
        "currency": "EUR",
        "payment_method": "card",
        "platform": "web",
        "device_id": "d-1",
        "shipping_country": "DE",
    }
    order: Any = READERS[kind].read_document(document)
    assert (order.event_id, order.lines[1].item_id, order.amount) == ("5001", "7", 44.8)


@pytest.mark.parametrize(
    ("unit", "value", "ms"),
    [
        ("s", 1_764_000_000, 1_764_000_000_000),
        ("s", 1_764_000_000.25, 1_764_000_000_250),
        ("s", "1764000000", 1_764_000_000_000),
        ("ms", 1_764_000_000_000, 1_764_000_000_000),
        ("us", 1_764_000_000_000_999, 1_764_000_000_000),
        ("us", "1764000000000999", 1_764_000_000_000),
        ("ns", 1_764_000_000_000_000_001, 1_764_000_000_000),
        ("iso", "2025-11-24T16:00:00Z", 1_764_000_000_000),
        ("iso", "2025-11-24T17:00:00.5+01:00", 1_764_000_000_500),
        ("iso", "2025-11-24 16:00:00", 1_764_000_000_000),
        ("iso", "2025-11-24 16:00:00 UTC", 1_764_000_000_000),
        ("iso", "yesterday", "yesterday"),
        ("s", "soon", "soon"),
    ],
)
def test_a_time_is_read_by_its_unit(unit: str, value: object, ms: object) -> None:
    fields = {**CLICK_FIELDS, "ts_ms": {"path": "time", "unit": unit}}
    assert read(open_map(fields, "clicks"), {"time": value, "user": "u"})[1] == {"ts_ms": ms, "user_id": "u"}


@pytest.mark.parametrize(("currency", "amount"), [("EUR", 123.45), ("JPY", 12345.0), ("jpy", 12345.0), ("KWD", 12.345)])
def test_money_in_minor_units_has_the_decimals_of_its_currency(currency: str, amount: float) -> None:
    document = read(open_map(ORDER_FIELDS), {"total": 12345, "currency": currency})[1]
    assert document["amount"] == pytest.approx(amount)


def test_several_of_their_types_become_one_kind_and_one_topic_holds_several_kinds() -> None:
    # given
    orders = {"topics": "acme", "kind": {"path": "type", "table": {"placed": "orders", "paid": "orders"}}}
    clicks = {"topics": "acme", "kind": {"path": "type", "table": {"viewed": "clicks"}}, "fields": CLICK_FIELDS}
    topic_map = compile_maps(read_maps({"o": {**orders, "fields": ORDER_FIELDS}, "c": clicks}))["acme"]
    # then
    assert topic_map.kinds == ("orders", "clicks")
    assert [read(topic_map, {"type": t})[0] for t in ("placed", "paid", "viewed")] == ["orders", "orders", "clicks"]
    with pytest.raises(Skipped, match="'shipped' is in no table of o, c"):
        read(topic_map, {"type": "shipped"})
    with pytest.raises(BadEvent, match="`type`"):
        read(topic_map, {})


def test_the_key_is_read_whole_or_by_a_path() -> None:
    whole, part = ({**CLICK_FIELDS, "user_id": {"key": key}} for key in (True, "payload.id"))
    assert read(open_map(whole, "clicks"), {}, b"u-1")[1] == {"user_id": "u-1"}
    assert read(open_map(part, "clicks"), {}, b'{"payload":{"id":7}}')[1] == {"user_id": 7}
    assert read(open_map(part, "clicks"), {}, b"no json")[1] == {"user_id": None}
    assert read(open_map(part, "clicks"), {}, None)[1] == {"user_id": None}


def test_a_cloudevent_reads_the_same_in_both_modes() -> None:
    # given
    fields = {
        "event_id": "id",
        "ts_ms": {"path": "time", "unit": "iso"},
        "user_id": "data.user",
        "item_id": ["data.sku", "subject"],
    }
    kind = {"path": "type", "table": {"com.acme.viewed": "clicks"}}
    topic_map = open_map(fields, kind, envelope="cloudevents")
    attributes = {"specversion": "1.0", "id": "e1", "type": "com.acme.viewed", "time": "2025-11-24T16:00:00Z"}
    data = {"user": "u-1", "sku": "A"}
    # when
    structured = read(topic_map, {**attributes, "data": data})
    encoded = read(topic_map, {**attributes, "data_base64": base64.b64encode(json.dumps(data).encode()).decode()})
    binary = read(topic_map, data, headers=[(f"ce_{name}", value.encode()) for name, value in attributes.items()])
    # then
    document = {"event_id": "e1", "ts_ms": 1_764_000_000_000, "user_id": "u-1", "item_id": "A"}
    assert structured == encoded == binary == ("clicks", document)
    with pytest.raises(BadEvent, match="specversion"):
        read(topic_map, data)


@pytest.mark.parametrize("wraps", [True, False])
def test_a_debezium_change_is_read_once_for_an_order_and_always_for_a_product(wraps: bool) -> None:
    # given
    clicks = open_map({name: f"after.{path}" for name, path in CLICK_FIELDS.items()}, "clicks", envelope="debezium")
    fields = {name: f"after.{name}" for name in ("event_id", "ts_ms", "item_id", "title", "price", "currency")}
    products = open_map({**fields, "available": {"constant": True}}, "products", envelope="debezium")
    row = {"id": 1, "ms": 2, "user": "u", "sku": "A", "item_id": "A"}

    def change(operation: str, before: object, after: object) -> dict[str, object]:
        payload = {"op": operation, "before": before, "after": after, "source": {}, "ts_ms": 9}
        return {"schema": {}, "payload": payload} if wraps else payload

    # then
    assert read(clicks, change("c", None, row))[1] == {"event_id": 1, "ts_ms": 2, "user_id": "u", "item_id": "A"}
    assert read(clicks, change("r", None, row))[0] == "clicks"
    for operation in ("u", "d"):
        with pytest.raises(Skipped):
            read(clicks, change(operation, row, None if operation == "d" else row))
    assert read(products, change("u", row, row))[1] == {"item_id": "A", "available": True}
    assert read(products, change("d", row, None))[1] == {"item_id": "A", "available": False}


def test_a_tombstone_within_a_debezium_payload_is_skipped() -> None:
    with pytest.raises(Skipped):
        open_map(CLICK_FIELDS, "clicks", envelope="debezium").read(b'{"schema": null, "payload": null}')


def test_attributes_are_read_by_their_own_names() -> None:
    fields = {**ORDER_FIELDS, "attributes": {"browser": "client.browser", "age": "client.age"}}
    order = {**ORDER, "client": {"browser": "lynx", "age": 34}}
    assert read(open_map(fields), order)[1]["attributes"] == {"browser": "lynx", "age": 34}
    product = {name: name for name in ("event_id", "ts_ms", "item_id", "title", "price", "currency", "available")}
    topic_map = open_map({**product, "attributes": {"size": "details.size", "colour": "details.c"}}, "products")
    assert read(topic_map, {"details": {"size": "L"}})[1] == {"attributes": {"size": "L"}}


def test_a_record_in_the_framing_of_a_schema_registry_is_named_as_such() -> None:
    with pytest.raises(BadEvent, match=r"framing of a schema registry \(schema 258\): set registry.url") as caught:
        open_map(CLICK_FIELDS, "clicks").read(b"\0\0\0\1\2\x0a\xff")
    assert caught.value.reason == "not_json"


@pytest.mark.parametrize("value", [[], "text", 5, True, {"items": 5}, {"items": [1, None]}, {"customer": []}])
def test_a_document_of_another_shape_lacks_fields_and_raises_nothing(value: object) -> None:
    kind, document = read(open_map(ORDER_FIELDS), value)
    with pytest.raises(BadEvent):
        READERS[kind].read_document(document)


def test_a_header_without_a_value_is_no_attribute_of_a_cloudevent() -> None:
    fields = {name: f"data.{path}" for name, path in CLICK_FIELDS.items()}
    topic_map = open_map({**fields, "session_id": "subject"}, "clicks", envelope="cloudevents")
    headers = [("ce_specversion", None), ("ce_subject", None), ("ce_source", b"\xff")]
    document = {"id": "c", "ms": 1, "user": "u", "sku": "i"}
    assert read(topic_map, document, headers=headers)[1] == {
        "event_id": "c",
        "ts_ms": 1,
        "user_id": "u",
        "item_id": "i",
    }


def test_a_deep_value_is_in_no_table_and_no_currency() -> None:
    # given
    deep = json.loads("[" * 400 + "]" * 400)
    document = {**ORDER, "gateway": deep, "currency": deep}

    def call_deep(frames: int) -> dict[str, Any]:
        return read(open_map(ORDER_FIELDS), document)[1] if frames == 0 else call_deep(frames - 1)

    # when
    read_document = call_deep(500)
    # then
    assert read_document["payment_method"] == deep
    assert read_document["amount"] == 44.8
    # and where it is the type, the record is left out
    kind = {"path": "type", "table": {"click": "clicks"}}
    with pytest.raises(Skipped, match="array"):
        read(open_map(CLICK_FIELDS, kind), {"type": deep})


@pytest.mark.parametrize("frames", [0, 300])
def test_a_mapped_record_is_nested_too_deeply_wherever_it_is_read(frames: int) -> None:
    topic_map = open_map(ORDER_FIELDS)

    def call_deep(levels: int, frames: int) -> object:
        if frames:
            return call_deep(levels, frames - 1)
        nested = b"[" * (levels - 1) + b"]" * (levels - 1)
        return topic_map.read(json.dumps(ORDER).encode()[:-1] + b', "unknown": ' + nested + b"}")[1]["event_id"]

    assert call_deep(500, frames) == 5001
    for levels in (501, 600, 960):
        with pytest.raises(BadEvent, match="500 levels"):
            call_deep(levels, frames)


def test_a_number_that_no_float_holds_costs_only_its_field() -> None:
    value = json.dumps(ORDER).encode()[:-1] + b', "unknown": 1e400}'
    _, document = open_map(ORDER_FIELDS).read(value)
    assert document["event_id"] == 5001
    # and a field that is needed is out of range
    _, document = open_map(ORDER_FIELDS).read(value.replace(b"4480", b"1e400"))
    with pytest.raises(BadEvent, match="out of range"):
        READERS["orders"].read_document(document)


@pytest.mark.parametrize("key", [b"[" * 980 + b"]" * 980, b"9" * 5_000, b"\xff", b"1e400", b'{"id": '])
def test_a_key_that_cannot_be_read_names_nothing(key: bytes) -> None:
    topic_map = open_map({**CLICK_FIELDS, "session_id": {"key": "id"}}, "clicks")
    assert "session_id" not in read(topic_map, {"id": "c"}, key=key)[1]


def test_every_mistake_is_listed_with_its_place_and_the_nearest_name() -> None:
    # when
    errors = find_errors(
        orders={"topcis": "a", "kind": "order", "fields": {}},
        clicks={"topics": ["a"], "kind": "clicks", "fields": {**CLICK_FIELDS, "usr_id": "u", "rank": {"pth": "r"}}},
        views={"topics": "b", "kind": "clicks", "fields": {"ts_ms": {"path": "a", "unit": "sec"}, "item_id": "a..b"}},
    )
    # then
    assert [error.split(" ")[0].strip("`") for error in errors] == [
        "map.orders.topcis",
        "map.orders.kind",
        "map.clicks.fields.usr_id",
        "map.clicks.fields.rank.pth",
        "map.clicks.fields.rank",
        "map.views.fields.ts_ms.unit",
        "map.views.fields.item_id",
        "map.views.fields",
    ]
    assert "the nearest is `topics`" in errors[0]
    assert "the nearest is `orders`" in errors[1]
    assert "the nearest is `user_id`" in errors[2]
    assert errors[-1].endswith("Found none for event_id, user_id.")


def test_maps_of_one_topic_need_a_type_that_tells_them_apart() -> None:
    first = {"topics": "a", "kind": "clicks", "fields": CLICK_FIELDS}
    by_type = {"topics": "a", "kind": {"path": "t", "table": {"x": "clicks"}}, "fields": CLICK_FIELDS}
    assert find_errors(a=first, b=by_type)[0].startswith("Maps of one topic should each have a kind by type.")
    assert find_errors(a=by_type, b=by_type)[0].startswith("A type should be in one map of a topic. Found `x`")


@pytest.mark.parametrize(
    ("record", "user"),
    [
        ({"customer": 7, "email": "a@x.com"}, "7"),
        ({"customer": 0, "email": "a@x.com"}, "a@x.com"),  # a guest in many platforms
        ({"customer": " Guest ", "email": "a@x.com"}, "a@x.com"),
        ({"customer": "", "email": None, "visitor": "v-1"}, "v-1"),
        ({"customer": 0, "email": ""}, ""),
        ({"customer": 0}, ""),
        ({"customer": None, "email": None}, ""),
        ({}, ""),
    ],
)
def test_a_placeholder_for_an_id_counts_only_where_no_later_path_has_a_value(
    record: dict[str, object], user: str
) -> None:
    topic_map = open_map({**CLICK_FIELDS, "user_id": ["customer", "email", "visitor"]}, "clicks")
    click = {"id": "c1", "ms": 1_764_000_000_000, "sku": "A", **record}
    kind, document = read(topic_map, click)
    event = READERS[kind].read_document(document)
    assert isinstance(event, Click)
    assert event.user_id == user
    assert topic_map.read(click) == (kind, document)  # decoded before, as the data of a schema are


@pytest.mark.parametrize(
    ("record", "ip"),
    [
        ({"forwarded": "203.0.113.9", "remote": "198.51.100.7"}, "203.0.113.9"),
        ({"forwarded": "10.0.0.1", "remote": "198.51.100.7"}, "198.51.100.7"),
        ({"forwarded": "unknown", "remote": "198.51.100.7"}, "198.51.100.7"),
        ({"forwarded": ["10.0.0.1", "203.0.113.9"], "remote": "198.51.100.7"}, "203.0.113.9"),
        ({"forwarded": "10.0.0.1, 203.0.113.9:80", "remote": "198.51.100.7"}, "203.0.113.9"),
        ({"forwarded": "", "remote": "198.51.100.7"}, "198.51.100.7"),
        ({"forwarded": {"a": 1}, "remote": "198.51.100.7"}, "198.51.100.7"),
        ({"remote": "198.51.100.7"}, "198.51.100.7"),
        ({"forwarded": "10.0.0.1", "remote": "127.0.0.1"}, "192.0.2.1"),
        ({"forwarded": "10.0.0.1"}, "192.0.2.1"),
        ({}, None),
    ],
)
def test_of_several_addresses_the_first_public_one_counts(record: dict[str, object], ip: str | None) -> None:
    # given two paths, then a header where the record has any address
    fields = {**CLICK_FIELDS, "ip": {"path": ["forwarded", "remote"], "header": "peer"}}
    topics = EventTopics(TopicSettings(), {"shop": {"topics": "acme", "kind": "clicks", "fields": fields}})
    only_paths = EventTopics(
        TopicSettings(),
        {"shop": {"topics": "acme", "kind": "clicks", "fields": {**fields, "ip": ["forwarded", "remote"]}}},
    )
    value = json.dumps({"id": "c1", "ms": 1_764_000_000_000, "user": "u", "sku": "A", **record}).encode()
    headers = [("peer", b"192.0.2.1")] if record else []
    # when
    for event_topics, expected in ((topics, ip), (only_paths, None if ip == "192.0.2.1" else ip)):
        _, click = RecordReader(event_topics).read(Record(TopicPartition("acme", 0), 0, None, value, headers, -1))
        # then
        assert isinstance(click, Click)
        assert click.ip == expected


def test_a_default_address_stands_where_no_path_has_one() -> None:
    fields = {**CLICK_FIELDS, "ip": {"path": ["a", "b"], "default": "192.0.2.1"}}
    topic_map = open_map(fields, "clicks")
    assert [read(topic_map, record)[1]["ip"] for record in ({}, {"b": "10.0.0.1"})] == ["192.0.2.1", ["10.0.0.1"]]


def test_an_order_of_no_user_with_a_line_of_no_item_is_one_of_an_unknown_user() -> None:
    # given a purchase at a counter, and a line such as a tip
    order = {**ORDER, "customer": None, "email": None, "items": [ORDER["items"][0], {"n": 1, "price": 500}]}
    topic_map = open_map(ORDER_FIELDS)
    # when
    kind, document = read(topic_map, order)
    event: Any = READERS[kind].read_document(document)
    # then
    assert (event.user_id, [line.item_id for line in event.lines]) == ("", ["A", ""])
    # but ids that are needed for an answer are
    kind, document = read(topic_map, {**order, "id": None})
    with pytest.raises(BadEvent, match="`event_id`"):
        READERS[kind].read_document(document)


def test_an_empty_text_of_any_field_gives_way_to_a_later_path() -> None:
    fields = {**CLICK_FIELDS, "query": ["q", "search"], "rank": ["place", "position"]}
    record = {"id": "c1", "ms": 1, "user": "u", "sku": "A", "q": " ", "search": "mug", "place": 0, "position": 3}
    _, document = read(open_map(fields, "clicks"), record)
    assert (document["query"], document["rank"]) == ("mug", 0)


@pytest.mark.parametrize(("reason", "value"), [("fraudulent", 1), ("duplicate", 0), (7, 0), (None, None)])
def test_a_table_may_have_a_value_for_all_others(reason: object, value: object) -> None:
    fields = {"value": {"path": "reason", "table": {"fraudulent": 1, "*": 0}}, "event_id": "id", "ts_ms": "ms"}
    fields |= {"user_id": "user", "judged_event_id": "order", "task": {"constant": "fraud"}}
    _, document = read(open_map(fields, "labels"), {"reason": reason})
    assert document.get("value") == value


def test_a_value_that_a_table_lacks_stays_as_it_is() -> None:
    fields = {**CLICK_FIELDS, "surface": {"path": "page", "table": {"pdp": "product"}}}
    pages = ("pdp", "home")
    assert [read(open_map(fields, "clicks"), {"page": page})[1]["surface"] for page in pages] == ["product", "home"]


@pytest.mark.parametrize(
    "record",
    [
        b'\xef\xbb\xbf{"id": "c1", "ms": 5, "user": "u1", "sku": "A"}',
        b'{"id": "c1", "ms": 5, "user": "u1", "sku": "A", "x": 1e400}',
        b'{"id": "c1", "ms": 5, "user": "u1", "sku": "A", "x": "\\ud83d"}',
    ],
)
def test_a_record_that_is_almost_json_is_mapped_as_records_of_ours_are_read(record: bytes) -> None:
    assert open_map(CLICK_FIELDS, "clicks").read(record, None, ()) == (
        "clicks",
        {"event_id": "c1", "ts_ms": 5, "user_id": "u1", "item_id": "A"},
    )
