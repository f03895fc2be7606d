"""`python -m worker profile KIND ID`: what is remembered of one entity, slice by slice and as features see it, in text.

Linked entities and orders stand in profiles as 64-bit hashes of their names (`contract.hashing.hash_id`), and so here.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from contract.memory import fold
from contract.profiles import (
    AGGREGATES,
    FAMILIES,
    JUDGED_TASKS,
    LINK_STATS,
    RECORD,
    WIDTHS_MS,
    WINDOWS,
    source_family,
)
from contract.settings import Settings
from contract.slices import Slices
from contract.touches import LINKED, columns
from worker.profile_store import open_profiles
from worker.redis_cluster import connect

# What sums of a family are hundredths of; the others are whole numbers.
HUNDREDTHS: Final = ("orders", "reviews")
NOTHING: Final = "-"


def show(settings: Settings, kind: str, ident: str, at: datetime | None) -> int:
    """Print the profile of an entity; 0, or 1 if there is none. `at` without a zone is UTC."""
    entity = f"{kind}:{ident}"
    client = connect(settings.redis)
    profiles = open_profiles(client, settings.redis.prefix)
    try:
        profiles.take_up()
        (slices,) = profiles.read([entity])
    finally:
        client.close()
    if not slices:
        print(f"Nothing is remembered of {entity} under {profiles.key(entity)}.", file=sys.stderr)
        return 1
    now_ms = milliseconds(at) if at else time.time_ns() // 1_000_000
    print(f"{entity}, as it stands under {profiles.key(entity)}")
    print("\n".join(portrait(entity, slices, now_ms)))
    return 0


def milliseconds(at: datetime) -> int:
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)


def portrait(entity: str, slices: Slices, now_ms: int) -> Iterator[str]:
    """The lines of a profile: each slice in the order of names, then all of them as features see them at `now_ms`."""
    for source in sorted(slices):
        yield ""
        yield from slice_lines(entity, source, np.frombuffer(slices[source], RECORD)[0])
    yield ""
    yield f"As features see it at {moment(now_ms)}"
    touches = columns([], watched=[entity])
    aggregates, recent = fold([slices], touches).look([entity], [now_ms])
    yield from aggregate_lines(dict(zip(AGGREGATES, aggregates[0].tolist(), strict=True)))
    yield f"  latest first links {idents(recent[0].tolist())}"


def slice_lines(entity: str, source: str, one: Any) -> Iterator[str]:
    """One slice: its place in the log, its totals, its windows with their cells, links, labels and order ids."""
    family = source_family(source)
    yield f"{source}: up to offset {one['offset']}, {one['count']:,} events, sum {amount(family, one['sum'])}"
    if one["count"]:
        yield f"  seen from {moment(one['first_ms'])} to {moment(one['last_ms'])}"
        yield table("window", "cell since", "count", "sum", "count before", "sum before")
        for window, width_ms, cells in zip(WINDOWS, WIDTHS_MS.tolist(), one["windows"], strict=True):
            counts, sums = cells["count"].tolist(), [amount(family, total) for total in cells["sum"]]
            yield table(window, moment(int(cells["index"]) * width_ms), counts[0], sums[0], counts[1], sums[1])
    for kinds, links in zip(LINKED.get(family, {}).get(entity.partition(":")[0], ((), ())), one["links"], strict=True):
        seen = sorted(zip(links["seen_s"].tolist(), links["id"].tolist(), strict=True), reverse=True)
        for seen_s, ident in seen:
            if ident:
                yield f"  linked {' or '.join(kinds)} {ident:016x} at {moment(seen_s * 1_000)}"
    for task, (good, bad) in zip(JUDGED_TASKS, one["judged"].tolist(), strict=True):
        if good or bad:
            yield f"  judged for {task}: {good} good, {bad} bad"
    if one["orders"].any():
        yield f"  latest order ids {idents(one['orders'].tolist())}"


def aggregate_lines(values: dict[str, float]) -> Iterator[str]:
    """The aggregates of an entity, those of families that it has met."""
    yield table("family", "", *WINDOWS, "ever")
    for family in FAMILIES:
        if ever := values[f"{family}.count"]:
            yield table(family, "count", *(f"{values[f'{family}.count_{w}']:.4g}" for w in WINDOWS), f"{ever:g}")
            yield table("", "sum", *(amount(family, values[f"{family}.sum_{w}"]) for w in WINDOWS))
            yield table(
                "", f"first {values[f'{family}.age_s']:,.0f} s ago, last {values[f'{family}.gap_s']:,.0f} s ago"
            )
    for name in LINK_STATS:
        yield table(name, f"{values[name]:g}")
    for task in JUDGED_TASKS:
        if values[f"{task}.good"] or values[f"{task}.bad"]:
            yield table(task, f"{values[f'{task}.good']:g} good, {values[f'{task}.bad']:g} bad")


def table(first: str, second: str, *cells: object) -> str:
    return f"  {first:15} {second:22}" + "".join(f"{cell!s:>14}" for cell in cells)


def amount(family: str, total: float) -> str:
    """A sum in its family's unit."""
    return f"{total / 100:,.2f}" if family in HUNDREDTHS else f"{total:,.4g}"


def idents(found: Sequence[int]) -> str:
    return " ".join(f"{ident:016x}" for ident in found if ident) or NOTHING


def moment(ms: int) -> str:
    """A time in UTC, to the second."""
    return f"{datetime.fromtimestamp(int(ms) // 1_000, UTC):%Y-%m-%d %H:%M:%S}Z"
