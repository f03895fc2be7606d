"""What records of other forms are read as: a detail never costs an answer, and whatever is left out is counted."""

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BadEvent
from contract.events.document import DocumentReader
from contract.events.model import KINDS, Click, Erasure, Event, Impression, Order, Product
from contract.events.reading import READERS, EventReader, make_readers
from contract.settings.intake import KindName
from tests.contract.intake import NOW_MS, TASKS, Intake
from tests.contract.test_events import LINE, VALID, encode_event


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("orders", "device_id", ""),
        ("orders", "card_id", ""),
        ("orders", "card_id", ["c"]),
        ("orders", "device_id", "d" * 129),
        ("orders", "ip", "unknown"),
        ("orders", "ip", "fe80::1%eth0"),
        ("orders", "ip", "...."),
        ("orders", "ip", {}),
        ("orders", "platform", "ios"),
        ("orders", "account_created_ms", -62_135_596_800_000),
        ("orders", "account_created_ms", 10**400),
        ("orders", "billing_country", ""),
        ("clicks", "surface", "pdp"),
        ("clicks", "rank", -1),
        ("clicks", "rank", "third"),
        ("clicks", "query", {"q": 1}),
        ("reviews", "order_id", True),
        ("searches", "items", "i1"),
        ("products", "category", ["a", "b"]),
        ("products", "stock", "many"),
        ("products", "stock", 10**400),
        ("products", "vector", [0.5] * 2_001),
        ("products", "vector", ["x"]),
        ("products", "vector", [0.5, float("nan")]),
        ("orders", "card_id", float("nan")),
        ("orders", "account_created_ms", float("inf")),
        ("clicks", "rank", float("-inf")),
        ("clicks", "query", float("nan")),
        ("products", "attributes", ["x"]),
    ],
)
def test_an_optional_field_that_cannot_be_read_is_absent_and_counted(kind: str, field: str, value: object) -> None:
    intake = Intake(kind)

    event = intake.read(**{field: value})

    assert event == intake.read(**{field: ...})
    assert intake.ignored == {field: 1}


def test_a_number_that_is_none_costs_no_event_that_does_not_need_it() -> None:
    intake = Intake("orders")
    assert intake.read(unknown=[float("nan"), {"deep": float("inf")}]) == intake.read()
    assert intake.read(attributes={"age": float("nan"), "plan": "a"}).attributes == {"age": [], "plan": "a"}
    assert not intake.ignored


def test_a_number_that_is_none_is_left_out_of_a_document_that_a_map_has_built() -> None:
    reader, nan = READERS["products"], float("nan")
    product = reader.read_document({**VALID["products"], "vector": [nan], "attributes": {"sizes": [1.0, nan]}})
    assert isinstance(product, Product)
    assert (product.vector, product.attributes) == (None, {"sizes": []})


@pytest.mark.parametrize(
    ("kind", "field", "damaged"),
    [
        ("orders", "card_id", b'"\xff"'),
        ("orders", "ip", b'"203.0.113.9\xe9"'),
        ("orders", "platform", b'"web\xc3"'),
        ("orders", "shipping_country", b'"\xc0\x80"'),
        ("orders", "account_created_ms", b'"\xed\xa0\x80"'),
        ("clicks", "query", b'"M\xfcsli"'),
        ("clicks", "rank", b'"1\xff"'),
        ("reviews", "text", b'"gr\xfcn \\ud83d"'),
        ("searches", "items", b'"\xff"'),
        ("products", "brand", b'"Caf\xe9"'),
        ("products", "vector", b'["\xff"]'),
    ],
)
def test_a_text_that_is_not_utf8_costs_its_field_and_no_event(kind: str, field: str, damaged: bytes) -> None:
    intake = Intake(kind)

    event = intake.reader.read(put(kind, field, damaged))

    assert event == intake.read(**{field: ...})
    assert intake.ignored == {field: 1}


def test_texts_that_are_not_utf8_in_lists_attributes_and_unknown_fields_are_left_out() -> None:
    impressions, orders = Intake("impressions"), Intake("orders")
    shown = impressions.reader.read(put("impressions", "items", b'["i1", "M\xfcsli", "i2"]'))
    assert isinstance(shown, Impression)
    assert shown.items == ("i1", "i2")
    assert impressions.ignored == {"items": 1}
    order = orders.reader.read(put("orders", "attributes", b'{"plan": "\xff", "age": 7, "\xe9": 1}'))
    assert isinstance(order, Order)
    assert order.attributes == {"plan": [], "age": 7, "\ufffd": 1}
    assert orders.reader.read(put("orders", "unknown", b'{"\xff": ["\xfe"]}')) == orders.read()


