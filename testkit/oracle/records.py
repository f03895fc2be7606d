"""Records as bytes, parsed with `struct` alone and compared with the oracle."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from contract.hashing import hash_id
from contract.profiles.histories import HISTORY_LAYOUT as HISTORY_LAYOUT_NUMBER
from testkit.oracle.profiles import FIRST, RING, SECOND, TASKS, WIDTHS_MS, HistoryEntry, OracleSlice, ProfileOracle

# A record's bytes, little-endian and without gaps: layout; count, offset, first and last time, sum; five windows of
# the current cell's number, two counts and two sums; two rings of eight ids and their seconds; four tasks' good and
# bad; eight order ids and the slot of the next one.
NO_ERASURES: Final[Mapping[str, int]] = {}
HISTORY_LAYOUT: Final = struct.pack("<I", HISTORY_LAYOUT_NUMBER)
ENTRY: Final = struct.Struct("<QIB")  # of a history, after its layout: an item's hash, the second, the action
RECORD: Final = struct.Struct("<I" + "Iqqqq" + "I2I2q" * 5 + "8Q8I" * 2 + "8I" + "8QI")


@dataclass
class RecordFields:
    """The fields of one record, in the oracle's form."""

    offset: int
    count: int
    sum: int
    first_ms: int
    last_ms: int
    windows: dict[
        str, tuple[int, tuple[int, int], tuple[int, int]]
    ]  # number of the newest cell, its count and sum, those of the previous cell
    first_links: dict[int, int]
    second_links: dict[int, int]
    judged: dict[tuple[str, str], int]
    orders: list[int]  # oldest first
    next_slot: int


def parse_record(record: bytes) -> RecordFields:
    """A record parsed with `struct`; raises ValueError if it is inconsistent."""
    if len(record) != RECORD.size:
        raise ValueError(f"a record of {len(record)} bytes instead of {RECORD.size}")
    values = list(RECORD.unpack(record))
    values_left = iter(values[1:])
    counted, offset, first_ms, last_ms, summed = (next(values_left) for _ in range(5))
    windows = {}
    for width in WIDTHS_MS:
        number, count_now, count_before, sum_now, sum_before = (next(values_left) for _ in range(5))
        windows[width] = (number, (count_now, sum_now), (count_before, sum_before))
    rings = [
        parse_ring([next(values_left) for _ in range(RING)], [next(values_left) for _ in range(RING)]) for _ in range(2)
    ]
    judged = {(task, verdict): next(values_left) for task in TASKS for verdict in ("good", "bad")}
    orders = [next(values_left) for _ in range(RING)]
    next_slot = next(values_left)
    return RecordFields(
        offset=offset,
        count=counted,
        sum=summed,
        first_ms=first_ms,
        last_ms=last_ms,
        windows=windows,
        first_links=rings[0],
        second_links=rings[1],
        judged={verdict: times for verdict, times in judged.items() if times},
        orders=[order for order in orders[next_slot:] + orders[:next_slot] if order],
        next_slot=next_slot,
    )


def parse_ring(idents: list[int], seconds: list[int]) -> dict[int, int]:
    """A ring as a dictionary; each id occurs once, and free slots are zero."""
    pairs = [(ident, second) for ident, second in zip(idents, seconds, strict=True) if ident or second]
    if len(dict(pairs)) < len(pairs) or 0 in dict(pairs):
        raise ValueError(f"a ring with an id twice, or a time without an id: {pairs}")
    return dict(pairs)


def mask_links(ring: Mapping[int, int], erased_until: Mapping[str, int]) -> dict[int, int]:
    """A ring in which only the first 20 of 63 bits are left of each erased user's id, and bit 64 is set.

    `erased_until`: user entity -> last erased millisecond; a user who was seen in a later second stays.
    """
    until_s = {hash_id(user): until_ms // 1000 for user, until_ms in erased_until.items()}
    return {
        2**63 + (ident >> 43 << 43) if seen_s <= until_s.get(ident, -1) else ident: seen_s
        for ident, seen_s in ring.items()
    }


def compute_expected_fields(oracle_slice: OracleSlice, erased_until: Mapping[str, int]) -> RecordFields:
    """The expected fields of a slice's record."""
    windows = {}
    for width in WIDTHS_MS:
        newest = oracle_slice.newest_cell(width)
        windows[width] = (newest, oracle_slice.cell(width, newest), oracle_slice.cell(width, newest - 1))
    return RecordFields(
        offset=oracle_slice.offset,
        count=oracle_slice.count,
        sum=oracle_slice.sum,
        first_ms=oracle_slice.first_ms,
        last_ms=oracle_slice.last_ms,
        windows=windows,
        first_links=mask_links(oracle_slice.links[FIRST], erased_until),
        second_links=mask_links(oracle_slice.links[SECOND], erased_until),
        judged=oracle_slice.judged,
        orders=list(oracle_slice.orders),
        next_slot=oracle_slice.count % RING if oracle_slice.orders else 0,
    )


def first_difference(
    oracle_slice: OracleSlice | None, record: bytes | None, erased_until: Mapping[str, int] = NO_ERASURES
) -> str | None:
    """The first difference between a record and the oracle, in words; None if they agree."""
    if oracle_slice is None or record is None:
        return None if oracle_slice is None and record is None else f"slice should be {oracle_slice}, was {record!r}"
    try:
        actual, expected = parse_record(record), compute_expected_fields(oracle_slice, erased_until)
    except ValueError as error:
        return str(error)
    for field in fields(RecordFields):
        if getattr(actual, field.name) != getattr(expected, field.name):
            return f"{field.name} should be {getattr(expected, field.name)}, was {getattr(actual, field.name)}"
    return None


def find_differences(oracle: ProfileOracle, slices: Mapping[str, Mapping[str, bytes]]) -> list[str]:
    """The first difference of each slice, of those of the oracle and those stored (entity -> source -> record)."""
    records = {(entity, source): record for entity, own in slices.items() for source, record in own.items()}
    pairs = sorted(set(records) | set(oracle.slices))
    compared = [
        (pair, first_difference(oracle.slices.get(pair), records.get(pair), oracle.erased_until)) for pair in pairs
    ]
    return [f"{entity} of {source}: {difference}" for (entity, source), difference in compared if difference]


def parse_history(record: bytes) -> list[HistoryEntry]:
    """The entries of a history's record; raises ValueError if it is none."""
    layout, entries = record[: len(HISTORY_LAYOUT)], record[len(HISTORY_LAYOUT) :]
    if layout != HISTORY_LAYOUT or not entries or len(entries) % ENTRY.size:
        raise ValueError(f"no record of a history: {record!r}")
    return list(ENTRY.iter_unpack(entries))


def history_difference(expected: list[HistoryEntry] | None, record: bytes | None) -> str | None:
    """How a history differs from the oracle's, in words; None if they agree."""
    try:
        actual = None if record is None else parse_history(record)
    except ValueError as error:
        return str(error)
    return None if actual == expected else f"history should be {expected}, was {actual}"


def find_history_differences(oracle: ProfileOracle, histories: Mapping[str, Mapping[str, bytes]]) -> list[str]:
    """The histories that differ, of those of the oracle and those stored (user -> source -> record)."""
    records = {(user, source): record for user, own in histories.items() for source, record in own.items()}
    expected = oracle.histories()
    return [
        f"history of {user}, {source}: {difference}"
        for user, source in sorted(set(records) | set(expected))
        if (difference := history_difference(expected.get((user, source)), records.get((user, source))))
    ]
