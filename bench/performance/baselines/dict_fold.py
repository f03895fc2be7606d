"""The plain loop: profiles and features with dictionaries, one event at a time; the baseline of the compiled fold.

It produces the same slices as `contract/`, byte for byte, and the same features, in plain Python that does no more than
necessary (`struct` for records, only the aggregates that a declared feature reads), with the same Redis commands.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from contract.events.model import Event
from contract.features.columns import DERIVED, to_number
from contract.features.declaration import Block, Feature, FeatureSet
from contract.hashing import hash_id
from contract.profiles.entity_kinds import LINKED_KINDS
from contract.profiles.entity_updates import Arrival, extract_updates
from contract.profiles.record import HORIZON_MS, JUDGED_TASKS, LAYOUT, RING_SIZE, WIDTHS_MS, WINDOWS, source_family

RECORD: Final = struct.Struct(
    "<I" + "Iqqqq" + "I2I2q" * len(WINDOWS) + f"{RING_SIZE}Q{RING_SIZE}I" * 2 + "8I" + f"{RING_SIZE}QI"
)
WIDTHS: Final = tuple(WIDTHS_MS.tolist())
ORDER_IDS: Final = 6 + 5 * len(WINDOWS) + 4 * RING_SIZE + 8
PlainSlice: TypeAlias = dict[str, Any]
SlicesByEntity: TypeAlias = dict[str, dict[str, PlainSlice]]  # entity -> source -> slice
FeatureReader: TypeAlias = Callable[[Event, Mapping[str, "PlainAggregates"], Mapping[str, float]], float]
DAY_S: Final = 86_400


def unpack_slice(source: str, record: bytes) -> PlainSlice:
    """Decode a slice."""
    values = RECORD.unpack(record)
    position = 6 + 5 * len(WINDOWS)
    rings = []
    for _ in range(2):
        ids, seen_s = values[position : position + RING_SIZE], values[position + RING_SIZE : position + 2 * RING_SIZE]
        rings.append({"id": list(ids), "seen_s": list(seen_s)})
        position += 2 * RING_SIZE
    return {
        "family": source_family(source),
        "count": values[1],
        "offset": values[2],
        "first_ms": values[3],
        "last_ms": values[4],
        "sum": values[5],
        "windows": [list(values[6 + 5 * w : 11 + 5 * w]) for w in range(len(WINDOWS))],
        "links": rings,
        "judged": list(values[position : position + 8]),
        "orders": list(values[ORDER_IDS : ORDER_IDS + RING_SIZE]),
        "place": values[-1],
    }


def pack_slice(state: PlainSlice) -> bytes:
    """Encode a slice."""
    values = [LAYOUT, state["count"], state["offset"], state["first_ms"], state["last_ms"], state["sum"]]
    for cells in state["windows"]:
        values += cells
    for ring in state["links"]:
        values += ring["id"]
        values += ring["seen_s"]
    return RECORD.pack(*values, *state["judged"], *state["orders"], state["place"])


def make_slice(family: str, offset: int) -> PlainSlice:
    """An empty slice."""
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


def count_event(state: PlainSlice, ts_ms: int, amount: int) -> None:
    if not state["count"] or ts_ms < state["first_ms"]:
        state["first_ms"] = ts_ms
    state["last_ms"] = max(state["last_ms"], ts_ms)
    state["count"] += 1
    state["sum"] += amount
    for cells, width in zip(state["windows"], WIDTHS, strict=True):
        blocks_ahead = ts_ms // width - cells[0]
        if blocks_ahead > 0:
            old = (cells[1], cells[3]) if blocks_ahead == 1 else (0, 0)
            cells[:] = [cells[0] + blocks_ahead, 0, old[0], 0, old[1]]
        if blocks_ahead >= -1:
            is_late = blocks_ahead == -1
            cells[1 + is_late] += 1
            cells[3 + is_late] += amount


def add_link(ring: PlainSlice, ident: int, seen_s: int) -> None:
    ids, seen_times = ring["id"], ring["seen_s"]
    if ident in ids:
        slot = ids.index(ident)
        seen_times[slot] = max(seen_times[slot], seen_s)
        return
    slot = min(range(RING_SIZE), key=lambda k: (seen_times[k], ids[k]))
    if (seen_s, ident) > (seen_times[slot], ids[slot]):
        ids[slot], seen_times[slot] = ident, seen_s


def list_links(family: str, kind: str, entities: Sequence[str]) -> list[list[str]]:
    """The first and second linked entities of an entity in its event; of items, the last eight."""
    links = []
    for kinds in LINKED_KINDS.get(family, {}).get(kind, ((), ())):
        linked = [entity for entity in reversed(entities) if entity.partition(":")[0] in kinds]
        links.append(linked[:RING_SIZE] if "item" in kinds else linked)
    return links


def fold_event(profiles: SlicesByEntity, arrival: Arrival) -> None:
    """Fold an order or a click into the slices of its entities."""
    source, event = arrival.source, arrival.event
    family, ts_ms = source_family(source), event.ts_ms
    updates = list(extract_updates(event))
    entities = [entity for entity, _ in updates]
    for entity, amount in updates:
        state = profiles[entity].get(source) or profiles[entity].setdefault(source, make_slice(family, -1))
        if arrival.offset <= state["offset"]:
            continue
        state["offset"] = arrival.offset
        if ts_ms - state["last_ms"] > HORIZON_MS:
            state = profiles[entity][source] = make_slice(family, arrival.offset)
        if family == "orders":
            order_id = hash_id(event.event_id)
            if order_id in state["orders"]:
                continue
            state["orders"][state["place"]] = order_id
            state["place"] = (state["place"] + 1) % RING_SIZE
        count_event(state, ts_ms, amount)
        for ring, names in zip(state["links"], list_links(family, entity.partition(":")[0], entities), strict=True):
            for name in names:
                add_link(ring, hash_id(name), ts_ms // 1000)


def sum_window(slices: Sequence[PlainSlice], w: int, cell: int, now_ms: int) -> float:
    """The count (`cell` 1) or sum (`cell` 3) of a sliding window over some slices."""
    now = now_ms // WIDTHS[w]
    remaining_share = 1.0 - (now_ms % WIDTHS[w]) / WIDTHS[w]
    total = 0.0
    for state in slices:
        cells = state["windows"][w]
        blocks_behind = now - cells[0]
        if blocks_behind == 0:
            total += cells[cell] + remaining_share * cells[cell + 1]
        elif blocks_behind == 1:
            total += remaining_share * cells[cell]
        elif blocks_behind == -1:
            total += cells[cell + 1]
    return total


class PlainAggregates:
    """Aggregates of one entity before an event; links are collected on first use."""

    def __init__(self, slices: Mapping[str, PlainSlice]) -> None:
        self.slices = [slices[source] for source in sorted(slices)]
        self._links: dict[int, dict[int, int]] = {}

    def find_linked_ids(self, ring: int) -> dict[int, int]:
        """The distinct ids of a ring, each with its latest time."""
        if ring not in self._links:
            latest = self._links[ring] = {}
            for state in self.slices:
                for ident, seen_s in zip(state["links"][ring]["id"], state["links"][ring]["seen_s"], strict=True):
                    if ident and seen_s >= latest.get(ident, 0):
                        latest[ident] = seen_s
        return self._links[ring]

    def recent_ids(self) -> list[int]:
        latest = self.find_linked_ids(0)
        order = sorted(latest, key=lambda ident: (latest[ident], ident), reverse=True)[:RING_SIZE]
        return order + [0] * (RING_SIZE - len(order))

    def aggregate(self, family: str, stat: str, now_ms: int) -> float:
        """One aggregate by its family and statistic; links have no statistic."""
        if family.startswith(("first_links", "second_links")):
            seen_times = self.find_linked_ids(int(family.startswith("second"))).values()
            return float(
                sum(now_ms // 1000 - s <= DAY_S for s in seen_times) if family.endswith("_1d") else len(seen_times)
            )
        if family in JUDGED_TASKS:
            cell = 2 * JUDGED_TASKS.index(family) + (stat == "bad")
            return float(sum(state["judged"][cell] for state in self.slices))
        family_slices = [state for state in self.slices if state["family"] == family and state["count"]]
        if stat == "age_s":
            return max(((now_ms - state["first_ms"]) / 1000.0 for state in family_slices), default=math.nan)
        if stat == "gap_s":
            return min(((now_ms - state["last_ms"]) / 1000.0 for state in family_slices), default=math.nan)
        if stat == "count":
            return float(sum(state["count"] for state in family_slices))
        kind, _, width = stat.partition("_")
        return sum_window(family_slices, WINDOWS.index(width), 1 if kind == "count" else 3, now_ms)


class PlainEncoder:
    """Encodes the rows of feature groups, one event at a time."""

    def __init__(self, features: FeatureSet, groups: Sequence[str]) -> None:
        self.numbers = {group: [(f, make_reader(f)) for f in features.numbers(group)] for group in groups}
        self.kinds = {f.source.split(".")[1] for f in features.features if f.source.startswith("profile.")}
        self.ids = {group: [span.feature for span in features.spans(group)] for group in groups}
        self.rows: dict[str, tuple[list[list[float]], list[list[int]]]] = {group: ([], []) for group in groups}

    def encode(self, event: Event, profiles: SlicesByEntity) -> None:
        """Append the row of an event, from the profiles before it."""
        aggregates = dict[str, PlainAggregates]()
        for entity, _ in extract_updates(event):
            kind = entity.partition(":")[0]
            if kind in self.kinds and kind not in aggregates:
                aggregates[kind] = PlainAggregates(profiles[entity])
        for group, (numbers, ids) in self.rows.items():
            row: dict[str, float] = {}
            for feature, read in self.numbers[group]:
                row[feature.name] = read(event, aggregates, row)
            numbers.append(list(row.values()))
            ids.append([ident for feature in self.ids[group] for ident in read_ids(feature, event, aggregates)])

    def to_blocks(self) -> dict[str, Block]:
        """The encoded rows."""
        return {
            group: Block(np.array(numbers, np.float32), np.array(ids, np.int64))
            for group, (numbers, ids) in self.rows.items()
        }


def make_reader(feature: Feature) -> FeatureReader:
    """Build the reader of a number feature."""
    head, _, field = feature.source.partition(".")
    if feature.source.startswith("ratio "):
        top, bottom = feature.source.removeprefix("ratio ").split(" / ")
        return lambda event, aggregates, row: row[top] / row[bottom] if row[bottom] > 0 else math.nan
    if head == "profile":
        kind, family, stat = (*field.split("."), "")[:3]
        return lambda event, aggregates, row: (
            aggregates[kind].aggregate(family, stat, event.ts_ms) if kind in aggregates else math.nan
        )
    if field in DERIVED:
        return lambda event, aggregates, row: DERIVED[field](event)
    return lambda event, aggregates, row: to_number(getattr(event, field, None))


def read_ids(feature: Feature, event: Event, aggregates: Mapping[str, PlainAggregates]) -> list[int]:
    field = feature.source.partition(".")[2]
    if feature.kind == "sequence":
        kind = field.partition(".")[0]
        return aggregates[kind].recent_ids() if kind in aggregates else [0] * RING_SIZE
    value = getattr(event, field, None)
    return [0 if value is None else hash_id(f"{field}={value}")]


def process_batch(
    profiles: Mapping[str, Mapping[str, bytes]], arrivals: Sequence[Arrival], encoder: PlainEncoder
) -> dict[str, dict[str, bytes]]:
    """Encode and fold a batch; returns the slices to write."""
    slices = {
        entity: {source: unpack_slice(source, record) for source, record in records.items()}
        for entity, records in profiles.items()
    }
    written: dict[str, dict[str, None]] = {}
    for arrival in arrivals:
        encoder.encode(arrival.event, slices)
        fold_event(slices, arrival)
        for entity, _ in extract_updates(arrival.event):
            written.setdefault(entity, {})[arrival.source] = None
    return {
        entity: {source: pack_slice(slices[entity][source]) for source in records}
        for entity, records in written.items()
    }
