"""What records of other forms are read as: a detail never costs an answer, and whatever is left out is counted."""

import json
from collections import Counter
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BadEvent
from contract.events import KINDS, READERS, Click, Event, EventReader, Label, Order, Product, make_readers
from contract.events.addresses import to_address_entity
from contract.events.codes import ALPHA_2_BY_CODE
from contract.events.document import DocumentReader
from contract.settings.intake import IntakeSettings, KindName
from contract.tasks import Task
from tests.contract.test_events import LINE, VALID, encode_event

NOW_MS: Final = 1_764_000_000_000
TASKS: Final = (
    Task("fraud", "binary", ("order",), "decide"),
    Task("relevance", "graded", ("query",), "search"),
    Task("category", "multiclass", ("item",), "classify"),
    Task("delay", "regression", ("order",), "decide"),
)


class Intake:
    """A reader of one kind that counts."""

    def __init__(self, kind: str, **settings: Any) -> None:
        self.kind = kind
        self.ignored, self.doubtful = Counter[str](), Counter[tuple[str, str]]()
        self.reader = EventReader(
            kind,
            IntakeSettings(**settings),
            tasks=TASKS,
            on_ignored=lambda kind, field: self.ignored.update([field]),
            on_doubtful=lambda kind, field, unit: self.doubtful.update([(field, unit)]),
        )

    def read(self, **changes: Any) -> Any:
        return self.reader.read(encode_event(self.kind, **{"ts_ms": NOW_MS, **changes}))

    def find_reason(self, **changes: Any) -> str:
        with pytest.raises(BadEvent) as caught:
            self.read(**changes)
        return caught.value.reason


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
        ("products", "attributes", ["x"]),
    ],
)
def test_an_optional_field_that_cannot_be_read_is_absent_and_counted(kind: str, field: str, value: object) -> None:
    intake = Intake(kind)

    event = intake.read(**{field: value})

    assert event == intake.read(**{field: ...})
    assert intake.ignored == {field: 1}


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
    order = Intake("orders").read(user_id=12345, event_id=12.0, card_id=-7)
    assert (order.user_id, order.event_id, order.card_id) == ("12345", "12", "-7")


def test_whole_floats_are_integers_and_text_may_be_a_number() -> None:
    order = Intake("orders").read(
        lines=[{**LINE, "quantity": 1.0}, {**LINE, "quantity": "2", "unit_price": " 19.99"}],
        amount="19.99",
        ts_ms=1.764e12,
    )
    assert [line.quantity for line in order.lines] == [1, 2]
    assert type(order.lines[0].quantity) is int
    assert (order.lines[1].unit_price, order.amount, order.ts_ms) == (19.99, 19.99, NOW_MS)


@pytest.mark.parametrize("amount", ["", "19,99", "1_000", "NaN", "inf", "EUR 5", True, [], "9" * 70, -0.01, "1e400"])
def test_an_amount_that_says_no_number_is_refused(amount: object) -> None:
    assert Intake("orders").find_reason(amount=amount) in ("wrong_type", "out_of_range")


@pytest.mark.parametrize("ident", [1.5, True, ["u"], {}, 1e300])
def test_what_is_neither_text_nor_a_whole_number_is_no_id(ident: object) -> None:
    assert Intake("orders").find_reason(event_id=ident) in ("wrong_type", "bad_id")


@pytest.mark.parametrize("ts_ms", [1.5, "1.5", "soon", "", True, [1], "\u0663"])
def test_a_time_that_is_no_whole_number_is_refused(ts_ms: object) -> None:
    assert Intake("orders").find_reason(ts_ms=ts_ms) == "wrong_type"


