"""Times, money, addresses, countries and labels: what each spelling is read as."""

from decimal import Decimal

import pytest

from contract.errors import BadEvent
from contract.events.addresses import to_address_entity
from contract.events.codes import ALPHA_2_BY_CODE
from contract.events.model import Label, Order, digest_content
from contract.events.reading import READERS
from contract.mapping.event_topics import EventTopics
from contract.settings.servers import TopicSettings
from tests.contract.intake import NOW_MS, Intake
from tests.contract.test_events import LINE, VALID, encode_event
from transport.record_reader import RecordReader
from transport.records import Record, TopicPartition


def test_whole_floats_are_integers_and_text_may_be_a_number() -> None:
    order = Intake("orders").read(
        lines=[{**LINE, "quantity": 1.0}, {**LINE, "quantity": "2", "unit_price": " 19.99"}],
        amount="19.99",
        ts_ms=1.764e12,
    )
    assert [line.quantity for line in order.lines] == [1, 2]
    assert type(order.lines[0].quantity) is int
    assert (order.lines[1].unit_price, order.amount, order.ts_ms) == (19.99, 19.99, NOW_MS)


def test_a_quantity_may_have_a_fraction_and_a_whole_one_is_an_integer_however_it_is_written() -> None:
    lines = [{**LINE, "quantity": quantity} for quantity in (2.5, "0.75", 1e-3, 2, 2.0, "2", "2.0", 10_000_000)]
    order = Intake("orders").read(lines=lines)
    quantities = [line.quantity for line in order.lines]
    assert quantities == [2.5, 0.75, 1e-3, 2, 2, 2, 2, 10_000_000]
    assert [type(quantity) for quantity in quantities] == [float] * 3 + [int] * 5
    whole, as_float = (Intake("orders").read(lines=[{**LINE, "quantity": q}]) for q in (2, 2.0))
    assert digest_content(whole) == digest_content(as_float)


@pytest.mark.parametrize("price", [-5, -5.0, "-5.00", -1e-9, -2e9])
def test_a_price_of_less_than_none_is_none_and_counted(price: object) -> None:
    # given an order with a voucher among its lines
    intake = Intake("orders", rates={"EUR": 1.0}, money={"orders": "minor"})
    # when
    order = intake.read(lines=[{**LINE, "unit_price": 250}, {**LINE, "item_id": "VOUCHER", "unit_price": price}])
    # then
    assert [(line.item_id, line.unit_price) for line in order.lines] == [("i1", 2.5), ("VOUCHER", 0.0)]
    assert intake.ignored == {"lines.unit_price": 1}


def test_a_mapped_price_of_less_than_none_is_none_whichever_way_it_is_read() -> None:
    # given
    lines = [{**LINE, "unit_price": -500}, {**LINE, "item_id": "i2"}]
    for source in ("lines[].unit_price", {"path": "lines[].unit_price", "unit": "minor"}):
        paths = {"item_id": "lines[].item_id", "quantity": "lines[].quantity", "unit_price": source}
        fields = {**{name: name for name in VALID["orders"]}, "lines": paths}
        reader = RecordReader(
            EventTopics(TopicSettings(), {"shop": {"topics": "a", "kind": "orders", "fields": fields}})
        )
        # when
        value = encode_event("orders", ts_ms=NOW_MS, lines=lines)
        _, order = reader.read(Record(TopicPartition("a", 0), 0, None, value, (), -1))
        # then
        assert isinstance(order, Order)
        assert [line.unit_price for line in order.lines] == [0.0, 2.5 if isinstance(source, str) else 0.025]


@pytest.mark.parametrize("quantity", [0, -1, "-2", -0.5, 0.0])
def test_a_line_that_takes_pieces_back_is_left_out_and_counted(quantity: object) -> None:
    intake = Intake("orders")
    order = intake.read(lines=[{**LINE, "item_id": "back", "quantity": quantity}, LINE, {"quantity": quantity}])
    assert [line.item_id for line in order.lines] == ["i1"]
    assert intake.ignored == {"lines.quantity": 2}


