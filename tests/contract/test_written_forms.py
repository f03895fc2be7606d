"""Times, numbers and codes as other systems write them."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.errors import BadConfig
from contract.events.codes import ALPHA_2_BY_CODE, CURRENCY_BY_NUMBER, read_country, read_currency
from contract.events.times import read_time
from contract.events.values import Unreadable
from contract.mapping.values import compile_time, to_major
from contract.settings.intake import IntakeSettings
from contract.settings.mapping import read_maps
from tests.contract.intake import NOW_MS, Intake


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 24 Nov 2025 16:00:00 +0000",
        "Mon, 24 Nov 2025 17:00:00 +0100",
        "Mon, 24 Nov 2025 16:00:00 GMT",
        "24 Nov 2025 16:00 -0000",
        "24 nov 2025 11:00:00 EST",
        "Monday, 24-Nov-25 16:00:00 GMT",
        "Mon Nov 24 16:00:00 UTC 2025",
        "Mon Nov 24 2025 17:00:00 GMT+0100 (Central European Standard Time)",
        "2025-11-24T17:00:00+01:00[Europe/Berlin]",
        "2025-11-24T16:00:00Z[UTC]",
        "2025-11-24 16:00:00.000123 +0000 UTC m=+0.012",
        "2025-11-24 17:00:00 +0100 CET",
        "2025-11-24 17:00:00.000 +0100",
        "2025/11/24 16:00:00Z",
        "2025/11/24 17:00:00 +0100",
        "Mon, 24 Nov 2025 17:00:00 +01:00",
        "Mon Nov 24 17:00:00 GMT+01:00 2025",
        f"/Date({NOW_MS})/",
        f"/Date({NOW_MS}+0100)/",
    ],
)
def test_a_date_as_a_mail_a_browser_or_a_runtime_writes_it_is_read(text: str) -> None:
    for unit in ("ms", "s", "us", "ns", "iso"):
        assert Intake("orders", times={"orders": unit}).read(ts_ms=text).ts_ms == NOW_MS
        assert compile_time(unit)(text) == NOW_MS


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 24 Nov 2025 16:00:00",
        "Mon Nov 24 16:00:00 2025",
        "Mon Nov 24 16:00:00 CET 2025",
        "Mon, 24 Nov 2025 4:00:00 PM",
        "Mon, 31 Nov 2025 16:00:00 GMT",
        "Mon, 24 Nov 99999999999 16:00:00 GMT",
        "24/11/2025 16:00:00",
        "2025/11/24 16:00:00 PM",
        "11/24/2025",
        "Nov",
        "/Date()/",
        "2025-11-24T16:00:00 PM",
        "24 Nov 2025 16:00:00 +0000" + " " * 200 + "x",
    ],
)
def test_a_date_without_a_zone_or_of_an_unknown_form_is_refused_whatever_is_declared(text: str) -> None:
    for unit in ("ms", "iso"):
        assert Intake("orders", times={"orders": unit}).find_reason(ts_ms=text) == "wrong_type"


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2025-07-24 18:00:00", "2025-07-24T16:00:00Z"),
        ("2025-11-24T17:00:00.000", "2025-11-24T16:00:00Z"),
        ("2025/11/24 17:00", "2025-11-24T16:00:00Z"),
        ("2025-11-24T17:00:00+02:00", "2025-11-24T15:00:00Z"),
        ("Mon, 24 Nov 2025 17:00:00 +0000", "2025-11-24T17:00:00Z"),
        ("2025-10-26 02:30:00", "2025-10-26T00:30:00Z"),  # the end of summer repeats it
        ("2025-03-30 02:30:00", "2025-03-30T01:30:00Z"),  # its beginning skips it
    ],
)
def test_a_date_without_a_zone_is_of_the_declared_zone(text: str, utc: str) -> None:
    expected = read_time(utc, "iso")
    assert Intake("orders", times={"orders": "Europe/Berlin"}).read(ts_ms=text).ts_ms == expected
    assert compile_time("Europe/Berlin")(text) == expected


def test_a_moment_of_a_file_without_a_zone_is_of_the_declared_zone() -> None:
    assert read_time(datetime(2025, 7, 24, 18), "Europe/Berlin") == read_time("2025-07-24T16:00:00Z", "iso")
    assert read_time(datetime(2025, 7, 24, 18).date(), "Europe/Berlin") == read_time("2025-07-23T22:00:00Z", "iso")


@pytest.mark.parametrize("unit", ["Europe/Berlim", "../UTC", "", "day"])
def test_a_unit_that_is_no_zone_either_is_refused_with_what_is_accepted(unit: str) -> None:
    with pytest.raises(BadConfig, match=r"map.shop.fields.ts_ms.unit.* a time zone such as Europe/Berlin"):
        read_maps({"shop": {"topics": "t", "kind": "orders", "fields": {"ts_ms": {"path": "at", "unit": unit}}}})
    with pytest.raises(ValidationError, match="a time zone such as Europe/Berlin"):
        IntakeSettings.model_validate({"times": {"orders": unit}})


def test_a_leap_second_is_the_second_before_it() -> None:
    assert read_time("2016-12-31T23:59:60Z", "ms") == read_time("2016-12-31T23:59:59Z", "ms")


@given(st.datetimes(datetime(1990, 1, 1), datetime(2099, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_every_date_of_a_mail_is_its_time(moment: datetime, offset_min: int) -> None:
    zoned = moment.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset_min)))
    assert (
        read_time(format_datetime(zoned), "ms")
        == round((zoned - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000
    )


@given(st.text(alphabet="Jan Feb,:+-0123456789TZGMT()[]/D ", max_size=60), st.sampled_from(["ms", "s", "iso"]))
def test_no_text_for_a_time_raises_another_error(text: str, unit: str) -> None:
    with suppress(Unreadable):
        assert isinstance(read_time(text, unit), int)


@pytest.mark.parametrize(
    ("text", "number"),
    [("19,99", 19.99), ("0,5", 0.5), ("1.234,56", 1234.56), ("1,234.56", 1234.56), ("12.345.678,9", 12345678.9),
     ("1 234,56", 1234.56), ("1\u202f234,56", 1234.56), ("1'234.50", 1234.5), ("1,234.567", 1234.567),
     ("1.234,567", 1234.567), ("1,234,567", 1234567), ("1.234.567", 1234567), ("1'234'567", 1234567), ("1 234", 1234),
     ("12,34,567.50", 1234567.5), ("1234,567", 1234.567), ("0,125", 0.125)],
)  # fmt: skip
def test_a_number_with_a_comma_is_read_where_it_can_mean_one_only(text: str, number: float) -> None:
    assert Intake("orders").read(amount=text).amount == number
    assert to_major(text, "EUR") == pytest.approx(number / 100)


def test_currencies_and_countries_are_read_by_their_numbers() -> None:
    order = Intake("orders").read(currency="978", shipping_country=276, billing_country="036")
    assert (order.currency, order.shipping_country, order.billing_country) == ("EUR", "DE", "AU")
    assert [read_currency(text) for text in ("840", "036", "36", "8", "777", "000")] == [
        "USD", "AUD", "AUD", "ALL", "777", "000"
    ]  # fmt: skip
    assert Intake("orders").read(currency=392).currency == "JPY"
    assert Intake("orders", money={"orders": "minor"}).read(amount=1_999, currency=392).amount == 1_999
    assert to_major(1_999, 392) == 1_999
    assert read_country("999", frozenset()) == "999"
    assert len(CURRENCY_BY_NUMBER) == 180
    assert sum(code.isdecimal() for code in ALPHA_2_BY_CODE) == 249


@pytest.mark.parametrize("ident", ["\\N", "<nil>", "<NULL>"])
def test_what_databases_and_runtimes_write_of_a_null_is_no_id(ident: str) -> None:
    order = Intake("orders").read(device_id=ident, user_id=ident, shipping_country=ident)
    assert (order.device_id, order.user_id, order.shipping_country) == (None, "", None)
