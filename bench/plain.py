"""The plain loop: profiles and features with dictionaries, one event at a time, over the same Redis commands.

It keeps the promises of `contract/`: the same slices, byte for byte, and the same features, in plain Python and no more
of it than is asked for (`struct` for records, only the aggregates that a declared feature reads). It is what the
compiled fold is compared with.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from contract.events import Event
from contract.features.declaration import DERIVED, Block, Feature, FeatureSet, to_number
from contract.hashing import hash_id
from contract.profiles.entity_updates import LINKED_KINDS, Arrival, extract_updates
from contract.profiles.record import HORIZON_MS, JUDGED_TASKS, LAYOUT, RING_SIZE, WIDTHS_MS, WINDOWS, source_family

RECORD: Final = struct.Struct(
    "<I" + "Iqqqq" + "I2I2q" * len(WINDOWS) + f"{RING_SIZE}Q{RING_SIZE}I" * 2 + "8I" + f"{RING_SIZE}QI"
)
WIDTHS: Final = tuple(WIDTHS_MS.tolist())
ORDER_IDS: Final = 6 + 5 * len(WINDOWS) + 4 * RING_SIZE + 8
Plain: TypeAlias = dict[str, Any]  # one slice
Held: TypeAlias = dict[str, dict[str, Plain]]  # entity -> source -> slice
Read: TypeAlias = Callable[[Event, Mapping[str, "Known"], Mapping[str, float]], float]
DAY_S: Final = 86_400


def opened(source: str, record: bytes) -> Plain:
    """A slice from its bytes."""
    values = RECORD.unpack(record)
    at = 6 + 5 * len(WINDOWS)
    rings = []
    for _ in range(2):
        ids, seen = values[at : at + RING_SIZE], values[at + RING_SIZE : at + 2 * RING_SIZE]
        rings.append({"id": list(ids), "seen_s": list(seen)})
        at += 2 * RING_SIZE
    return {
        "family": source_family(source),
        "count": values[1],
        "offset": values[2],
        "first_ms": values[3],
        "last_ms": values[4],
        "sum": values[5],
        "windows": [list(values[6 + 5 * w : 11 + 5 * w]) for w in range(len(WINDOWS))],
        "links": rings,
        "judged": list(values[at : at + 8]),
        "orders": list(values[ORDER_IDS : ORDER_IDS + RING_SIZE]),
        "place": values[-1],
    }


def closed(one: Plain) -> bytes:
    """The bytes of a slice."""
    values = [LAYOUT, one["count"], one["offset"], one["first_ms"], one["last_ms"], one["sum"]]
    for cells in one["windows"]:
        values += cells
    for ring in one["links"]:
        values += ring["id"]
        values += ring["seen_s"]
    return RECORD.pack(*values, *one["judged"], *one["orders"], one["place"])


def fresh(family: str, offset: int) -> Plain:
    """A slice of nothing."""
    return {
        "family": family,
        "count": 0,
        "offset": offset,
        "first_ms": 0,
        "last_ms": 0,
        "sum": 0,
        "windows": [[0] * 5 for _ in WINDOWS],
        "links": [{"id": [0] * RING_SIZE, "seen_s": [0] * RING_SIZE} for _ in range(2)],
        "judged": [0] * 8,
        "orders": [0] * RING_SIZE,
        "place": 0,
    }


def count(one: Plain, ts_ms: int, amount: int) -> None:
    if not one["count"] or ts_ms < one["first_ms"]:
        one["first_ms"] = ts_ms
    one["last_ms"] = max(one["last_ms"], ts_ms)
    one["count"] += 1
    one["sum"] += amount
    for cells, width in zip(one["windows"], WIDTHS, strict=True):
        ahead = ts_ms // width - cells[0]
        if ahead > 0:
            old = (cells[1], cells[3]) if ahead == 1 else (0, 0)
            cells[:] = [cells[0] + ahead, 0, old[0], 0, old[1]]
        if ahead >= -1:
            late = ahead == -1
            cells[1 + late] += 1
            cells[3 + late] += amount


def link(ring: Plain, ident: int, seen_s: int) -> None:
    ids, seen = ring["id"], ring["seen_s"]
    if ident in ids:
        at = ids.index(ident)
        seen[at] = max(seen[at], seen_s)
        return
    at = min(range(RING_SIZE), key=lambda k: (seen[k], ids[k]))
    if (seen_s, ident) > (seen[at], ids[at]):
        ids[at], seen[at] = ident, seen_s


def links_of(family: str, kind: str, entities: Sequence[str]) -> list[list[str]]:
    """The first and the second links of an entity among those of its event, of items the last eight."""
    found = []
    for kinds in LINKED_KINDS.get(family, {}).get(kind, ((), ())):
        linked = [entity for entity in reversed(entities) if entity.partition(":")[0] in kinds]
        found.append(linked[:RING_SIZE] if "item" in kinds else linked)
    return found


def fold_event(held: Held, arrival: Arrival) -> None:
    """Fold an order or a click into the slices of the entities it touches."""
    source, event = arrival.source, arrival.event
    family, ts_ms = source_family(source), event.ts_ms
    touches = list(extract_updates(event))
    entities = [entity for entity, _ in touches]
    for entity, amount in touches:
        one = held[entity].get(source) or held[entity].setdefault(source, fresh(family, -1))
        if arrival.offset <= one["offset"]:
            continue
        one["offset"] = arrival.offset
        if ts_ms - one["last_ms"] > HORIZON_MS:
            one = held[entity][source] = fresh(family, arrival.offset)
        if family == "orders":
            order_id = hash_id(event.event_id)
            if order_id in one["orders"]:
                continue
            one["orders"][one["place"]] = order_id
            one["place"] = (one["place"] + 1) % RING_SIZE
        count(one, ts_ms, amount)
        for ring, names in zip(one["links"], links_of(family, entity.partition(":")[0], entities), strict=True):
            for name in names:
                link(ring, hash_id(name), ts_ms // 1000)


def window(slices: Sequence[Plain], w: int, part: int, now_ms: int) -> float:
    """The count (part 1) or sum (part 3) of a sliding window over some slices."""
    now, left, total = now_ms // WIDTHS[w], 1.0 - (now_ms % WIDTHS[w]) / WIDTHS[w], 0.0
    for one in slices:
        cells = one["windows"][w]
        behind = now - cells[0]
        if behind == 0:
            total += cells[part] + left * cells[part + 1]
        elif behind == 1:
            total += left * cells[part]
        elif behind == -1:
            total += cells[part + 1]
    return total


class Known:
    """What is known of one entity before an event; links are gathered when they are first asked for."""

    def __init__(self, slices: Mapping[str, Plain]) -> None:
        self.slices = [slices[source] for source in sorted(slices)]
        self._links: dict[int, dict[int, int]] = {}

    def linked(self, ring: int) -> dict[int, int]:
        """The distinct ids of a ring and when each was seen last."""
        if ring not in self._links:
            latest = self._links[ring] = {}
            for one in self.slices:
                for ident, seen_s in zip(one["links"][ring]["id"], one["links"][ring]["seen_s"], strict=True):
                    if ident and seen_s >= latest.get(ident, 0):
                        latest[ident] = seen_s
        return self._links[ring]

    def recent(self) -> list[int]:
        latest = self.linked(0)
        order = sorted(latest, key=lambda ident: (latest[ident], ident), reverse=True)[:RING_SIZE]
        return order + [0] * (RING_SIZE - len(order))

    def aggregate(self, family: str, stat: str, now_ms: int) -> float:
        """One aggregate by the two parts of its name; links have only one."""
        if family.startswith(("first_links", "second_links")):
            seen = self.linked(int(family.startswith("second"))).values()
            return float(sum(now_ms // 1000 - s <= DAY_S for s in seen) if family.endswith("_1d") else len(seen))
        if family in JUDGED_TASKS:
            at = 2 * JUDGED_TASKS.index(family) + (stat == "bad")
            return float(sum(one["judged"][at] for one in self.slices))
        own = [one for one in self.slices if one["family"] == family and one["count"]]
        if stat == "age_s":
            return max(((now_ms - one["first_ms"]) / 1000.0 for one in own), default=math.nan)
        if stat == "gap_s":
            return min(((now_ms - one["last_ms"]) / 1000.0 for one in own), default=math.nan)
        if stat == "count":
            return float(sum(one["count"] for one in own))
        kind, _, width = stat.partition("_")
        return window(own, WINDOWS.index(width), 1 if kind == "count" else 3, now_ms)


class PlainEncoder:
    """Fills the rows of feature groups, one event at a time."""

    def __init__(self, features: FeatureSet, groups: Sequence[str]) -> None:
        self.numbers = {group: [(f, reader(f)) for f in features.numbers(group)] for group in groups}
        self.kinds = {f.source.split(".")[1] for f in features.features if f.source.startswith("profile.")}
        self.ids = {group: [span.feature for span in features.spans(group)] for group in groups}
        self.rows: dict[str, tuple[list[list[float]], list[list[int]]]] = {group: ([], []) for group in groups}

    def encode(self, event: Event, held: Held) -> None:
        """Add the row of an event, as known before it."""
        first = dict[str, Known]()
        for entity, _ in extract_updates(event):
            kind = entity.partition(":")[0]
            if kind in self.kinds and kind not in first:
                first[kind] = Known(held[entity])
        for group, (numbers, ids) in self.rows.items():
            row: dict[str, float] = {}
            for feature, read in self.numbers[group]:
                row[feature.name] = read(event, first, row)
            numbers.append(list(row.values()))
            ids.append([ident for feature in self.ids[group] for ident in idents(feature, event, first)])

    def blocks(self) -> dict[str, Block]:
        """The rows so far."""
        return {
            group: Block(np.array(numbers, np.float32), np.array(ids, np.int64))
            for group, (numbers, ids) in self.rows.items()
        }


def reader(feature: Feature) -> Read:
    """How a number feature is read, found once."""
    head, _, rest = feature.source.partition(".")
    if feature.source.startswith("ratio "):
        top, bottom = feature.source.removeprefix("ratio ").split(" / ")
        return lambda event, first, row: row[top] / row[bottom] if row[bottom] > 0 else math.nan
    if head == "profile":
        kind, family, stat = (*rest.split("."), "")[:3]
        return lambda event, first, row: first[kind].aggregate(family, stat, event.ts_ms) if kind in first else math.nan
    if rest in DERIVED:
        return lambda event, first, row: DERIVED[rest](event)
    return lambda event, first, row: to_number(getattr(event, rest, None))


def idents(feature: Feature, event: Event, first: Mapping[str, Known]) -> list[int]:
    field = feature.source.partition(".")[2]
    if feature.kind == "sequence":
        kind = field.partition(".")[0]
        return first[kind].recent() if kind in first else [0] * RING_SIZE
    value = getattr(event, field, None)
    return [0 if value is None else hash_id(f"{field}={value}")]


def plain_batch(
    profiles: Mapping[str, Mapping[str, bytes]], arrivals: Sequence[Arrival], encoder: PlainEncoder
) -> dict[str, dict[str, bytes]]:
    """Fold and encode a batch; returns the slices to write."""
    held = {
        entity: {source: opened(source, record) for source, record in of.items()} for entity, of in profiles.items()
    }
    written: dict[str, dict[str, None]] = {}
    for arrival in arrivals:
        encoder.encode(arrival.event, held)
        fold_event(held, arrival)
        for entity, _ in extract_updates(arrival.event):
            written.setdefault(entity, {})[arrival.source] = None
    return {entity: {source: closed(held[entity][source]) for source in of} for entity, of in written.items()}