def test_a_required_text_that_is_not_utf8_is_refused_with_its_place() -> None:
    damaged = put("orders", "lines", b'[{"item_id": "M\xfcsli", "quantity": 1, "unit_price": 1}]')
    with pytest.raises(BadEvent) as caught:
        Intake("orders").reader.read(damaged)
    assert caught.value.reason == "not_utf8"
    assert str(caught.value) == "Expected `str`, got `bytes that are not UTF-8` - at `$.lines[0].item_id`"


def put(kind: str, field: str, value: bytes) -> bytes:
    """A valid event of a kind with the bytes of one field."""
    return encode_event(kind, **{"ts_ms": NOW_MS, field: "VALUE"}).replace(b'"VALUE"', value)


def test_a_null_is_absent_and_not_counted() -> None:
    intake = Intake("orders")
    assert intake.read(card_id=None, ip=None) == intake.read()
    assert not intake.ignored


@pytest.mark.parametrize(
    "ident",
    [
        "auth0|5f7c8ec7c33c6c004bbafe82",
        "gid://shopify/Product/1",
        "T-Shirt (L)",
        "{6F9619FF-8B86}",
        "Gr\u00f6\u00dfe-42",
        "o'brien@example.com",
        "\u5546\u54c1",
        "a\nb",
        "%3A",
    ],
)
def test_ids_of_other_systems_are_read_as_they_are(ident: str) -> None:
    order = Intake("orders").read(user_id=ident, event_id=ident, lines=[{**LINE, "item_id": ident}], card_id=ident)
    assert (order.user_id, order.event_id, order.lines[0].item_id, order.card_id) == (ident,) * 4


def test_numbers_are_read_as_ids() -> None:
    order = Intake("orders").read(user_id=12345, event_id=12.0, card_id=-7, device_id=2**64 - 1)
    assert (order.user_id, order.event_id, order.card_id) == ("12345", "12", "-7")
    assert order.device_id == "18446744073709551615"


def test_ids_that_differ_in_spaces_case_or_unicode_form_are_different() -> None:
    idents = ("Gr\u00f6\u00dfe", "Gro\u0308\u00dfe", "gr\u00f6\u00dfe", " Gr\u00f6\u00dfe")
    assert [Intake("orders").read(user_id=ident).user_id for ident in idents] == list(idents)


@pytest.mark.parametrize("ident", [1.5, ["u"], {}, 1e300])
def test_what_is_neither_text_nor_a_whole_number_is_no_id(ident: object) -> None:
    assert Intake("orders").find_reason(event_id=ident) in ("wrong_type", "bad_id")


@pytest.mark.parametrize(
    "user_id",
    ["null", "undefined", "0", "guest", "", " GUEST ", "None", "NaN", "00000000-0000-0000-0000-000000000000", 0, False,
     True, "deleted", "anonymous-user", "guest_user", '"null"', "00000000"],
)  # fmt: skip
def test_an_order_of_a_guest_is_read_without_a_user(user_id: object) -> None:
    intake = Intake("orders")
    assert intake.read(user_id=user_id).user_id == ""
    assert intake.ignored == {"user_id": 1}


