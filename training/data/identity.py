"""Ids and times of tables as workers read them of events, so that rows meet erasures, products and events."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import BadData
from contract.events.values import Unreadable, read_text


def read_ids(column: Any) -> list[str]:
    """The ids of a column; empty where it has none.

    Whole numbers are their digits, also where a column with gaps holds them as floats.
    """
    return [read_id(value) for value in column.to_pylist()]


def read_id(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    try:
        return read_text(value)
    except Unreadable:
        return str(value)


def read_times_ms(column: Any, name: str) -> Any:
    """A column of times as whole epoch milliseconds, also of timestamps; raises `BadData` for one that holds none."""
    try:
        if pa.types.is_timestamp(column.type):
            column = pc.cast(column, pa.timestamp("ms", column.type.tz), safe=False)
        return pc.cast(column, pa.int64())
    except pa.ArrowException as error:
        raise BadData(f"`{name}` should hold epoch milliseconds or timestamps. Found: {error}") from error
