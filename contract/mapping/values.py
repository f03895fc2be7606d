"""Values of a shop's own form, converted to ours: times by their unit, money by its currency, texts by a table.

A value that cannot be converted stays as it is: the event's reader then says what is wrong with the field, or leaves it
out where it is optional.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from contract.events.codes import count_decimals
from contract.events.times import to_epoch_ms
from contract.events.values import Unreadable, read_text
from contract.mapping.paths import to_text

Convert = Callable[[Any], Any]
MS_PER_UNIT: Final = {"s": 1_000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
OTHERS: Final = "*"  # in a table: all values that it lacks


def compile_time(unit: str) -> Convert:
    """A time in `unit` as epoch milliseconds; `iso` without a zone is UTC."""
    if unit == "iso":
        return read_iso
    ms_per_unit = MS_PER_UNIT[unit]
    units_per_ms = round(1 / ms_per_unit)

    def convert(value: Any) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and units_per_ms:
            return value // units_per_ms  # exact: nanoseconds are beyond the precision of a float
        try:
            return int(value) // units_per_ms if units_per_ms else round(float(value) * ms_per_unit)
        except (TypeError, ValueError, OverflowError):
            return value

    return convert


def read_iso(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return to_epoch_ms(datetime.fromisoformat(value))
        except ValueError:
            pass
        try:
            return to_epoch_ms(datetime.fromisoformat(value.strip().removesuffix(" UTC")))
        except ValueError:
            return value
    return to_epoch_ms(value) if isinstance(value, datetime) else value  # as Avro's logical types are decoded


def compile_table(table: Mapping[str, object]) -> Convert:
    """Their value to ours; one that the table lacks is that of `OTHERS`, or stays as it is."""
    has_others, others = OTHERS in table, table.get(OTHERS)

    def convert(value: Any) -> Any:
        text = value if type(value) is str else to_text(value)
        return value if text is None else table.get(text, others if has_others else value)

    return convert


def to_major(value: Any, currency: Any) -> Any:
    """An amount in the minor unit of its currency (cents) as one in the currency's own unit."""
    if isinstance(value, bool):
        return value
    try:
        decimals = count_decimals(currency.strip().upper() if isinstance(currency, str) else "")
        return float(value) / 10**decimals
    except (TypeError, ValueError, OverflowError):
        return value


def join_texts(separator: str, *values: Any) -> str | None:
    """The texts of these values as one; None if one of them is absent, empty, or no text and no number."""
    try:
        texts = [read_text(value) for value in values]
    except Unreadable:
        return None
    return separator.join(texts) if all(texts) else None


def scale_money(event: dict[str, Any], lines: str, field: str) -> None:
    """Convert an amount of the event, or of each of its lines, from minor units of the event's currency."""
    parts = event.get(lines) if lines else [event]
    for part in parts if isinstance(parts, list) else ():
        if field in part:
            part[field] = to_major(part[field], event.get("currency"))