@pytest.mark.parametrize(
    ("ts_ms", "unit"), [(NOW_MS // 1_000, "s"), (NOW_MS * 1_000, "us"), (0, "s"), (str(NOW_MS * 1_000), "us")]
)
def test_a_time_that_looks_like_another_unit_is_counted_and_refused_by_a_setting(ts_ms: object, unit: str) -> None:
    # given
    intake = Intake("orders")
    # then it is counted each time
    assert intake.read(ts_ms=ts_ms).ts_ms == int(ts_ms)  # type: ignore[call-overload]
    assert intake.doubtful == {("ts_ms", unit): 1}
    # and refused
    assert Intake("orders", doubtful_times="refuse").find_reason(ts_ms=ts_ms) == "bad_time"


def test_a_time_in_nanoseconds_is_refused_with_the_unit_named() -> None:
    with pytest.raises(BadEvent, match="looks like ns"):
        Intake("orders").read(ts_ms=NOW_MS * 10**6)


@pytest.mark.parametrize(
    ("unit", "ts_ms"),
    [
        ("ms", NOW_MS),
        ("ms", "2025-11-24T16:00:00Z"),
        ("s", NOW_MS // 1_000),
        ("s", NOW_MS / 1_000),
        ("s", str(NOW_MS // 1_000)),
        ("us", NOW_MS * 1_000),
        ("ns", NOW_MS * 10**6),
        ("iso", "2025-11-24T16:00:00"),
        ("iso", "2025-11-24T17:00:00.000+01:00"),
        ("iso", "2025-11-24 16:00:00Z"),
    ],
)
def test_times_are_read_by_the_declared_unit(unit: str, ts_ms: object) -> None:
    intake = Intake("orders", times={"orders": unit})
    assert intake.read(ts_ms=ts_ms).ts_ms == NOW_MS
    assert not intake.doubtful


def test_a_time_without_a_zone_needs_a_declaration() -> None:
    assert Intake("orders").find_reason(ts_ms="2025-11-24T16:00:00") == "wrong_type"


@pytest.mark.parametrize(
    "user_id",
    ["null", "undefined", "0", "guest", "", " GUEST ", "None", "NaN", "00000000-0000-0000-0000-000000000000", 0],
)
def test_an_order_of_a_guest_is_read_without_a_user(user_id: object) -> None:
    intake = Intake("orders")
    assert intake.read(user_id=user_id).user_id == ""
    assert intake.ignored == {"user_id": 1}


def test_placeholders_are_no_ids() -> None:
    intake = Intake("orders")
    lines = [{**LINE, "item_id": "0", "seller_id": "null"}]
    order = intake.read(device_id="00000000-0000-0000-0000-000000000000", card_id="Undefined", lines=lines)
    assert (order.device_id, order.card_id) == (None, None)
    assert (order.lines[0].item_id, order.lines[0].seller_id) == ("", None)
    assert set(intake.ignored) == {"device_id", "card_id", "lines.item_id", "lines.seller_id"}


def test_the_list_of_placeholders_is_a_setting() -> None:
    intake = Intake("clicks", placeholders=["tester"])
    assert intake.read(user_id="guest", session_id="0").user_id == "guest"
    assert intake.read(user_id="Tester").user_id == ""


def test_items_of_a_list_that_are_no_ids_are_left_out() -> None:
    intake = Intake("impressions")
    assert intake.read(items=["a", None, "", 5, "x" * 129]).items == ("a", "5")
    assert intake.ignored == {"items": 3}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:54321", "203.0.113.9"),
        ("203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("10.0.0.1, 203.0.113.9", "203.0.113.9"),
        ("unknown, 203.0.113.9", "203.0.113.9"),
        ('for="[2001:DB8::1]:4711";proto=https', "2001:db8::1"),
        ("2001:0db8:0:0:0:0:0:1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1%eth0", "2001:db8::1"),
        ("127.0.0.1", None),
        ("10.0.0.1", None),
        ("192.168.1.7", None),
        ("172.16.0.1", None),
        ("::1", None),
        ("::ffff:10.0.0.1", None),
        ("0.0.0.0", None),
        ("300.1.1.1", None),
        ("203.0.113.9.5", None),
        ("", None),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str | None) -> None:
    for kind in ("orders", "clicks", "reviews"):
        assert Intake(kind).read(ip=text).ip == address


def test_addresses_of_one_network_are_one_entity() -> None:
    entities = {to_address_entity(Intake("clicks").read(ip=f"2001:db8::{n:x}").ip) for n in range(1, 21)}
    assert entities == {"2001:db8::/64"}


def test_countries_and_currencies_are_codes_whatever_their_case() -> None:
    order = Intake("orders").read(currency=" eur", shipping_country="de", billing_country="DEU")
    assert (order.currency, order.shipping_country, order.billing_country) == ("EUR", "DE", "DE")
    assert Intake("orders").read(shipping_country=" Germany").shipping_country == "Germany"
    assert Intake("orders").read(currency="Bonus points").currency == "Bonus points"
    assert len(set(ALPHA_2_BY_CODE.values())) == 250


def test_a_product_is_read_leniently() -> None:
    product = Intake("products").read(
        stock=-2, price="19.99", attributes={"size": 42, "new": True, "none": None, "deep": {}}, available=1, title=501
    )
    assert (product.stock, product.price, product.available, product.title) == (0, 19.99, True, "501")
    assert product.attributes == {"size": "42", "new": "true"}


def test_amounts_are_in_the_shops_currency_by_its_rates() -> None:
    intake = Intake("orders", rates={"eur": 1.0, "JPY": 0.006})
    yen = intake.read(amount=1_000, currency="JPY", lines=[{**LINE, "unit_price": 500}])
    assert (yen.amount, yen.lines[0].unit_price, yen.currency) == (6.0, 3.0, "JPY")
    assert intake.read(amount=5, currency="EUR").amount == 5.0
    assert not intake.doubtful
    assert intake.read(amount=5, currency="USD").amount == 5.0
    assert intake.doubtful == {("currency", "no_rate"): 1}


@pytest.mark.parametrize(("currency", "amount"), [("EUR", 19.99), ("JPY", 1_999), ("KWD", 1.999), ("points", 19.99)])
def test_amounts_in_minor_units_are_read_by_the_decimals_of_their_currency(currency: str, amount: float) -> None:
    assert Intake("orders", money={"orders": "minor"}).read(amount=1_999, currency=currency).amount == amount


@pytest.mark.parametrize(
    ("task", "value", "expected"),
    [
        ("fraud", "1", 1.0),
        ("fraud", "true", 1.0),
        ("fraud", True, 1.0),
        ("Fraud", "Fraud", 1.0),
        (" FRAUD", 1.0, 1.0),
        ("fraud", "legit", 0.0),
        ("fraud", "not_fraud", 0.0),
        ("fraud", False, 0.0),
        ("fraud", "0.0", 0.0),
        ("cancellation", "yes", 1.0),
        ("relevance", "3", 3.0),
        ("category", "shoes", "shoes"),
        ("category", 7, "7"),
        ("delay", "-2.5", -2.5),
    ],
)
def test_a_label_is_read_by_the_kind_of_its_task(task: str, value: object, expected: object) -> None:
    label = Intake("labels").read(task=task, value=value)
    assert label.task == task.strip().lower()
    assert (label.value, type(label.value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("task", "value"),
    [("fraud", 2), ("fraud", -1), ("fraud", 0.5), ("fraud", "maybe"), ("fraud", ""), ("freud", 1), ("relevance", -1),
     ("relevance", "high"), ("category", ""), ("delay", "late")],
)  # fmt: skip
def test_a_label_of_another_kind_is_refused_with_what_is_allowed(task: str, value: object) -> None:
    with pytest.raises(BadEvent, match=r"should be .* Found") as caught:
        Intake("labels").read(task=task, value=value)
    assert caught.value.reason == "bad_label"


def test_labels_of_undeclared_tasks_are_taken_as_they_are_where_no_task_is_declared() -> None:
    label = READERS["labels"].read(encode_event("labels", task="Size", value="L"))
    assert isinstance(label, Label)
    assert (label.task, label.value) == ("Size", "L")


def test_the_place_of_a_wrong_value_is_told() -> None:
    with pytest.raises(BadEvent) as caught:
        Intake("orders").read(lines=[LINE, {**LINE, "unit_price": -1}], device_id="")
    assert (caught.value.reason, str(caught.value)) == (
        "out_of_range",
        "Expected `float` >= 0 - at `$.lines[1].unit_price`",
    )


def test_numbers_that_no_float_holds_cost_only_their_field() -> None:
    record = encode_event("orders", ts_ms=NOW_MS, account_created_ms=5)[:-1] + b', "x": 1e400, "card_id": 1e400}'
    order = Intake("orders").reader.read(record)
    assert isinstance(order, Order)
    assert order.card_id is None


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