def test_an_order_that_only_takes_pieces_back_is_refused_and_nothing_of_it_is_counted() -> None:
    intake = Intake("orders")
    assert intake.find_reason(lines=[{**LINE, "quantity": -1}, {**LINE, "quantity": 0}]) == "out_of_range"
    assert not intake.ignored


@pytest.mark.parametrize("quantity", [0, -1, -0.5, 0.0, 10_000_000.5, 10_000_001, "0", float("nan"), 1e300])
def test_a_quantity_that_is_not_above_none_of_the_only_line_is_refused(quantity: object) -> None:
    assert Intake("orders").find_reason(lines=[{**LINE, "quantity": quantity}]) == "out_of_range"


@pytest.mark.parametrize("space", [" ", "\n", "\x0b", "\x1c", "\x1f", "\x85", "\u00a0", "\u2003", "\u3000"])
def test_any_space_around_a_number_is_none_of_it(space: str) -> None:
    text = f"{space}12{space}"
    order = Intake("orders").read(lines=[{**LINE, "quantity": text}], amount=text, ts_ms=f"{NOW_MS}{space}")
    assert (order.lines[0].quantity, order.amount, order.ts_ms) == (12, 12.0, NOW_MS)


@pytest.mark.parametrize(
    "amount",
    [
        "",
        "1,999",
        "1,99,9",
        "1,99,999.999.9",
        "1,999 999",
        "01,999,999",
        "1 99",
        "30.11.2026",
        "€19.99",
        "19.99 EUR",
        "1_000",
        "NaN",
        "inf",
        "EUR 5",
        True,
        [],
        "9" * 70,
        -0.01,
        "1e400",
    ],
)
def test_an_amount_that_says_no_number_is_refused(amount: object) -> None:
    assert Intake("orders").find_reason(amount=amount) in ("wrong_type", "out_of_range")


@pytest.mark.parametrize("ts_ms", [NOW_MS + 0.7, f"{NOW_MS}.7"])
def test_a_fraction_of_a_millisecond_is_left_out(ts_ms: object) -> None:
    assert Intake("orders").read(ts_ms=ts_ms, account_created_ms=ts_ms).ts_ms == NOW_MS


@pytest.mark.parametrize("text", ["2025-11-24 16:00:00 UTC", "2025-11-24 16:00:00.000 GMT", "2025-11-24t16:00:00z"])
def test_a_time_as_databases_write_it_is_read(text: str) -> None:
    assert Intake("orders").read(ts_ms=text).ts_ms == NOW_MS


def test_of_an_array_of_addresses_the_first_public_one_is_read() -> None:
    assert Intake("orders").read(ip=["10.0.0.1", "203.0.113.9"]).ip == "203.0.113.9"
    intake = Intake("orders")
    assert intake.read(ip=[{}]).ip is None
    assert intake.ignored == {"ip": 1}


@pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity"])
def test_a_decimal_that_is_no_number_is_refused(amount: str) -> None:
    with pytest.raises(BadEvent, match="Number out of range"):
        READERS["orders"].read_document({**VALID["orders"], "amount": Decimal(amount)})


@pytest.mark.parametrize("ts_ms", ["soon", "", True, [1], "\u0663", "NaN"])
def test_a_time_that_is_no_number_is_refused(ts_ms: object) -> None:
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


@pytest.mark.parametrize("unit", ["ms", "s", "us", "ns", "iso"])
@pytest.mark.parametrize("ts_ms", [1e308, -1e308, "1e308", "-9" + "0" * 60, 2**63, 10**400])
def test_a_time_beyond_all_numbers_is_refused_in_every_unit(unit: str, ts_ms: object) -> None:
    assert Intake("orders", times={"orders": unit}).find_reason(ts_ms=ts_ms) in ("out_of_range", "wrong_type")


