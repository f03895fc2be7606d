"""Records that are decoded into the shape of a map's paths: the same documents as without, whatever a record holds."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BadEvent
from contract.mapping.envelopes import parse
from contract.mapping.shapes import find_shape
from contract.mapping.topic_map import TopicMap
from contract.settings.mapping import read_maps

FIELDS: dict[str, Any] = {
    "event_id": ["a.b", "c"],
    "ts_ms": {"path": "b", "unit": "s"},
    "user_id": {"path": ["a.c.a", "a.b"], "default": "u"},
    "lines": {
        "item_id": ["items[].a.b", "items[].c"],
        "quantity": "items[].b",
        "unit_price": {"path": "a.c.b", "table": {"1": 7}},
        "seller_id": {"constant": "s"},
    },
    "amount": {"path": "list[0].a", "unit": "minor"},
    "currency": "list[a=1].b",
    "payment_method": "c.b.a",
    "device_id": "a",
    "attributes": {"x": "c.a", "y": "list[].a", "z": "items"},
}
NAMES = st.sampled_from(["a", "b", "c", "list", "items"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 1, 7.5, "", "a", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
PLACES = st.fixed_dictionaries(
    {},
    optional={
        "a": st.fixed_dictionaries(
            {}, optional={"b": VALUES, "c": st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES})}
        ),
        "b": VALUES,
        "c": VALUES,
        "list": st.lists(VALUES, max_size=3),
        "items": st.lists(st.dictionaries(NAMES, VALUES, max_size=3), max_size=3),
    },
)


def open_map(fields: dict[str, Any]) -> TopicMap:
    return TopicMap(read_maps({"shop": {"topics": "acme", "kind": "orders", "fields": fields}}))


def without(*names: str) -> TopicMap:
    """The map without some of its fields, so that others are read of a struct and not as a whole."""
    return open_map({name: source for name, source in FIELDS.items() if name not in names})


MAPS = [open_map(FIELDS), without("device_id"), without("device_id", "attributes")]


@pytest.mark.parametrize("topic_map", MAPS)
@given(document=PLACES | st.dictionaries(NAMES, VALUES, max_size=5) | VALUES.filter(lambda value: value is not None))
def test_a_record_gives_the_document_that_its_decoded_form_gives(topic_map: TopicMap, document: object) -> None:
    assert topic_map.read(json.dumps(document).encode()) == topic_map.read(msgspec.json.decode(json.dumps(document)))


def test_each_map_has_a_shape() -> None:
    assert all(
        find_shape(topic_map.tables) for topic_map in MAPS
    )  # else the test before compares one reading with itself


@pytest.mark.parametrize("value", [b"", b"{", b'{"a": \xff}', b"[" * 100_000, b'{"a":1}' + b" " * 300_000])
def test_a_record_that_is_no_document_is_refused_as_without_a_map(value: bytes) -> None:
    with pytest.raises(BadEvent) as by_map:
        MAPS[0].read(value)
    with pytest.raises(BadEvent) as by_parse:
        parse(value)
    assert by_map.value.reason == by_parse.value.reason


def test_what_no_path_names_is_not_read() -> None:
    # given a number that no float can hold, and the value of another field
    _, document = MAPS[2].read(b'{"other": 1e400, "a": {"b": "5"}}')
    # then
    assert document["event_id"] == "5"
