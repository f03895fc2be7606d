"""Values of a shop's own form, converted to ours: times by their unit, money by its currency, texts by a table.

A value that cannot be converted stays as it is: the event's reader then says what is wrong with the field, or leaves it
out where it is optional.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Final

from contract.events.codes import count_decimals, read_currency
from contract.events.times import PER_MS, find_zone, read_time, to_epoch_ms
from contract.events.values import Unreadable, read_number, read_text
from contract.mapping.paths import to_text

Convert = Callable[[Any], Any]
OTHERS: Final = "*"  # in a table: all values that it lacks


def compile_time(unit: str) -> Convert:
    """A time in `unit` as epoch milliseconds; dates without a zone are of the zone that the unit is, UTC for `iso`."""
    if (zone := find_zone(unit)) is not None:
        return partial(read_iso, unit, zone)
    units_per_ms = PER_MS.get(unit)

    def convert(value: Any) -> Any:
        if type(value) is int and units_per_ms:
            return value // units_per_ms  # exact: nanoseconds are beyond the precision of a float
        return read_other(value, unit)

    return convert


def read_iso(unit: str, zone: tzinfo, value: Any) -> Any:
    if isinstance(value, str):
        try:
            return to_epoch_ms(datetime.fromisoformat(value), zone)
        except ValueError:
            pass
    return read_other(value, unit)


def read_other(value: Any, unit: str) -> Any:
    try:
        return read_time(value, unit)
    except Unreadable:
        return value


def compile_table(table: Mapping[str, object]) -> Convert:
    """Their value to ours; one that the table lacks is that of `OTHERS`, or stays as it is."""
    has_others, others = OTHERS in table, table.get(OTHERS)

    def convert(value: Any) -> Any:
        text = value if type(value) is str else to_text(value)
        return value if text is None else table.get(text, others if has_others else value)

    return convert


def to_major(value: Any, currency: Any) -> Any:
    """An amount in the minor unit of its currency (cents) as one in the currency's own unit."""
    try:
        decimals = count_decimals(read_currency(str(currency)) if isinstance(currency, str | int) else "")
        return read_number(value) / 10**decimals
    except Unreadable:
        return value


def join_texts(separator: str, *values: Any) -> str | None:
    """The texts of these values as one; None if one of them is absent, empty, or no text and no number."""
    try:
        texts = [read_text(value) for value in values]
    except Unreadable:
        return None
    return separator.join(texts) if all(texts) else None


def add_addresses(addresses: list[str], value: Any) -> None:
    """Add an address, or those of a list."""
    addresses += [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)]


def scale_money(event: dict[str, Any], lines: str, field: str) -> None:
    """Convert an amount of the event, or of each of its lines, from minor units of the event's currency."""
    parts = event.get(lines) if lines else [event]
    for part in parts if isinstance(parts, list) else ():
        if field in part:
            part[field] = to_major(part[field], event.get("currency"))
