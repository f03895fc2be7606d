"""Folding: how a batch of events changes slices, and what each event knew before it.

Written as one event at a time, because that is what the promise says (the second order of a burst sees the first, on
every device, card and item they share), and compiled by numba, because that is fast: about the cost of a NumPy call per
event, whatever share of the batch one hot entity has. `docs/decisions/` tells why this replaced segmented sums.
Everything is integer arithmetic; only what readers derive (`look`) is floating point.
"""

from typing import Final, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from contract.profiles.entity_updates import LINK_SLOTS, LINKED_MAX
from contract.profiles.erasures import ErasedIds
from contract.profiles.record import (
    AGGREGATES,
    ENTITY_KINDS,
    FAMILIES,
    FAMILY_STATS,
    HORIZON_MS,
    JUDGED_TASKS,
    LAYOUT,
    RING_SIZE,
    WIDTHS_MS,
)

TS, OFFSET, FAMILY, EVENT, TASK, BAD = range(6)
ORDERS: Final = FAMILIES.index("orders")
JUDGEMENTS: Final = FAMILIES.index("judgements")
USER: Final = ENTITY_KINDS.index("user")
ITEM: Final = ENTITY_KINDS.index("item")
FRAUD: Final = JUDGED_TASKS.index("fraud")
STATS_PER_FAMILY: Final = len(FAMILY_STATS)
LINKS_START: Final = len(FAMILIES) * STATS_PER_FAMILY
JUDGED_START: Final = LINKS_START + 4
COLUMNS: Final = len(AGGREGATES)
WINDOWS_COUNT: Final = len(WIDTHS_MS)
TASKS_COUNT: Final = len(JUDGED_TASKS)
DAY_S: Final = 86_400

jit = numba.njit(cache=True, nogil=True)


class FoldState(NamedTuple):
    """S slices of E entities; `order[start[e] : start[e + 1]]` are those of entity `e`, in the order of their names."""

    slices: npt.NDArray[np.void]  # (S) of RECORD
    family: npt.NDArray[np.int64]  # (S)
    order: npt.NDArray[np.int64]  # (S)
    start: npt.NDArray[np.int64]  # (E+1)
    gone: ErasedIds  # erased people, whom no list of links names


class Scratch(NamedTuple):
    """Room to work in, so that nothing is allocated for each entity: links of one entity, and one point in time."""

    ids: npt.NDArray[np.uint64]
    seen: npt.NDArray[np.int64]
    table: npt.NDArray[np.int64]  # a hash table: 1 + index into `ids`, 0 for nothing
    cell: npt.NDArray[np.int64]
    left: npt.NDArray[np.float64]


def make_scratch(state: FoldState) -> Scratch:
    """Room for the entity with the most slices."""
    ids_max = int(np.diff(state.start).max(initial=0)) * RING_SIZE
    windows = np.zeros(WINDOWS_COUNT, np.int64), np.zeros(WINDOWS_COUNT, np.float64)
    return Scratch(
        np.zeros(ids_max, np.uint64),
        np.zeros(ids_max, np.int64),
        np.zeros(4 * ids_max + 2 * RING_SIZE, np.int64),
        *windows,
    )


@jit
def reset_slice(record, offset):  # type: ignore[no-untyped-def]
    """Make a record new, keeping nothing but the position in the log."""
    record.layout, record.offset = LAYOUT, offset
    record.count, record.sum, record.first_ms, record.last_ms, record.place = 0, 0, 0, 0, 0
    record.judged[:] = 0
    record.orders[:] = 0
    for slot in range(2):
        record.links[slot].id[:] = 0
        record.links[slot].seen_s[:] = 0
    for w in range(WINDOWS_COUNT):
        cells = record.windows[w]
        cells.index, cells.count[:], cells.sum[:] = 0, 0, 0


