"""Validates one record, and describes the first difference between two."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from contract.profiles.histories import read_entries
from contract.profiles.logins import read_rows
from contract.profiles.record import FAMILIES, JUDGED_TASKS, LAYOUT, RECORD, WINDOWS, source_family

CELL_NAMES: Final = ("now", "before")
RING_NAMES: Final = ("first", "second")


def find_defect(source: str, record: bytes) -> str | None:
    """Why these bytes cannot be a slice of this source; None if they can."""
    if source_family(source) not in FAMILIES:
        return f"the source should be of a family among {list(FAMILIES)}, is `{source}`"
    if len(record) != RECORD.itemsize:
        return f"a slice should have {RECORD.itemsize} bytes, has {len(record)}"
    layout = int(np.frombuffer(record, RECORD)["layout"][0])
    return None if layout == LAYOUT else f"layout should be {LAYOUT}, is {layout}"


def find_first_difference(expected_record: bytes, actual_record: bytes) -> str | None:
    """The first field in which two records of the layout differ; None if they are equal."""
    for (name, expected), (_, actual) in zip(
        iterate_values(expected_record), iterate_values(actual_record), strict=True
    ):
        if expected != actual:
            return f"{name} should be {expected}, is {actual}"
    return None


def find_first_different_entry(expected_record: bytes, actual_record: bytes) -> str | None:
    """The first entry, of the latest ones, in which two readable histories differ; None if they are equal."""
    expected, actual = read_entries(expected_record), read_entries(actual_record)
    for back, (entry, other) in enumerate(zip(expected[::-1], actual[::-1], strict=False), 1):
        if entry != other:
            return f"entry {back} from the end should be {entry}, is {other}"
    return None if len(expected) == len(actual) else f"entries should be {len(expected)}, are {len(actual)}"


def find_first_different_login(expected_record: bytes, actual_record: bytes) -> str | None:
    """The first row, of the latest ones, in which two readable records of logins differ; None if they are equal.

    It names no guest.
    """
    expected, actual = read_rows(expected_record), read_rows(actual_record)
    for back, (row, other) in enumerate(zip(expected[::-1], actual[::-1], strict=False), 1):
        if row[1:] != other[1:]:
            return f"row {back} from the end should be of {row[1:]}, is of {other[1:]}"
        if row != other:
            return f"row {back} from the end should be of another id"
    return None if len(expected) == len(actual) else f"rows should be {len(expected)}, are {len(actual)}"


def iterate_values(record: bytes) -> Iterator[tuple[str, int]]:
    """Every number of a record with its name, the offset first."""
    fields = np.frombuffer(record, RECORD)[0]
    for name in ("offset", "count", "sum", "first_ms", "last_ms"):
        yield name, int(fields[name])
    for window, cells in zip(WINDOWS, fields["windows"], strict=True):
        yield f"{window} cell", int(cells["index"])
        for cell, count, total in zip(CELL_NAMES, cells["count"].tolist(), cells["sum"].tolist(), strict=True):
            yield f"{window} count {cell}", count
            yield f"{window} sum {cell}", total
    for ring, links in zip(RING_NAMES, fields["links"], strict=True):
        for slot, (ident, seen_s) in enumerate(zip(links["id"].tolist(), links["seen_s"].tolist(), strict=True)):
            yield f"{ring} link {slot}", ident
            yield f"{ring} link {slot} seen_s", seen_s
    for task, (good, bad) in zip(JUDGED_TASKS, fields["judged"].tolist(), strict=True):
        yield f"{task} good", good
        yield f"{task} bad", bad
    for slot, ident in enumerate(fields["orders"].tolist()):
        yield f"order id {slot}", ident
    yield "next order id's place", int(fields["place"])
