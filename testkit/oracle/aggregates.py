"""The aggregates of an entity from the oracle's slices, rule by rule, in floating point.

A sliding window of width w at time t is estimated from two cells: the whole cell that contains t, and the share of the
previous cell that the window still covers.
"""

import math
from collections.abc import Mapping
from typing import Final

from contract.hashing import hash_id
from contract.units import DAY_MS
from testkit.oracle.profiles import RING, TASKS, WIDTHS_MS, OracleSlice

FAMILIES: Final = ("clicks", "impressions", "orders", "reviews", "searches", "judgements")


def family_of(source: str) -> str:
    return source.split("/")[0].split("~")[0]


def read_aggregates(slices: Mapping[str, OracleSlice], now_ms: int) -> dict[str, float]:
    """Every aggregate by its name, at `now_ms`; sums run over the sources in the order of their names."""
    aggregates = dict[str, float]()
    for family in FAMILIES:
        own = [slices[source] for source in sorted(slices) if family_of(source) == family]
        aggregates |= {
            f"{family}.{name}": value for name, value in family_aggregates([s for s in own if s.count], now_ms).items()
        }
    for ring, name in enumerate(("first_links", "second_links")):
        latest = merge_links(slices, ring)
        aggregates[f"{name}_1d"] = float(sum(now_ms // 1000 - seen_s <= DAY_MS // 1000 for seen_s in latest.values()))
        aggregates[name] = float(len(latest))
    for task in TASKS:
        for verdict in ("good", "bad"):
            aggregates[f"{task}.{verdict}"] = float(sum(s.judged.get((task, verdict), 0) for s in slices.values()))
    return aggregates


def family_aggregates(own: list[OracleSlice], now_ms: int) -> dict[str, float]:
    aggregates = {}
    for width in WIDTHS_MS:
        windows = [estimate_window(entity_slice, width, now_ms) for entity_slice in own]
        aggregates[f"count_{width}"] = sum((counted for counted, _ in windows), 0.0)
        aggregates[f"sum_{width}"] = sum((summed for _, summed in windows), 0.0)
    aggregates["count"] = float(sum(entity_slice.count for entity_slice in own))
    aggregates["age_s"] = max(((now_ms - entity_slice.first_ms) / 1000.0 for entity_slice in own), default=math.nan)
    aggregates["gap_s"] = min(((now_ms - entity_slice.last_ms) / 1000.0 for entity_slice in own), default=math.nan)
    return aggregates


def estimate_window(entity_slice: OracleSlice, width: str, now_ms: int) -> tuple[float, float]:
    """Count and sum of the window that ends at `now_ms`; a slice has its newest cell and the previous one."""
    now, newest = now_ms // WIDTHS_MS[width], entity_slice.newest_cell(width)
    still_inside = 1.0 - (now_ms % WIDTHS_MS[width]) / WIDTHS_MS[width]
    cells = {number: entity_slice.cell(width, number) for number in (newest, newest - 1)}
    (count_now, sum_now), (count_before, sum_before) = cells.get(now, (0, 0)), cells.get(now - 1, (0, 0))
    return count_now + still_inside * count_before, sum_now + still_inside * sum_before


def merge_links(slices: Mapping[str, OracleSlice], ring: int) -> dict[int, int]:
    """The distinct ids of all slices and when each was seen last."""
    latest: dict[int, int] = {}
    for entity_slice in slices.values():
        for ident, seen_s in entity_slice.links[ring].items():
            latest[ident] = max(seen_s, latest.get(ident, seen_s))
    return latest


def recent_links(slices: Mapping[str, OracleSlice], erased_until: Mapping[str, int] | None = None) -> list[int]:
    """The latest first links, newest first, ties by the greater id; zeros fill the rest.

    Users in `erased_until` (user entity -> last erased millisecond) are left out, unless seen in a later second.
    """
    latest = merge_links(slices, 0)
    for user, until_ms in (erased_until or {}).items():
        if latest.get(hash_id(user), until_ms) <= until_ms // 1000:
            latest.pop(hash_id(user), None)
    order = sorted(latest, key=lambda ident: (latest[ident], ident), reverse=True)[:RING]
    return order + [0] * (RING - len(order))