@jit
def count_event(record, ts_ms, amount):  # type: ignore[no-untyped-def]
    """Add one event and its amount to the totals and to the cells of its time."""
    if record.count == 0 or ts_ms < record.first_ms:
        record.first_ms = ts_ms
    record.last_ms = max(record.last_ms, ts_ms)
    record.count += np.uint32(1)
    record.sum += amount
    for w in range(WINDOWS_COUNT):
        cells, index = record.windows[w], ts_ms // WIDTHS_MS[w]
        ahead = index - np.int64(cells.index)
        if ahead > 0:
            cells.count[1] = cells.count[0] if ahead == 1 else 0
            cells.sum[1] = cells.sum[0] if ahead == 1 else 0
            cells.count[0], cells.sum[0], cells.index = 0, 0, index
        if ahead >= -1:  # an event from before the previous cell is in the totals only
            cell = 1 if ahead == -1 else 0
            cells.count[cell] += np.uint32(1)
            cells.sum[cell] += amount


@jit
def add_link(links, ident, seen_s):  # type: ignore[no-untyped-def]
    """Remember that `ident` was seen: the most recent distinct ids stay, ties by id, free places (0, 0) go first."""
    oldest = 0
    for k in range(RING_SIZE):
        if links.id[k] == ident:
            links.seen_s[k] = max(np.int64(links.seen_s[k]), seen_s)
            return
        if (links.seen_s[k], links.id[k]) < (links.seen_s[oldest], links.id[oldest]):
            oldest = k
    if (seen_s, ident) > (np.int64(links.seen_s[oldest]), links.id[oldest]):
        links.id[oldest], links.seen_s[oldest] = ident, seen_s


@jit
def fold_update(record, event_columns, amount):  # type: ignore[no-untyped-def]
    """Fold one event into one slice; whether it counted. An offset at or below the slice's own is already in it."""
    if event_columns[OFFSET] <= record.offset:
        return False
    record.offset = event_columns[OFFSET]
    if event_columns[TS] - record.last_ms > HORIZON_MS:
        reset_slice(record, event_columns[OFFSET])
    if event_columns[FAMILY] == ORDERS:
        for k in range(RING_SIZE):
            if record.orders[k] == np.uint64(event_columns[EVENT]):
                return False
        record.orders[record.place % RING_SIZE] = event_columns[EVENT]
        record.place = (record.place + 1) % RING_SIZE
    if event_columns[FAMILY] == JUDGEMENTS:
        if event_columns[TASK] < 0:
            return False
        record.judged[event_columns[TASK], event_columns[BAD]] += np.uint32(1)
        record.last_ms = max(record.last_ms, event_columns[TS])  # whatever the task: the entity was not silent
        if event_columns[TASK] != FRAUD:
            return False
        amount = event_columns[BAD]
    count_event(record, event_columns[TS], amount)
    return True


@jit
def add_links(record, link_slots, entity, kind, ident, seen_s):  # type: ignore[no-untyped-def]
    """Link a slice with those of an event's entities that its kind is linked with; of items with the last ones."""
    items = 0
    for u in range(len(entity) - 1, -1, -1):
        other_kind = kind[entity[u]]
        items += other_kind == ITEM
        if link_slots[other_kind] >= 0 and (other_kind != ITEM or items <= RING_SIZE):
            add_link(record.links[link_slots[other_kind]], ident[entity[u]], seen_s)


@jit
def add_windows(record, cell, left, out):  # type: ignore[no-untyped-def]
    """Add a slice's sliding windows, interpolated: `left` is the share of each previous cell that is still inside."""
    for w in range(WINDOWS_COUNT):
        cells = record.windows[w]
        behind = cell[w] - np.int64(cells.index)
        if behind == 0:
            out[2 * w] += cells.count[0] + left[w] * cells.count[1]
            out[2 * w + 1] += cells.sum[0] + left[w] * cells.sum[1]
        elif behind == 1:
            out[2 * w] += left[w] * cells.count[0]
            out[2 * w + 1] += left[w] * cells.sum[0]
        elif behind == -1:
            out[2 * w] += cells.count[1]
            out[2 * w + 1] += cells.sum[1]