def test_an_erasure_whose_time_looks_like_another_unit_is_refused() -> None:
    """It would erase up to 1970, which is nothing, and be confirmed."""
    assert Intake("erasures").find_reason(ts_ms=NOW_MS // 1000) == "bad_time"
    assert Intake("orders").read(ts_ms=NOW_MS // 1000).ts_ms == NOW_MS // 1000


def test_a_null_in_place_of_a_needed_id_is_as_the_text_null() -> None:
    intake = Intake("orders")
    order = intake.read(user_id=None, lines=[{**LINE, "item_id": None}])
    assert (order.user_id, order.lines[0].item_id) == ("", "")
    assert intake.ignored == {"user_id": 1, "lines.item_id": 1}
    assert intake.find_reason(event_id=None) == "wrong_type"
    assert Intake("erasures").find_reason(user_id=None) == "wrong_type"


@pytest.mark.parametrize("ident", [2.0**53 + 2, 1.2345678901234567e19, -1e300, 0.5])
def test_a_float_that_may_stand_for_several_ids_is_none(ident: float) -> None:
    assert Intake("orders").find_reason(user_id=ident) == "wrong_type"
    assert Intake("orders").read(device_id=ident).device_id is None
    assert Intake("orders").read(user_id=2.0**53).user_id == "9007199254740992"


def test_a_time_that_cannot_be_read_is_shown() -> None:
    with pytest.raises(BadEvent, match=r"ISO 8601, a date of RFC 2822 or a number, got '30/11/2026' - at `\$.ts_ms`"):
        Intake("orders").read(ts_ms="30/11/2026")


def test_placeholders_are_no_ids() -> None:
    intake = Intake("orders")
    lines = [{**LINE, "item_id": "0", "seller_id": "null"}]
    order = intake.read(device_id="00000000-0000-0000-0000-000000000000", card_id="Undefined", lines=lines)
    assert (order.device_id, order.card_id) == (None, None)
    assert (order.lines[0].item_id, order.lines[0].seller_id) == ("", None)
    assert set(intake.ignored) == {"device_id", "card_id", "lines.item_id", "lines.seller_id"}


@pytest.mark.parametrize(
    "ident",
    [
        "{00000000-0000-0000-0000-000000000000}",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "02:00:00:00:00:00",
        "00-00-00-00-00-00",
        "0000000000000000",
        "urn:uuid:00000000-0000-0000-0000-000000000000",
        "{}",
        "#N/A",
    ],
)
def test_what_devices_and_programs_give_instead_of_an_id_is_a_placeholder(ident: str) -> None:
    for kind in ("orders", "clicks", "reviews"):
        assert Intake(kind).read(device_id=ident).device_id is None


def test_the_list_of_placeholders_is_a_setting() -> None:
    intake = Intake("clicks", placeholders=["tester"])
    assert intake.read(user_id="guest", session_id="0").user_id == "guest"
    assert intake.read(user_id="Tester").user_id == ""


def test_items_of_a_list_that_are_no_ids_are_left_out() -> None:
    intake = Intake("impressions")
    assert intake.read(items=["a", None, "", 5, "x" * 129]).items == ("a", "5")
    assert intake.ignored == {"items": 3}


def test_a_product_is_read_leniently() -> None:
    product = Intake("products").read(
        stock=-2, price="19.99", attributes={"size": 42, "new": True, "none": None, "deep": {}}, available=1, title=501
    )
    assert (product.stock, product.price, product.available, product.title) == (0, 19.99, True, "501")
    assert product.attributes == {"size": 42, "new": True, "none": None, "deep": []}  # features read their own types


def test_the_place_of_a_wrong_value_is_told() -> None:
    with pytest.raises(BadEvent) as caught:
        Intake("orders").read(lines=[LINE, {**LINE, "unit_price": 2e9}], device_id="")
    assert (caught.value.reason, str(caught.value)) == (
        "out_of_range",
        "Expected `float` <= 1000000000.0 - at `$.lines[1].unit_price`",
    )


def test_numbers_that_no_float_holds_cost_only_their_field() -> None:
    record = encode_event("orders", ts_ms=NOW_MS, account_created_ms=5)[:-1] + b', "x": 1e400, "card_id": 1e400}'
    order = Intake("orders").reader.read(record)
    assert isinstance(order, Order)
    assert order.card_id is None


def test_a_byte_order_mark_is_skipped() -> None:
    order = encode_event("orders")
    assert READERS["orders"].read(b"\xef\xbb\xbf" + order) == READERS["orders"].read(order)


@pytest.mark.parametrize("escape", ["\\ud83d", "\\uDE00", "\\ude00\\ud83d"])
def test_half_a_character_costs_nothing_but_itself(escape: str) -> None:
    # given half an emoji in a text, in an attribute and in a field that is not read
    document = json.dumps({**VALID["clicks"], "query": "half", "attributes": {"agent": "half"}, "x": "half"})
    # when
    click = READERS["clicks"].read(document.replace("half", f"a{escape}").encode())
    # then
    assert isinstance(click, Click)
    lost = "a" + "\ufffd" * escape.count("\\")
    assert (click.query, click.attributes) == (lost, {"agent": lost})


def test_a_whole_character_and_an_escaped_backslash_stay_beside_half_a_character() -> None:
    document = json.dumps({**VALID["clicks"], "query": "QUERY"}).replace("QUERY", r"\ud83d\ude00 \\ud83d \ud83d")
    click = READERS["clicks"].read(document.encode())
    assert isinstance(click, Click)
    assert click.query == "\U0001f600 \\ud83d \ufffd"


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
        st.sampled_from(["null", "0", "203.0.113.9", "::1", "eur", "DE", "1.0", "web", "true", NOW_MS, "u-1"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def read_outcome(reader: EventReader | DocumentReader, value: Any) -> Event | str:
    try:
        return reader.read(value)
    except BadEvent as error:
        return error.reason


@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
def test_a_record_is_read_the_same_way_straight_and_field_by_field(data: st.DataObject, kind: str) -> None:
    # given an event of which any fields have any values
    fields = sorted(KINDS[kind].__struct_fields__)
    changes = data.draw(st.dictionaries(st.sampled_from(fields), json_values, max_size=3))
    document = {**VALID[kind], **changes}
    reader = EventReader(kind, tasks=TASKS)
    # then both give one event, or one reason
    value = json.dumps(document).encode()
    try:
        plain = msgspec.json.decode(value)
    except msgspec.MsgspecError:
        return
    assert read_outcome(reader, value) == read_outcome(reader._document_reader, plain)


@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
def test_what_is_read_is_within_the_bounds_of_its_type_and_read_as_itself(data: st.DataObject, kind: str) -> None:
    # given
    field = data.draw(st.sampled_from(sorted(KINDS[kind].__struct_fields__)))
    event = read_outcome(EventReader(kind), encode_event(kind, **{field: data.draw(json_values)}))
    if isinstance(event, str) or getattr(event, "user_id", "u") == "":
        return
    # then
    again = EventReader(kind).read(msgspec.json.encode(event))
    assert again == event


def test_a_document_of_another_decoder_is_read() -> None:
    click = READERS["clicks"].read_document({**VALID["clicks"], "ts_ms": NOW_MS, "ip": "::ffff:203.0.113.9"})
    assert isinstance(click, Click)
    assert click.ip == "203.0.113.9"


def test_every_kind_that_a_shop_writes_may_declare_its_times() -> None:
    assert {*get_args(KindName), "judgements"} == set(KINDS)
    assert set(make_readers()) == set(KINDS)


def test_a_product_of_a_refused_price_has_a_reason() -> None:
    assert Intake("products").find_reason(price="cheap") == "wrong_type"
    assert isinstance(Intake("products").read(price=0), Product)


@pytest.mark.parametrize(
    ("fields", "user_id", "guest_id"),
    [
        ({"guest_id": "g"}, "guest:g", "g"),
        ({"user_id": None, "guest_id": "g"}, "guest:g", "g"),
        ({"user_id": "", "guest_id": 17}, "guest:17", "17"),
        ({"user_id": "unknown", "guest_id": "g"}, "guest:g", "g"),
        ({"user_id": "guest:g"}, "guest:g", None),
        ({"user_id": "u", "guest_id": "g"}, "u", "g"),
        ({"user_id": "u", "guest_id": "u"}, "u", "u"),
        ({"user_id": "u", "guest_id": "unknown"}, "u", None),
        ({"user_id": "u", "guest_id": "00000000-0000-0000-0000-000000000000"}, "u", None),
        ({"user_id": "", "guest_id": ""}, "", None),
        ({"user_id": "null", "guest_id": "null"}, "", None),
        ({"guest_id": "unknown"}, "", None),
        ({"user_id": None, "guest_id": "0"}, "", None),
        ({"user_id": "", "guest_id": ["g"]}, "", None),
        ({"user_id": "", "guest_id": "g" * 120}, f"guest:{'g' * 120}", "g" * 120),
        ({"user_id": "", "guest_id": "g" * 121}, "", None),
    ],
)
def test_an_event_without_a_user_is_that_of_its_guest(
    fields: dict[str, object], user_id: str, guest_id: str | None
) -> None:
    document = {"event_id": "c", "ts_ms": NOW_MS, "item_id": "i", **fields}
    event = READERS["clicks"].read(msgspec.json.encode(document))
    assert isinstance(event, Click)
    assert (event.user_id, event.guest_id) == (user_id, guest_id)
    assert event == READERS["clicks"].read_document(document)


@pytest.mark.parametrize("fields", [{}, {"guest_id": None}, {"user_id": [], "guest_id": "g"}])
def test_an_event_without_a_user_and_a_guest_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadEvent):
        READERS["clicks"].read_document({"event_id": "c", "ts_ms": NOW_MS, "item_id": "i", **fields})


def test_a_guest_is_erased_by_its_id_and_no_one_by_a_placeholder() -> None:
    document = {"event_id": "e", "ts_ms": NOW_MS, "guest_id": "g"}
    assert READERS["erasures"].read_document(document) == Erasure(
        event_id="e", ts_ms=NOW_MS, user_id="guest:g", guest_id="g"
    )
    with pytest.raises(BadEvent):
        READERS["erasures"].read_document({**document, "guest_id": "unknown", "user_id": ""})
