"""Texts that a map composes of several values, such as an event id of an order and its state."""

from typing import Any

import pytest

from tests.contract.mapping.test_topic_map import CLICK_FIELDS, ORDER, ORDER_FIELDS, find_errors, open_map, read

JOIN = {"join": ["order.id", "state", "order.updated"], "with": ":"}


@pytest.mark.parametrize("envelope", ["", "cloudevents"])
def test_an_event_id_is_composed_of_several_values(envelope: str) -> None:
    record = {"specversion": "1.0", "order": {"id": 7, "updated": "2026-11-30"}, "state": "paid", "ms": 5}
    fields = {**CLICK_FIELDS, "event_id": JOIN}
    _, document = read(open_map(fields, "clicks", **({"envelope": envelope} if envelope else {})), record)
    assert document["event_id"] == "7:paid:2026-11-30"


@pytest.mark.parametrize(
    ("values", "ident"),
    [
        (["a", "b"], "a/b"),
        ([1.0, 0], "1/0"),
        (["a", ""], None),
        (["a", None], None),
        (["a", True], None),
        (["a", ["b"]], None),
        (["a", {}], None),
        (["a", 1e400], None),
    ],
)
def test_a_composed_id_is_absent_where_one_of_its_values_says_nothing(values: list[Any], ident: str | None) -> None:
    fields = {**CLICK_FIELDS, "event_id": {"join": ["a", "b"]}}
    record = dict(zip(("a", "b"), values, strict=True))
    assert read(open_map(fields, "clicks"), record)[1].get("event_id") == ident
    assert read(open_map(fields, "clicks"), {"a": "a"})[1].get("event_id") is None
    assert read(open_map(fields, "clicks"), [record])[1].get("event_id") is None


def test_items_of_lines_and_attributes_are_composed_too() -> None:
    lines = {**ORDER_FIELDS["lines"], "item_id": {"join": ["items[].sku", "items[].n", "id"], "with": "-"}}
    fields = {**ORDER_FIELDS, "lines": lines, "attributes": {"route": {"join": ["currency", "gateway"], "with": ">"}}}
    _, document = read(open_map(fields), ORDER)
    assert [line["item_id"] for line in document["lines"]] == ["A-2-5001", "7-1-5001"]
    assert document["attributes"] == {"route": "EUR>cc"}


def test_a_mistake_in_a_join_is_told_with_its_place() -> None:
    wrong: dict[str, Any] = {
        "event_id": {"join": "id"},
        "user_id": {"join": ["a", "b"], "path": "c"},
        "item_id": {"join": ["a", "items[].sku"]},
        "session_id": {"join": ["a", "b"], "with": 1},
        "device_id": {"join": ["a", "b c"]},
        "query": {"with": "/", "path": "q"},
        "ts_ms": {"join": ["a", "b"], "unit": "iso"},
    }
    assert find_errors(shop={"topics": "t", "kind": "clicks", "fields": wrong}) == [
        "`map.shop.fields.event_id.join` should be a list of two paths or more. Found 'id'.",
        "`map.shop.fields.user_id` should have `join` without path. Found both.",
        "`map.shop.fields.item_id.join` should name single values. Found the list `items[].sku`.",
        "`map.shop.fields.session_id.with` should be a text between the values of `join`. Found 1.",
        "`map.shop.fields.device_id` should be a path such as `customer.id`, `items[].sku` or "
        "`params[name=page].value`. Found `b c`.",
        "`map.shop.fields.query.join` should be a list of two paths or more. Found None.",
        "`map.shop.fields.ts_ms` should have `join` without unit. Found both.",
    ]
