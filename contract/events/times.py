"""Times: epoch milliseconds, whatever unit a record has, and times that look like another unit than declared."""

import re
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from email.utils import parsedate_to_datetime
from math import floor
from typing import Final
from zoneinfo import ZoneInfo

from contract.events.values import INTEGER_MAX, Unreadable, name_type, read_integer, read_number

TIME_SETTINGS: Final = "`intake.times`, or `unit` in a map"  # where the unit of a time is declared
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NUMBER_UNITS: Final = ("s", "ms", "us", "ns")
TIME_UNITS: Final = (*NUMBER_UNITS, "iso")
ANY_ZONE: Final = "a time zone such as Europe/Berlin"  # which is a unit of times too
PER_MS: Final = {"ms": 1, "us": 1_000, "ns": 1_000_000}
# Milliseconds between 1973 and 5138: outside, a time is likelier to be in another unit.
PLAUSIBLE_MS: Final = range(10**11, 10**14)
MICROSECONDS: Final = range(10**14, 10**17)


def find_zone(unit: str) -> tzinfo | None:
    """The zone of dates that name none: UTC for `iso`, else the zone that the unit is; None for units of numbers."""
    if unit in NUMBER_UNITS:
        return None
    return UTC if unit == "iso" else ZoneInfo(unit)


def is_time_unit(unit: str) -> bool:
    """Whether this machine knows a unit of times: one of `TIME_UNITS`, or a zone of IANA's database."""
    try:
        find_zone(unit)
    except (ValueError, LookupError, OSError):
        return False
    return True


def read_time(value: object, unit: str) -> int:
    """The epoch milliseconds of a time in this unit, or of a date in this zone; raises `Unreadable`.

    A date with a zone is read whatever unit is declared, since it can mean nothing else.
    """
    if isinstance(value, datetime):
        return to_epoch_ms(value, find_zone(unit) or UTC)
    if isinstance(value, date):
        return to_epoch_ms(datetime(value.year, value.month, value.day), find_zone(unit) or UTC)
    if not isinstance(value, str | float | int | Decimal) or isinstance(value, bool):
        raise Unreadable(f"Expected `int` or a date, got `{name_type(value)}`")
    if isinstance(value, str) and is_date(value):
        return parse_date(value.strip(), find_zone(unit))
    if unit == "s":
        # With a fraction, as `time.time()` gives it; finite, whatever it is multiplied with.
        return round(min(max(read_number(value), -INTEGER_MAX), INTEGER_MAX) * 1_000)
    number = read_whole_part(value)
    return number if abs(number) >= INTEGER_MAX else number // PER_MS.get(unit, 1)  # stands for all numbers beyond


def read_whole_part(value: object) -> int:
    """A number without its fraction, which clocks of a high resolution give; raises `Unreadable`."""
    try:
        number = read_number(value) if isinstance(value, float | str | Decimal) else 0.0
    except Unreadable as error:
        if isinstance(value, str):
            raise Unreadable(f"Expected ISO 8601, a date of RFC 2822 or a number, got {value[:40]!r}") from error
        raise
    return read_integer(value) if number.is_integer() or abs(number) >= INTEGER_MAX else floor(number)


MONTH: Final = re.compile(r"\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)", re.IGNORECASE)
DOTNET: Final = re.compile(r"/Date\((-?\d{1,16})([+-]\d{4})?\)/")
# The name of the zone behind its offset, as Java and Go write it, and Go's own clock.
OFFSET_NAME: Final = re.compile(r"(?<=[Z\d])(\[[^\]]*\]|(?<=[+-]\d{4}) [A-Z]{2,5}( M=[+-][\d.]+)?)$")
ZONE_NAME: Final = re.compile(r" (UTC|GMT)$")  # as databases write it
GMT_OFFSET: Final = re.compile(r"(?:\b(?:GMT|UTC)|(?<=\s))([+-]\d{2}):?(\d{2})\b")  # as JavaScript and Java write it
SLASHES: Final = re.compile(r"(\d{4})/(\d{2})/(\d{2})(?!\d)")  # the year comes first: it can mean one day only
OFFSET_SPACE: Final = re.compile(r" (?=[+-]\d{2}:?\d{2}$)")
LEAP_SECOND: Final = re.compile(r"(?<=:59:)60(?!\d)")  # no `datetime` has it
DATE_CHARS_MAX: Final = 128


def is_date(text: str) -> bool:
    """Whether a text begins like a date (`2026-11-30`, `20261130T`), or names a month."""
    return (
        "-" in text[1:8]
        or "T" in text
        or text.startswith("/Date(")
        or MONTH.search(text) is not None
        or SLASHES.match(text.lstrip()) is not None
    )


def parse_date(text: str, zone: tzinfo | None) -> int:
    """The epoch milliseconds of a date in ISO 8601, or in the form of mails, of HTTP, or of .NET.

    `zone`: of dates of ISO 8601 that name none; None: they are refused.
    """
    if match := DOTNET.fullmatch(text):
        return int(match[1])
    text = SLASHES.sub(r"\1-\2-\3", LEAP_SECOND.sub("59", text), count=1)
    if len(text) > DATE_CHARS_MAX:
        raise Unreadable("Expected a date, got a longer text")
    return parse_mail_date(text) if MONTH.search(text) else parse_iso(text, zone)


def parse_iso(text: str, zone: tzinfo | None) -> int:
    try:
        with_offset = ZONE_NAME.sub("+00:00", OFFSET_NAME.sub("", text.upper()))
        moment = datetime.fromisoformat(OFFSET_SPACE.sub("", with_offset))
    except ValueError as error:
        raise Unreadable(f"Expected ISO 8601, got {text[:40]!r}") from error
    if zone is None and moment.tzinfo is None:
        raise Unreadable(
            f"Expected a time with a zone, or the unit `iso` or a zone ({TIME_SETTINGS}), got {text[:40]!r}"
        )
    return to_epoch_ms(moment, zone or UTC)


def parse_mail_date(text: str) -> int:
    """The time of a date of RFC 2822 (`Mon, 30 Nov 2026 12:00:00 +0000`), or as Java and JavaScript write theirs."""
    try:
        moment = parsedate_to_datetime(GMT_OFFSET.sub(r"\1\2", text).replace("-0000", "+0000"))
    except (ValueError, TypeError, IndexError, OverflowError) as error:  # the last three of what it does not expect
        raise Unreadable(f"Expected a date of RFC 2822, got {text[:40]!r}") from error
    if moment.tzinfo is None:  # a zone by a name that stands for several, too
        raise Unreadable(f"Expected a date of RFC 2822 with its zone as an offset, got {text[:40]!r}")
    return to_epoch_ms(moment)


def to_epoch_ms(moment: datetime, zone: tzinfo = UTC) -> int:
    """The epoch milliseconds of a moment; `zone`: where it names none.

    A local time that a zone has twice, when summer ends, is the earlier one.
    """
    since = (moment if moment.tzinfo else moment.replace(tzinfo=zone)) - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000


def guess_unit(ms: int) -> str:
    """The unit in which a time that is read as milliseconds probably is; empty where they are plausible."""
    if ms in PLAUSIBLE_MS:
        return ""
    if ms < PLAUSIBLE_MS.start:
        return "s"
    return "us" if ms in MICROSECONDS else "ns"


def name_unit(declared: str, looks_like: str) -> str:
    """The unit in which a time was probably given, where it was read as declared and then looked like another one."""
    units = ("s", "ms", "us", "ns")
    position = units.index(declared if declared in units else "ms") + units.index(looks_like) - units.index("ms")
    return units[min(max(position, 0), len(units) - 1)]
