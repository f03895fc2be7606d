"""Readings of single values: what a text, a number or a flag says, whichever type of JSON a producer gave it."""

import math
import re
from decimal import Decimal
from types import NoneType
from typing import Final
from uuid import UUID

from contract.errors import ShopstreamError

DECIMAL: Final = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?|[+-]?\.\d+", re.ASCII)
# As people write numbers: digits with marks between them.
WRITTEN: Final = re.compile(r"([+-]?)([0-9]+(?:[.,'’\s][0-9]+)+)")
MARK: Final = re.compile(r"[^0-9]")
# Before and between marks of thousands; those of India have two digits but for the last.
THOUSANDS: Final = re.compile(r"[1-9][0-9]{0,2}(,[0-9]{3})+|[1-9][0-9]?(,[0-9]{2})+,[0-9]{3}")
DIGITS_MAX: Final = 64  # of a number as text, and of one that is read as text
INTEGER_MAX: Final = 2**63 - 1
FLAGS: Final = {
    **dict.fromkeys(("true", "1", "yes", "y", "t", "on"), True),
    **dict.fromkeys(("false", "0", "no", "n", "f", "off"), False),
}
AVAILABLE: Final = {
    **FLAGS,
    **dict.fromkeys(("instock", "available", "limitedavailability", "preorder", "backorder", "presale"), True),
    **dict.fromkeys(("onlineonly", "madetoorder", "availablefororder", "lowstock", "limitedstock"), True),
    **dict.fromkeys(("outofstock", "soldout", "unavailable", "notavailable", "discontinued", "reserved"), False),
    **dict.fromkeys(("instoreonly", "temporarilyoutofstock", "comingsoon"), False),
}
NOT_UTF8: Final = "bytes that are not UTF-8"
MARKS: Final = str.maketrans("", "", " _-")


class Unreadable(ShopstreamError):
    """A value that cannot be read as its field's type; the message says what should be there, in msgspec's words."""


class DamagedText:
    """A text of a record that is not UTF-8; not a `str`, so that no reading takes it for one."""


def read_text(value: object) -> str:
    """A text; numbers become theirs. Raises `Unreadable`."""
    match value:
        case str():
            return value
        case bool():
            raise Unreadable("Expected `str`, got `bool`")
        case int() if abs(value) < 10**DIGITS_MAX:
            return str(value)
        case float() if math.isfinite(value):
            return str(int(value)) if value.is_integer() else str(value)
        case Decimal() | UUID():
            return str(value)
    raise Unreadable(f"Expected `str`, got `{name_type(value)}`")


def read_number(value: object) -> float:
    """A finite number, also as text; raises `Unreadable`."""
    match value:
        case bool():
            raise Unreadable("Expected `float`, got `bool`")
        case int() | Decimal():
            number = to_float(value)
        case float():
            number = value
        case str() if len(value) <= DIGITS_MAX and DECIMAL.fullmatch(value.strip()):
            number = float(value.strip())  # which strips more than `float` does
        case str() if len(value) <= DIGITS_MAX:
            number = parse_written(value.strip())
        case _:
            raise Unreadable(f"Expected `float`, got `{name_type(value)}`")
    if not math.isfinite(number):
        raise Unreadable("Number out of range")
    return number


def parse_written(text: str) -> float:
    """A number with marks between its thousands, or a comma before its decimals; raises `Unreadable`.

    It can mean one number only: where thousands cannot end, a comma is before decimals (`0,5`, `1234,567`); the same
    mark twice is between thousands (`1.234.567`), and of two marks the last one is before decimals (`1,234.567`).
    """
    match = WRITTEN.fullmatch(text)
    marks = MARK.findall(match[2]) if match else []
    is_whole = len(set(marks)) == 1 and (len(marks) > 1 or marks[0] not in ".,")
    if match is None or len(set(marks[:-1])) > 1 or not (is_whole or marks[-1] in ".,"):
        raise Unreadable("Expected `float`, got `str`")
    whole, _, decimals = (match[2], "", "0") if is_whole else match[2].rpartition(marks[-1])
    grouped = MARK.sub(",", whole)
    is_both = marks == [","] and THOUSANDS.fullmatch(MARK.sub(",", match[2])) is not None
    if is_both or ("," in grouped and THOUSANDS.fullmatch(grouped) is None):
        raise Unreadable("Expected `float`, got `str`")
    return float(f"{match[1]}{grouped.replace(',', '')}.{decimals}")


def to_float(value: int | Decimal) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):
        return math.inf


def read_integer(value: object) -> int:
    """A whole number, also as `1.0` and as text; raises `Unreadable`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-INTEGER_MAX, min(value, INTEGER_MAX))
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value) <= DIGITS_MAX:
        return min(int(value.strip()), INTEGER_MAX)
    number = read_number(value)
    if not number.is_integer():
        raise Unreadable("Expected `int`, got `float`")
    return int(max(min(number, INTEGER_MAX), -INTEGER_MAX))


def read_stock(value: object) -> int:
    """The pieces that are left: whole ones, and none where a word or a flag says sold out. Raises `Unreadable`."""
    try:
        return min(max(0, math.floor(read_number(value))), INTEGER_MAX)
    except Unreadable:
        if read_available(value):  # some, and nothing says how many
            raise
        return 0


def read_quantity(value: object) -> int | float:
    """A number of pieces, or a part of them such as 2.5 kg; a whole one is an `int`, so that `2.0` is as `2`.

    Raises `Unreadable`.
    """
    number = read_number(value)
    return int(number) if number.is_integer() else number


def read_flag(value: object) -> bool:
    """True or false, also as 1, 0 and the usual words; raises `Unreadable`."""
    if isinstance(value, bool):
        return value
    flag = FLAGS.get(read_text(value).strip().lower())
    if flag is None:
        raise Unreadable(f"Expected `bool`, got `{name_type(value)}`")
    return flag


def read_available(value: object) -> bool:
    """Whether an item can be bought: a flag, a number of pieces, or a word of feeds such as `out of stock`.

    Raises `Unreadable`.
    """
    if isinstance(value, bool):
        return value
    try:
        return read_number(value) > 0
    except Unreadable as error:
        text = value if isinstance(value, str) else ""
        word = text.strip().lower().rstrip("/").rpartition("/")[2].translate(MARKS)  # schema.org's words are URLs
        if word not in AVAILABLE:
            raise Unreadable(f"Expected `bool`, got `{name_type(value)}`") from error
    return AVAILABLE[word]


def name_type(value: object) -> str:
    """The type of a value in the words of JSON, as msgspec has them."""
    names = {NoneType: "null", list: "array", tuple: "array", dict: "object", DamagedText: NOT_UTF8}
    return names.get(type(value), type(value).__name__)
