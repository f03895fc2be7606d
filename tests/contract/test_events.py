"""Every invalid record has a reason, and every bound is tested from both sides."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from contract.errors import BadEvent
from contract.events.model import (
    AHEAD_MS_MAX,
    KINDS,
    REASONS,
    RECORD_BYTES_MAX,
    TEXT_CHARS_MAX,
    TS_MS_MAX,
    Click,
    Event,
    Order,
    Review,
    clamp,
    digest_content,
)
from contract.events.reading import DECODERS, decode

LINE: Final[dict[str, Any]] = {"item_id": "i1", "quantity": 1, "unit_price": 2.5}
USER: Final[dict[str, Any]] = {"event_id": "e1", "ts_ms": 1_700_000_000_000, "user_id": "u1"}
VALID: Final[dict[str, dict[str, Any]]] = {
    "clicks": {**USER, "item_id": "i1"},
    "impressions": {**USER, "items": ["i1"]},
    "orders": {**USER, "lines": [LINE], "amount": 2.5, "currency": "EUR", "payment_method": "card"},
    "reviews": {**USER, "item_id": "i1", "rating": 4.5},
    "searches": {**USER, "query": "red shoes"},
    "products": {
        "event_id": "e1",
        "ts_ms": 1,
        "item_id": "i1",
        "title": "t",
        "price": 1.0,
        "currency": "EUR",
        "available": True,
    },
    "labels": {**USER, "judged_event_id": "e0", "task": "fraud", "value": 1},
    "judgements": {**USER, "judged_event_id": "e0", "task": "fraud", "value": 1, "entities": ["user:u1"]},
    "erasures": USER,
}


def encode_event(kind: str, **changes: Any) -> bytes:
    """A valid event of a kind with some fields changed; `...` omits a field."""
    fields = {**VALID[kind], **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def make_nested_json(name: str, depth: int) -> bytes:
    return f'{{"{name}":'.encode() + b"[" * depth + b"]" * depth + b"}"


def decode_outcome(kind: str, value: bytes | None) -> str:
    try:
        decode(kind, value)
    except BadEvent as error:
        return error.reason
    return "decoded"


def find_reason(kind: str, value: bytes | None) -> str:
    with pytest.raises(BadEvent) as caught:
        decode(kind, value)
    assert caught.value.reason in REASONS
    assert str(caught.value)
    return caught.value.reason


BAD: Final[Mapping[str, tuple[str, bytes | None, str]]] = {
    "no value": ("orders", None, "empty"),
    "no bytes": ("orders", b"", "empty"),
    "blanks": ("orders", b"   ", "not_json"),
    "not JSON": ("orders", b"hello", "not_json"),
    "half a document": ("orders", encode_event("orders")[:-1], "not_json"),
    "NaN": ("orders", encode_event("orders", amount=float("nan")), "out_of_range"),
    "NaN for an id": ("orders", encode_event("orders", user_id=float("nan")), "wrong_type"),
    "NaN without an end": ("orders", b'{"amount": NaN', "not_json"),
    "Infinity": ("orders", encode_event("orders", amount=float("inf")), "out_of_range"),
    "not UTF-8": ("orders", b"\xff\xfe", "not_utf8"),
    "UTF-16 cut within a character": ("orders", encode_event("orders").decode().encode("utf-16")[:-1], "not_utf8"),
    "not UTF-8 in a required field": ("searches", b'{"query":"\xff"}', "not_utf8"),
    "not UTF-8 in a required id of a line": (
        "orders",
        encode_event("orders", lines=[{**LINE, "item_id": "M?sli"}]).replace(b"?", b"\xfc"),
        "not_utf8",
    ),
    "not UTF-8 outside texts": ("orders", encode_event("orders") + b"\xff", "not_utf8"),
    "1e400": ("orders", encode_event("orders").replace(b'"amount": 2.5', b'"amount": 1e400'), "out_of_range"),
    "an integer of 400 digits": ("orders", encode_event("orders", amount=10**400), "out_of_range"),
    "a negative amount": ("orders", encode_event("orders", amount=-0.01), "out_of_range"),
    "a negative time": ("orders", encode_event("orders", ts_ms=-1), "out_of_range"),
    "a quantity of nothing": ("orders", encode_event("orders", lines=[{**LINE, "quantity": 0}]), "out_of_range"),
    "a price of two thousand millions": (
        "orders",
        encode_event("orders", lines=[{**LINE, "unit_price": 2e9}]),
        "out_of_range",
    ),
    "six stars": ("reviews", encode_event("reviews", rating=6), "out_of_range"),
    "words for a number": ("orders", encode_event("orders", amount="two"), "wrong_type"),
    "a list for an id": ("orders", encode_event("orders", user_id=["u"]), "wrong_type"),
    "an array": ("orders", b"[]", "wrong_type"),
    "null": ("orders", b"null", "wrong_type"),
    "a quantity of 400 digits": (
        "orders",
        encode_event("orders", lines=[{**LINE, "quantity": 10**400}]),
        "out_of_range",
    ),
    "no user": ("orders", encode_event("orders", user_id=...), "missing_field"),
    "no event id": ("orders", encode_event("orders", event_id=...), "missing_field"),
    "a line without a price": (
        "orders",
        encode_event("orders", lines=[{"item_id": "i", "quantity": 1}]),
        "missing_field",
    ),
    "no lines": ("orders", encode_event("orders", lines=[]), "too_long"),
    "2,001 lines": ("orders", encode_event("orders", lines=[LINE] * 2_001), "too_long"),
    "2,001 items": ("impressions", encode_event("impressions", items=["i"] * 2_001), "too_long"),
    "a long currency": ("orders", encode_event("orders", currency="E" * 129), "too_long"),
    "300 KiB": ("searches", encode_event("searches", query="x" * 300 * 1_024), "too_large"),
    "10,000 deep in a field that is skipped": ("orders", make_nested_json("x", 10_000), "too_deep"),
    "10,000 deep in a field that is is_valid": ("orders", make_nested_json("lines", 10_000), "too_deep"),
    "10,000 deep from the start": ("orders", b"[" * 10_000 + b"]" * 10_000, "too_deep"),
    "an id of 129 characters": ("orders", encode_event("orders", event_id="a" * 129), "bad_id"),
    "a placeholder for an order's id": ("orders", encode_event("orders", event_id="null"), "placeholder_id"),
    "an empty item": ("clicks", encode_event("clicks", item_id=""), "placeholder_id"),
    "an erasure without a user": ("erasures", encode_event("erasures", user_id="guest"), "placeholder_id"),
    "a label of 2 for a task of yes or no": ("labels", encode_event("labels", value=2), "bad_label"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_an_invalid_record_has_its_reason(wrong: str) -> None:
    kind, value, reason = BAD[wrong]
    assert find_reason(kind, value) == reason


def test_every_reason_is_tested() -> None:
    tested_elsewhere = {"bad_schema", "bad_time", "cannot_score", "too_large_to_keep"}
    assert {reason for _, _, reason in BAD.values()} == set(REASONS) - tested_elsewhere


def call_deep(frames: int, function: Callable[[], Any]) -> Any:
    """The result of a function that is called below this many further ones."""
    return function() if frames == 0 else call_deep(frames - 1, function)


@pytest.mark.parametrize("frames", [0, 300])
@pytest.mark.parametrize("opening", ["[", '{"x]":'])
@pytest.mark.parametrize("field", ["unknown", "attributes"])
def test_a_record_is_nested_too_deeply_wherever_it_is_read(frames: int, opening: str, field: str) -> None:
    closing = {"[": "]", "{": "}"}[opening[0]]
    texts = json.dumps(["\\", '"[[', "]]", '\\"{'] * 1_000)

    def read(levels: int) -> str:
        nested = '{"y": ' + opening * (levels - 2) + "0" + closing * (levels - 2) + "}"
        value = encode_event("orders")[:-1] + f', "texts": {texts}, "{field}": {nested}'.encode() + b"}"
        try:
            return str(call_deep(frames, lambda: decode("orders", value)).event_id)
        except BadEvent as error:
            return error.reason

    assert [read(499), read(500), read(501), read(960)] == ["e1", "e1", "too_deep", "too_deep"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_valid_event_of_each_kind_is_decoded(kind: str) -> None:
    event = decode(kind, encode_event(kind))
    assert type(event) is KINDS[kind]
    assert event.event_id == "e1"


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_fields_are_ignored(kind: str) -> None:
    assert decode(kind, encode_event(kind, new_field={"deep": [1, None]})) == decode(kind, encode_event(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_each_required_field_must_be_present(kind: str) -> None:
    for name in VALID[kind]:
        assert find_reason(kind, encode_event(kind, **{name: ...})) == "missing_field"


@pytest.mark.parametrize(
    ("kind", "inside", "outside", "reason"),
    [
        ("orders", {"amount": 0}, {"amount": -1e-9}, "out_of_range"),
        ("orders", {"amount": 1e9}, {"amount": 1.000001e9}, "out_of_range"),
        ("orders", {"ts_ms": 0}, {"ts_ms": -1}, "out_of_range"),
        ("orders", {"ts_ms": 2**53}, {"ts_ms": 2**53 + 1}, "out_of_range"),
        ("orders", {"lines": [LINE] * 2_000}, {"lines": [LINE] * 2_001}, "too_long"),
        (
            "orders",
            {"lines": [{**LINE, "quantity": 10**7}]},
            {"lines": [{**LINE, "quantity": 10**7 + 1}]},
            "out_of_range",
        ),
        ("orders", {"user_id": "u" * 128}, {"user_id": "u" * 129}, "bad_id"),
        ("orders", {"currency": "E" * 128}, {"currency": "E" * 129}, "too_long"),
        ("reviews", {"rating": 0}, {"rating": -0.5}, "out_of_range"),
        ("reviews", {"rating": 5}, {"rating": 5.01}, "out_of_range"),
        ("labels", {"task": "t", "value": "shoes"}, {"task": "t", "value": "x" * 129}, "too_long"),
    ],
)
def test_a_bound_holds_from_both_sides(kind: str, inside: dict[str, Any], outside: dict[str, Any], reason: str) -> None:
    assert decode_outcome(kind, encode_event(kind, **inside)) == "decoded"
    assert find_reason(kind, encode_event(kind, **outside)) == reason


def test_a_record_may_have_at_most_256_kib() -> None:
    # given
    blank = encode_event("orders")
    largest = blank + b" " * (RECORD_BYTES_MAX - len(blank))
    # then
    assert RECORD_BYTES_MAX == 256 * 1_024
    assert decode("orders", largest) == decode("orders", blank)
    assert find_reason("orders", largest + b" ") == "too_large"


@pytest.mark.parametrize("length", [0, TEXT_CHARS_MAX - 1, TEXT_CHARS_MAX, TEXT_CHARS_MAX + 1, 5_000])
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("clicks", "query"),
        ("impressions", "query"),
        ("searches", "query"),
        ("reviews", "text"),
        ("products", "title"),
        ("products", "description"),
    ],
)
def test_long_text_is_truncated(kind: str, field: str, length: int) -> None:
    event = decode(kind, encode_event(kind, **{field: "ü" * length}))
    assert getattr(event, field) == "ü" * min(length, TEXT_CHARS_MAX)


@given(ident=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128))
def test_an_id_may_be_any_text_of_128_characters(ident: str) -> None:
    event = decode("clicks", encode_event("clicks", user_id=f"u{ident}"[:128]))
    assert isinstance(event, Click)
    assert event.user_id == f"u{ident}"[:128]


@given(value=st.one_of(st.binary(max_size=200), st.text().map(str.encode)), kind=st.sampled_from(sorted(KINDS)))
def test_any_bytes_are_decoded_or_rejected(value: bytes, kind: str) -> None:
    assert decode_outcome(kind, value) in {"decoded", *REASONS}


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
def test_any_field_value_is_decoded_or_rejected(data: st.DataObject, kind: str) -> None:
    field = data.draw(st.sampled_from(sorted(DECODERS[kind].type.__struct_fields__)))
    assert decode_outcome(kind, encode_event(kind, **{field: data.draw(json_values)})) in {"decoded", *REASONS}


def make_event_at(ts_ms: int) -> Event:
    return decode("clicks", encode_event("clicks", ts_ms=ts_ms))


@pytest.mark.parametrize(("ahead_ms", "clamped"), [(AHEAD_MS_MAX, False), (AHEAD_MS_MAX + 1, True), (-(10**9), False)])
def test_a_time_over_five_minutes_ahead_is_clamped_to_the_record_timestamp(ahead_ms: int, clamped: bool) -> None:
    # given
    kafka_ms = 1_700_000_000_000
    # when
    event, is_clamped = clamp(make_event_at(kafka_ms + ahead_ms), kafka_ms)
    # then
    assert is_clamped is clamped
    assert event.ts_ms == (kafka_ms if clamped else kafka_ms + ahead_ms)


def test_clamping_changes_only_the_time() -> None:
    # given
    year_3000 = decode("orders", encode_event("orders", ts_ms=32_503_680_000_000, card_id="c1"))
    # when
    event, clamped = clamp(year_3000, 1_700_000_000_000)
    # then
    assert clamped
    assert event == decode("orders", encode_event("orders", ts_ms=1_700_000_000_000, card_id="c1"))


@pytest.mark.parametrize(("ts_ms", "is_valid"), [(TS_MS_MAX, True), (TS_MS_MAX + 1, False)])
def test_a_time_after_2099_is_refused(ts_ms: int, is_valid: bool) -> None:
    if is_valid:
        assert clamp(make_event_at(ts_ms), ts_ms)[0].ts_ms == ts_ms
        return
    with pytest.raises(BadEvent) as caught:
        clamp(make_event_at(ts_ms), ts_ms)
    assert caught.value.reason == "bad_time"


def test_a_record_without_a_timestamp_is_not_clamped() -> None:
    event, clamped = clamp(make_event_at(1_700_000_000_000), -1)
    assert (event.ts_ms, clamped) == (1_700_000_000_000, False)


def test_optional_fields_have_defaults() -> None:
    order = decode("orders", encode_event("orders"))
    assert isinstance(order, Order)
    assert (order.card_id, order.device_id, order.ip, order.platform) == (None, None, None, None)
    click = decode("clicks", encode_event("clicks", rank=None, surface="cart", platform="app"))
    assert isinstance(click, Click)
    assert (click.rank, click.surface, click.platform) == (None, "cart", "app")


def test_an_event_cannot_be_changed() -> None:
    review = decode("reviews", encode_event("reviews"))
    assert isinstance(review, Review)
    with pytest.raises(AttributeError):
        review.rating = 1.0  # type: ignore[misc]


def test_the_digest_of_a_content_ignores_id_and_time_and_nothing_else() -> None:
    # given
    order = decode("orders", json.dumps(VALID["orders"]).encode())
    same = replace(order, event_id="o-2", ts_ms=order.ts_ms + 1)
    changes: list[dict[str, Any]] = [{"user_id": "u-9"}, {"amount": 1.5}, {"card_id": "c"}]
    others = [replace(order, **change) for change in changes]
    # then
    assert digest_content(order) == digest_content(same)
    assert len({digest_content(event) for event in [order, *others]}) == 4
