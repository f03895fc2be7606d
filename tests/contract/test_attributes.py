"""Attributes: bounds when an event is decoded, and what each kind of feature reads of them."""

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.attributes import find_absence, to_category, to_number, to_text, to_vector
from contract.events.model import ATTRIBUTES_MAX, LIST_ITEMS_MAX, TEXT_CHARS_MAX, Event, Product, Search, digest_content
from contract.events.reading import EventReader, decode
from contract.features.columns import ProfileAggregates
from contract.features.declaration import Feature, FeatureSet
from contract.hashing import hash_id
from contract.messages import to_msgpack

NOTHING = ProfileAggregates({}, {})
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def decode_attributes(attributes: object) -> Event:
    return decode("searches", write_search(msgspec.json.encode(attributes)))


def write_search(attributes: bytes) -> bytes:
    return b'{"event_id": "e", "ts_ms": 1, "user_id": "u", "query": "q", "attributes": ' + attributes + b"}"


@given(attributes=st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_any_attributes_can_be_stored_encoded_and_sent_on(attributes: dict[str, Any]) -> None:
    # given
    event = decode_attributes(attributes)
    features = FeatureSet(
        [
            Feature("n", "query", "number", "event.attributes.a"),
            Feature("c", "query", "category", "event.attributes.a"),
            Feature("t", "query", "text", "event.attributes.a"),
            Feature("v", "query", "vector", "event.attributes.a", 2),
        ]
    )
    # when
    block = features.encode("query", [event], NOTHING)
    # then
    assert not np.isinf(block.numbers).any()
    assert digest_content(event)
    assert msgspec.msgpack.decode(to_msgpack(event), type=Search) == event


@pytest.mark.parametrize(
    ("number", "is_kept"), [("9" * 40, True), ("9" * 400, False), ("-" + "9" * 40, True), ("1e39", True)]
)
def test_a_number_beyond_float32_is_absent(number: str, is_kept: bool) -> None:
    event = decode("searches", write_search(b'{"a": ' + number.encode() + b"}"))
    assert isinstance(event, Search)
    assert event.attributes is not None
    assert isinstance(event.attributes["a"], float) is is_kept
    assert to_number(event.attributes["a"]) is None


def test_long_texts_and_lists_are_shortened() -> None:
    event = decode_attributes({"t": "x" * (TEXT_CHARS_MAX + 1), "l": [1] * (LIST_ITEMS_MAX + 1), "o": {"a": 1}})
    assert isinstance(event, Search)
    assert event.attributes == {"t": "x" * TEXT_CHARS_MAX, "l": [1] * LIST_ITEMS_MAX, "o": []}


def test_of_more_attributes_than_the_bound_the_first_are_kept_and_the_field_is_counted() -> None:
    ignored = list[tuple[str, str]]()
    reader = EventReader("searches", on_ignored=lambda *place: ignored.append(place))
    attributes = {f"a{n}": n for n in range(ATTRIBUTES_MAX + 1)}
    event = reader.read(write_search(msgspec.json.encode(attributes)))
    assert isinstance(event, Search)
    assert event.attributes == {f"a{n}": n for n in range(ATTRIBUTES_MAX)}
    assert ignored == [("searches", "attributes")]


def test_the_order_of_attributes_does_not_change_the_content_of_an_event() -> None:
    left, right = decode_attributes({"a": 1, "b": 2}), decode_attributes({"b": 2, "a": 1})
    assert digest_content(left) == digest_content(right)
    assert digest_content(left) != digest_content(decode_attributes({"a": 1, "b": 3}))
    # nor does the way in which a producer writes a number, or nothing
    floats = decode_attributes({"a": 1.0, "b": 2.0, "c": None})
    assert digest_content(left) == digest_content(floats)
    assert digest_content(left) != digest_content(decode_attributes({"a": True, "b": 2}))


@pytest.mark.parametrize("attributes", [{}, {"a": None}])
def test_attributes_that_say_nothing_do_not_change_the_content_of_an_event(attributes: dict[str, None]) -> None:
    assert digest_content(decode_attributes(attributes)) == digest_content(decode_attributes(None))
    assert digest_content(decode_attributes(None)) == digest_content(
        decode("searches", b'{"event_id": "e", "ts_ms": 1, "user_id": "u", "query": "q"}')
    )


@pytest.mark.parametrize(
    ("value", "number", "category", "text", "vector"),
    [
        (5, 5.0, "5", None, None),
        (5.0, 5.0, "5", None, None),
        (2.5, 2.5, None, None, None),
        (True, 1.0, "true", None, None),
        (False, 0.0, "false", None, None),
        ("5", None, "5", "5", None),
        ("", None, None, None, None),
        ([1, 2.5], None, None, None, [1.0, 2.5]),
        ([1], None, None, None, None),
        ([1, "2"], None, None, None, None),
        ({}, None, None, None, None),
        (2**60, float(2**60), None, None, None),
    ],
)
def test_each_kind_reads_its_own_types(
    value: object, number: float | None, category: str | None, text: str | None, vector: list[float] | None
) -> None:
    assert (to_number(value), to_category(value), to_text(value), to_vector(value, 2)) == (
        number,
        category,
        text,
        vector,
    )


@pytest.mark.parametrize(("value", "reason"), [(None, "missing"), ("", "missing"), ("x", "type"), ([], "type")])
def test_an_absent_attribute_is_missing_or_of_another_type(value: object, reason: str) -> None:
    assert find_absence(value) == reason


def test_attributes_of_a_product_are_features_of_items() -> None:
    # given
    features = FeatureSet(
        [
            Feature("colour", "item", "category", "item.attributes.colour"),
            Feature("weight", "item", "number", "item.attributes.weight"),
        ]
    )
    fields: dict[str, Any] = {"event_id": "p", "ts_ms": 1, "title": "t", "price": 1, "currency": "EUR"}
    products = [
        Product(item_id="i", available=True, attributes={"colour": "blue", "weight": 2.5}, **fields),
        Product(item_id="j", available=True, **fields),
    ]
    counts = Counter[tuple[str, str]]()
    # when
    block = features.encode("item", products, NOTHING, lambda name, reason, n: counts.update({(name, reason): n}))
    # then
    assert block.ids[:, 0].tolist() == [hash_id("attributes.colour=blue"), 0]
    np.testing.assert_array_equal(block.numbers[:, 0], [2.5, np.nan])
    assert counts == {("colour", "missing"): 1, ("weight", "missing"): 1}
