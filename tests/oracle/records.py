"""Records as bytes, read with `struct` alone, beside what the oracle says they should hold."""

import struct
from dataclasses import dataclass, fields
from typing import Final

from tests.oracle.profiles import FIRST, RING, SECOND, TASKS, WIDTHS_MS, Slice

# A record's bytes, little-endian and without gaps: layout; count, offset, first and last time, sum; five windows of
# the current cell's number, two counts and two sums; two rings of eight ids and their seconds; four tasks' good and
# bad; eight order ids and the place of the next.
RECORD: Final = struct.Struct("<I" + "Iqqqq" + "I2I2q" * 5 + "8Q8I" * 2 + "8I" + "8QI")


@dataclass
class Seen:
    """What one record says, in the oracle's words."""

    offset: int
    count: int
    sum: int
    first_ms: int
    last_ms: int
    windows: dict[str, tuple[int, tuple[int, int], tuple[int, int]]]  # newest cell's number, it, the one before it
    first_links: dict[int, int]
    second_links: dict[int, int]
    judged: dict[tuple[str, str], int]
    orders: list[int]  # oldest first
    place: int


def seen(record: bytes) -> Seen:
    """A record read with `struct`; raises ValueError where it contradicts itself."""
    if len(record) != RECORD.size:
        raise ValueError(f"a record of {len(record)} bytes instead of {RECORD.size}")
    values = list(RECORD.unpack(record))
    take = iter(values[1:])
    counted, offset, first_ms, last_ms, summed = (next(take) for _ in range(5))
    windows = {}
    for width in WIDTHS_MS:
        number, count_now, count_before, sum_now, sum_before = (next(take) for _ in range(5))
        windows[width] = (number, (count_now, sum_now), (count_before, sum_before))
    rings = [linked([next(take) for _ in range(RING)], [next(take) for _ in range(RING)]) for _ in range(2)]
    judged = {(task, verdict): next(take) for task in TASKS for verdict in ("good", "bad")}
    orders = [next(take) for _ in range(RING)]
    place = next(take)
    return Seen(
        offset=offset,
        count=counted,
        sum=summed,
        first_ms=first_ms,
        last_ms=last_ms,
        windows=windows,
        first_links=rings[0],
        second_links=rings[1],
        judged={verdict: times for verdict, times in judged.items() if times},
        orders=[order for order in orders[place:] + orders[:place] if order],
        place=place,
    )


def linked(idents: list[int], seconds: list[int]) -> dict[int, int]:
    """A ring as a dictionary; each id stands in it once, and free places hold nothing."""
    pairs = [(ident, second) for ident, second in zip(idents, seconds, strict=True) if ident or second]
    if len(dict(pairs)) < len(pairs) or 0 in dict(pairs):
        raise ValueError(f"a ring with an id twice, or a time without an id: {pairs}")
    return dict(pairs)


def expected(found: Slice) -> Seen:
    """What the record of a slice should say."""
    windows = {}
    for width in WIDTHS_MS:
        newest = found.newest_cell(width)
        windows[width] = (newest, found.cell(width, newest), found.cell(width, newest - 1))
    return Seen(
        offset=found.offset,
        count=found.count,
        sum=found.sum,
        first_ms=found.first_ms,
        last_ms=found.last_ms,
        windows=windows,
        first_links=found.links[FIRST],
        second_links=found.links[SECOND],
        judged=found.judged,
        orders=list(found.orders),
        place=found.count % RING if found.orders else 0,
    )


def first_difference(found: Slice | None, record: bytes | None) -> str | None:
    """In words, where a record first says something else than the oracle; None where they agree."""
    if found is None or record is None:
        return None if found is None and record is None else f"slice should be {found}, was {record!r}"
    try:
        was, should = seen(record), expected(found)
    except ValueError as error:
        return str(error)
    for one in fields(Seen):
        if getattr(was, one.name) != getattr(should, one.name):
            return f"{one.name} should be {getattr(should, one.name)}, was {getattr(was, one.name)}"
    return None