def test_a_time_without_a_zone_needs_a_declaration() -> None:
    assert Intake("orders").find_reason(ts_ms="2025-11-24T16:00:00") == "wrong_type"


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
        ("203.0.113.9 10.0.0.1", "203.0.113.9"),
        ("by=198.51.100.1;For=203.0.113.9;proto=https", "203.0.113.9"),
        (" 10.0.0.1,203.0.113.9 ", "203.0.113.9"),
        ("::203.0.113.9", "203.0.113.9"),
        ("64:ff9b::203.0.113.9", "203.0.113.9"),
        ("::ffff:0:cb00:7109", "203.0.113.9"),
        ("64:ff9b::10.0.0.1", None),
        ("::", None),
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
    for code in ("DE-BY", "de-by ", "DEU"):
        assert Intake("orders").read(shipping_country=code).shipping_country == "DE"
    assert Intake("orders").read(currency="Bonus points").currency == "Bonus points"
    assert len(set(ALPHA_2_BY_CODE.values())) == 250


@pytest.mark.parametrize("code", ["", "null", "N/A", "unknown", "-", "XX", "zz", "(not set)"])
def test_a_country_that_is_not_known_is_absent_and_counted(code: str) -> None:
    intake = Intake("orders")
    assert intake.read(shipping_country=code, billing_country="DE").shipping_country is None
    assert intake.ignored == {"shipping_country": 1}


def test_the_code_of_namibia_is_no_placeholder() -> None:
    order = Intake("orders").read(shipping_country="NA", billing_country="na")
    assert (order.shipping_country, order.billing_country) == ("NA", "NA")


@pytest.mark.parametrize(
    ("value", "available"),
    [(1, True), (0, False), ("no", False), (12, True), ("3", True), (-1, False), ("in stock", True), ("IN_STOCK", True),
     ("https://schema.org/InStock", True), ("out of stock", False), ("OutOfStock", False), ("Sold out", False),
     ("http://schema.org/PreSale/", True), ("MadeToOrder", True), ("available for order", True), ("Reserved", False),
     ("InStoreOnly", False), ("coming soon", False)],
)  # fmt: skip
def test_whether_an_item_is_available_is_a_flag_a_number_or_a_word(value: object, available: bool) -> None:
    assert Intake("products").read(available=value).available is available


@pytest.mark.parametrize("value", [None, "", "perhaps", [True]])
def test_an_availability_that_says_nothing_is_refused(value: object) -> None:
    assert Intake("products").find_reason(available=value) == "wrong_type"


@pytest.mark.parametrize(
    ("value", "stock"),
    [(5, 5), ("7", 7), (2.5, 2), (0, 0), (-2, 0), (-2.5, 0), ("-0,5", 0), (-(10**30), 0), (False, 0), ("sold out", 0),
     ("https://schema.org/OutOfStock", 0)],
)  # fmt: skip
def test_a_stock_that_is_not_above_none_is_sold_out(value: object, stock: int) -> None:
    assert Intake("products").read(stock=value).stock == stock


@pytest.mark.parametrize("value", [True, "in stock", "some", [], {}])
def test_a_stock_without_a_number_is_unknown_and_counted(value: object) -> None:
    intake = Intake("products")
    assert intake.read(stock=value).stock is None
    assert intake.ignored == {"stock": 1}


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
        ("satisfied", "no", 0.0),
        ("satisfied", "satisfied", 1.0),
        ("fraud", "non-fraud", 0.0),
        ("relevance", "0.75", 0.75),
        ("relevance", True, 1.0),
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
    [("fraud", None), ("fraud", [1]), ("satisfied", "good"), ("satisfied", "bad"),
     ("fraud", 2), ("fraud", -1), ("fraud", 0.5), ("fraud", "maybe"), ("fraud", ""), ("freud", 1), ("relevance", -1),
     ("relevance", 3), ("relevance", "1.01"), ("relevance", "high"), ("category", ""), ("category", True),
     ("delay", "late"), ("delay", 1e19), ("delay", -1e308)],
)  # fmt: skip
def test_a_label_of_another_kind_is_refused_with_what_is_allowed(task: str, value: object) -> None:
    with pytest.raises(BadEvent, match=r"should be .* Found") as caught:
        Intake("labels").read(task=task, value=value)
    assert caught.value.reason == "bad_label"


def test_labels_of_undeclared_tasks_are_taken_as_they_are_where_no_task_is_declared() -> None:
    label = READERS["labels"].read(encode_event("labels", task="Size", value="L"))
    assert isinstance(label, Label)
    assert (label.task, label.value) == ("Size", "L")