@jit
def add_totals(record, now_ms, out):  # type: ignore[no-untyped-def]
    """Add a slice's count, age and gap; of several slices the greatest age and the least gap stand."""
    age_s, gap_s = (now_ms - record.first_ms) / 1000.0, (now_ms - record.last_ms) / 1000.0
    out[0] += record.count
    out[1] = age_s if np.isnan(out[1]) else max(out[1], age_s)
    out[2] = gap_s if np.isnan(out[2]) else min(out[2], gap_s)


@jit
def gather_links(slices, own_slices, slot, scratch):  # type: ignore[no-untyped-def]
    """The distinct ids of the slices `own` and when each was seen last, into `scratch`; returns how many they are."""
    ids, last_seen_s, table, distinct = scratch.ids, scratch.seen, scratch.table, 0
    size = 2 * RING_SIZE
    while size < 2 * RING_SIZE * len(own_slices):
        size *= 2
    for k in range(np.uint64(size)):  # open addressing: the ids are hashes already
        table[k] = 0
    for s in own_slices:
        links = slices[s].links[slot]
        for k in range(RING_SIZE):
            ident, seen_s = links.id[k], np.int64(links.seen_s[k])
            if ident == 0:
                continue
            position = np.int64(ident) & (size - 1)
            while table[position] > 0 and ids[table[position] - 1] != ident:
                position = (position + 1) & (size - 1)
            if table[position] == 0:
                ids[distinct], last_seen_s[distinct] = ident, seen_s
                distinct += 1
                table[position] = distinct
            elif seen_s > last_seen_s[table[position] - 1]:
                last_seen_s[table[position] - 1] = seen_s
    return distinct


@jit
def is_erased(erased, ident, seen_s):  # type: ignore[no-untyped-def]
    """Whether an id is that of an erased person who was not seen again later."""
    position = np.searchsorted(erased.idents, ident)
    return position < len(erased.idents) and erased.idents[position] == ident and seen_s <= erased.until_s[position]


@jit
def select_latest(ids, last_seen_s, erased, recent):  # type: ignore[no-untyped-def]
    """Fill `recent` (RING) with the ids that were seen last, newest first, of two seen at once the greater one."""
    filled = 0
    for k in range(len(ids)):  # `recent` holds indices while it is being sorted
        if len(erased.idents) > 0 and is_erased(erased, ids[k], last_seen_s[k]):
            continue
        position = filled
        while position > 0 and (last_seen_s[k], ids[k]) > (
            last_seen_s[recent[position - 1]],
            ids[recent[position - 1]],
        ):
            position -= 1
        if position < RING_SIZE:
            filled = min(filled + 1, RING_SIZE)
            for j in range(filled - 1, position, -1):
                recent[j] = recent[j - 1]
            recent[position] = k
    for j in range(filled):
        recent[j] = ids[recent[j]]


@jit
def count_links(slices, own_slices, now_s, erased, scratch, out, recent):  # type: ignore[no-untyped-def]
    """How many distinct ids were seen within a day, and at all, in either ring; `recent` gets the latest first ones."""
    for slot in range(2):
        distinct = gather_links(slices, own_slices, slot, scratch)
        for k in range(distinct):
            out[2 * slot] += now_s - scratch.seen[k] <= DAY_S
        out[2 * slot + 1] = distinct
        if slot == 0:
            select_latest(scratch.ids[:distinct], scratch.seen[:distinct], erased, recent)


@jit
def set_time(scratch, now_ms):  # type: ignore[no-untyped-def]
    """Where `now_ms` lies in the cells of each window."""
    for w in range(WINDOWS_COUNT):
        scratch.cell[w] = now_ms // WIDTHS_MS[w]
        scratch.left[w] = 1.0 - (now_ms % WIDTHS_MS[w]) / WIDTHS_MS[w]


