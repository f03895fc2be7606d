"""Records that are almost JSON: what can be meant in one way only is read, anything else is a dead letter."""

import json
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BadEvent
from contract.events.decoding import decode_document, open_entries
from contract.events.mending import mend
from tests.contract.intake import NOW_MS, Intake
from tests.contract.test_events import encode_event

ORDER: Final = encode_event("orders", ts_ms=NOW_MS)
MENDED: Final[dict[str, Callable[[bytes], bytes]]] = {
    "a comma behind the last field": lambda value: value[:-1] + b" , }",
    "a comma behind the last entry": lambda value: value.replace(b"}]", b"},\n]"),
    "a byte order mark": lambda value: b"\xef\xbb\xbf" + value,
    "UTF-16 with a mark": lambda value: value.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda value: value.decode().encode("utf-16-le"),
    "UTF-32": lambda value: value.decode().encode("utf-32"),
    "zeros at the end": lambda value: value + b"\n\0\0",
    "a document in a text": lambda value: json.dumps(value.decode()).encode(),
    "all of it": lambda value: b"\xef\xbb\xbf" + json.dumps(value.decode()[:-1] + ",}").encode() + b"\0",
}


@pytest.mark.parametrize("name", MENDED)
def test_a_record_that_can_be_meant_in_one_way_is_read(name: str) -> None:
    intake = Intake("orders")
    assert intake.reader.read(MENDED[name](ORDER)) == intake.read()
    assert not intake.ignored


@pytest.mark.parametrize(
    "value",
    [
        ORDER[:-9],
        ORDER * 2,
        ORDER + b"\n" + ORDER,
        ORDER.replace(b'"', b"'"),
        b"// an order\n" + ORDER,
        ORDER.replace(b'"event_id"', b"event_id"),
        ORDER.replace(b'"amount"', b', "amount"'),
        ORDER[:-1] + b",,}",
        b"[" + ORDER,
        b'{"' + b'\\"' * 100_000,
        b'{"a"' + b"," * 200_000 + b"}",
    ],
)
def test_a_record_that_could_be_meant_in_several_ways_is_a_dead_letter(value: bytes) -> None:
    with pytest.raises(BadEvent) as caught:
        Intake("orders").reader.read(value)
    assert caught.value.reason == "not_json"


def test_a_list_of_events_is_none() -> None:
    with pytest.raises(BadEvent, match="Expected `object`, got `array`"):
        Intake("orders").reader.read(b"[" + ORDER + b"]")


def test_control_characters_in_a_text_are_read() -> None:
    raw = encode_event("clicks", ts_ms=NOW_MS, query="blue PLACE mug").replace(b"PLACE", b"\n\t\x01")
    assert Intake("clicks").reader.read(raw) == Intake("clicks").read(query="blue \n\t\x01 mug")


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_mending_leaves_a_document_as_it_is_with_all_commas_in_its_texts(document: object) -> None:
    value = json.dumps([document, ",]", ', }"', "\\"], ensure_ascii=False).encode(errors="replace")
    assert mend(value) == value
    with_commas = value.replace(b'"\\\\"]', b'"\\\\" ,\r\n]')
    assert mend(with_commas) == value.replace(b'"\\\\"]', b'"\\\\" \r\n]')


def test_a_document_in_texts_within_texts_stays_a_text() -> None:
    twice = json.dumps(json.dumps("{}")).encode()
    assert decode_document(json.dumps("{}").encode()) == {}
    assert decode_document(twice) == json.dumps("{}")


def test_lists_in_texts_as_columns_of_databases_hold_them_are_read() -> None:
    order = Intake("orders").read()
    lines = [
        {"item_id": line.item_id, "quantity": line.quantity, "unit_price": line.unit_price} for line in order.lines
    ]
    expected = Intake("orders").read(lines=lines)
    assert Intake("orders").read(lines=json.dumps(lines)) == expected
    assert Intake("orders").read(lines=lines[0] if len(lines) == 1 else json.dumps(lines)) == expected
    assert Intake("orders").read(attributes='{"age": 7}').attributes == {"age": 7}
    assert Intake("products").read(vector="[0.5, 1]").vector == (0.5, 1.0)
    assert Intake("impressions").read(items='["i1", "i2"]').items == ("i1", "i2")


def test_a_text_that_is_no_list_stays_what_it_is() -> None:
    for text in ("", "[", "{", "[1", "mug"):
        assert open_entries(text) == text
    assert open_entries({"a": 1}) == open_entries('{"a": 1}') == [{"a": 1}]
    assert Intake("orders").find_reason(lines="[1") == "wrong_type"
