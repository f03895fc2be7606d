"""What a reader should learn of an entity from the oracle's slices, rule by rule, in floating point.

A sliding window of width w at time t is estimated from two cells: all of the cell in which t lies, and of the one
before it the share that the window still covers.
"""

import math
from collections.abc import Mapping
from typing import Final

from contract.hashing import hash_id
from tests.oracle.profiles import DAY_MS, RING, TASKS, WIDTHS_MS, Slice

FAMILIES: Final = ("clicks", "impressions", "orders", "reviews", "searches", "judgements")


def family_of(source: str) -> str:
    return source.split("/")[0].split("~")[0]


def read(slices: Mapping[str, Slice], now_ms: int) -> dict[str, float]:
    """Every aggregate by its name, at `now_ms`; sums run over the sources in the order of their names."""
    found = dict[str, float]()
    for family in FAMILIES:
        own = [slices[source] for source in sorted(slices) if family_of(source) == family]
        found |= {f"{family}.{name}": value for name, value in of_family([s for s in own if s.count], now_ms).items()}
    for ring, name in enumerate(("first_links", "second_links")):
        latest = linked(slices, ring)
        found[f"{name}_1d"] = float(sum(now_ms // 1000 - seen_s <= DAY_MS // 1000 for seen_s in latest.values()))
        found[name] = float(len(latest))
    for task in TASKS:
        for verdict in ("good", "bad"):
            found[f"{task}.{verdict}"] = float(sum(s.judged.get((task, verdict), 0) for s in slices.values()))
    return found


def of_family(own: list[Slice], now_ms: int) -> dict[str, float]:
    found = {}
    for width in WIDTHS_MS:
        windows = [window(one, width, now_ms) for one in own]
        found[f"count_{width}"] = sum((counted for counted, _ in windows), 0.0)
        found[f"sum_{width}"] = sum((summed for _, summed in windows), 0.0)
    found["count"] = float(sum(one.count for one in own))
    found["age_s"] = max(((now_ms - one.first_ms) / 1000.0 for one in own), default=math.nan)
    found["gap_s"] = min(((now_ms - one.last_ms) / 1000.0 for one in own), default=math.nan)
    return found


def window(one: Slice, width: str, now_ms: int) -> tuple[float, float]:
    """Count and sum of the window that ends at `now_ms`; a slice remembers its newest cell and the one before."""
    now, newest = now_ms // WIDTHS_MS[width], one.newest_cell(width)
    still_inside = 1.0 - (now_ms % WIDTHS_MS[width]) / WIDTHS_MS[width]
    kept = {number: one.cell(width, number) for number in (newest, newest - 1)}
    (count_now, sum_now), (count_before, sum_before) = kept.get(now, (0, 0)), kept.get(now - 1, (0, 0))
    return count_now + still_inside * count_before, sum_now + still_inside * sum_before


def linked(slices: Mapping[str, Slice], ring: int) -> dict[int, int]:
    """The distinct ids of all slices and when each was seen last."""
    latest: dict[int, int] = {}
    for one in slices.values():
        for ident, seen_s in one.links[ring].items():
            latest[ident] = max(seen_s, latest.get(ident, seen_s))
    return latest


def recent(slices: Mapping[str, Slice], forgotten: Mapping[str, int] | None = None) -> list[int]:
    """The latest first links, newest first, the greater id first of two seen at once; zeros fill the rest.

    Who is `forgotten` (user entity -> last millisecond) is left out, unless they were seen in a later second.
    """
    latest = linked(slices, 0)
    for user, until_ms in (forgotten or {}).items():
        if latest.get(hash_id(user), until_ms) <= until_ms // 1000:
            latest.pop(hash_id(user), None)
    order = sorted(latest, key=lambda ident: (latest[ident], ident), reverse=True)[:RING]
    return order + [0] * (RING - len(order))