@jit
def read_entity(state, e, now_ms, scratch, out, recent):  # type: ignore[no-untyped-def]
    """What entity `e` is at the time that is set: `out` (COLUMNS) and `recent` (RING), both zeroed by the caller."""
    for f in range(len(FAMILIES)):
        out[f * STATS_PER_FAMILY + STATS_PER_FAMILY - 2] = np.nan
        out[f * STATS_PER_FAMILY + STATS_PER_FAMILY - 1] = np.nan
    own_slices = state.order[state.start[e] : state.start[e + 1]]
    for s in own_slices:
        record, column = state.slices[s], state.family[s] * STATS_PER_FAMILY
        for task in range(TASKS_COUNT):
            out[JUDGED_START + 2 * task] += record.judged[task, 0]
            out[JUDGED_START + 2 * task + 1] += record.judged[task, 1]
        if record.count > 0:
            add_windows(record, scratch.cell, scratch.left, out[column:])
            add_totals(record, now_ms, out[column + STATS_PER_FAMILY - 3 :])
    count_links(state.slices, own_slices, now_ms // 1000, state.gone, scratch, out[LINKS_START:], recent)


@jit
def fold_batch(state, scratch, start, entity, own_slice, is_folded, amount, event_columns, kind, id_hash):  # type: ignore[no-untyped-def]  # noqa: PLR0913 - the columns of `Touches`
    """Fold N arrivals in order. Returns what each touch knew before its arrival: (T, COLUMNS) and (T, RING)."""
    before = np.zeros((len(entity), COLUMNS), np.float64)
    recent = np.zeros((len(entity), RING_SIZE), np.uint64)
    for i in range(len(event_columns)):
        a, b = start[i], start[i + 1]
        set_time(scratch, event_columns[i, TS])
        for t in range(a, b):
            read_entity(state, entity[t], event_columns[i, TS], scratch, before[t], recent[t])
        for t in range(a, b):
            if is_folded[t] and fold_update(state.slices[own_slice[t]], event_columns[i], amount[t]):
                linked = entity[a:b] if kind[entity[t]] == USER else entity[a : min(b, a + LINKED_MAX)]
                link_slots = LINK_SLOTS[event_columns[i, FAMILY], kind[entity[t]]]
                add_links(state.slices[own_slice[t]], link_slots, linked, kind, id_hash, event_columns[i, TS] // 1000)
    return before, recent


@jit
def read_entities(state, scratch, entities, now_ms):  # type: ignore[no-untyped-def]
    """What the given entities are, each at its own `now_ms`: (M, COLUMNS) and (M, RING)."""
    out = np.zeros((len(entities), COLUMNS), np.float64)
    recent = np.zeros((len(entities), RING_SIZE), np.uint64)
    for m in range(len(entities)):
        set_time(scratch, now_ms[m])
        read_entity(state, entities[m], now_ms[m], scratch, out[m], recent[m])
    return out, recent


@jit
def assign_slices(entities, sources, entity, source, start, update_entity, arrival_source):  # type: ignore[no-untyped-def]
    """Find the slice of every (entity, source) pair that exists or is touched, new ones behind those that exist.

    Returns which slice each touch writes (T), the slices entity by entity in the order of sources (S), where each
    entity's begin (E+1), and the entity and the source of each slice (S).
    """
    slice_number = np.full((entities, sources), -1, np.int64)
    for s in range(len(entity)):
        slice_number[entity[s], source[s]] = s
    own_slice, count = np.zeros(len(update_entity), np.int64), len(entity)
    for i in range(len(start) - 1):
        for t in range(start[i], start[i + 1]):
            if slice_number[update_entity[t], arrival_source[i]] < 0:
                slice_number[update_entity[t], arrival_source[i]] = count
                count += 1
            own_slice[t] = slice_number[update_entity[t], arrival_source[i]]
    order, starts = np.zeros(count, np.int64), np.zeros(entities + 1, np.int64)
    entity_of, source_of, position = np.zeros(count, np.int64), np.zeros(count, np.int64), 0
    for e in range(entities):
        for k in range(sources):
            s = slice_number[e, k]
            if s >= 0:
                order[position], entity_of[s], source_of[s] = s, e, k
                position += 1
        starts[e + 1] = position
    return own_slice, order, starts, entity_of, source_of


Aggregates = npt.NDArray[np.float64]
