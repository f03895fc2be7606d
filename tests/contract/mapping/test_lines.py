"""Lines of orders that are no list: a text of a database, one object of a converter from XML."""

import json
from typing import Any

import pytest

from tests.contract.mapping.test_topic_map import ORDER, ORDER_FIELDS, open_map, read


@pytest.mark.parametrize("envelope", ["", "debezium"])
def test_lines_in_a_text_or_of_one_object_are_lines(envelope: str) -> None:
    topic_map = open_map(
        ORDER_FIELDS if not envelope else to_change(ORDER_FIELDS), **({"envelope": envelope} if envelope else {})
    )
    expected = read(topic_map, wrap(ORDER, envelope))[1]["lines"]
    assert len(expected) == 2
    assert read(topic_map, wrap({**ORDER, "items": json.dumps(ORDER["items"])}, envelope))[1]["lines"] == expected
    assert read(topic_map, wrap({**ORDER, "items": ORDER["items"][0]}, envelope))[1]["lines"] == expected[:1]


def wrap(document: dict[str, Any], envelope: str) -> dict[str, Any]:
    return {"op": "c", "before": None, "after": document} if envelope else document


def to_change(fields: dict[str, Any]) -> dict[str, Any]:
    """These fields, with the paths of a row of Debezium."""
    paths = {"event_id": "after.id", "ts_ms": {"path": "after.created_at", "unit": "iso"}, "user_id": "after.email"}
    lines = {"item_id": "after.items[].sku", "quantity": "after.items[].n"}
    price = {"path": "after.items[].price", "unit": "minor"}
    money = {"amount": {"path": "after.total", "unit": "minor"}, "currency": "after.currency"}
    return {**fields, **paths, **money, "lines": {**lines, "unit_price": price}, "payment_method": "after.gateway"}
