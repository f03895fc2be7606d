"""Folding: how a batch of events changes slices, and the aggregates before each event.

Events are folded one at a time, because the second order of a burst must see the first, on every device, card and item
that they share. The loop is compiled by numba: about the cost of a NumPy call per event, whatever share of the batch
one hot entity has. `docs/decisions/` explains why this replaced segmented sums. Everything is integer arithmetic; only
the aggregates that readers derive (`read_entity`) are floating point.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.compilation import jit, jit_in_place
from contract.profiles.entity_updates import LINKED_MAX, UpdateBatch
from contract.profiles.erasures import ErasedIds
from contract.profiles.link_masks import IDENT_BITS, MASKED, mask_ident
from contract.profiles.record import (
    AGGREGATES,
    ENTITY_KINDS,
    FAMILIES,
    FAMILY_STATS,
    HORIZON_MS,
    JUDGED_TASKS,
    LAYOUT,
    LINK_STATS,
    RING_SIZE,
    WIDTHS_MS,
)

TS, OFFSET, FAMILY, EVENT, TASK, BAD = range(6)  # columns of an event; see `encode_event`
ORDERS: Final = FAMILIES.index("orders")
JUDGEMENTS: Final = FAMILIES.index("judgements")
USER: Final = ENTITY_KINDS.index("user")
ITEM: Final = ENTITY_KINDS.index("item")
FRAUD: Final = JUDGED_TASKS.index("fraud")
# Where the aggregates are: those of a family from the family's first column on, the others from their own first one.
STATS_PER_FAMILY: Final = len(FAMILY_STATS)
COUNT, AGE_S, GAP_S = FAMILY_STATS.index("count"), FAMILY_STATS.index("age_s"), FAMILY_STATS.index("gap_s")
WINDOW_COUNT, WINDOW_SUM, STATS_PER_WINDOW = 0, 1, 2
LINKS_START: Final = AGGREGATES.index(LINK_STATS[0])
LINKS_1D, LINKS_ALL, STATS_PER_LINKS = 0, 1, 2
JUDGED_START: Final = AGGREGATES.index(f"{JUDGED_TASKS[0]}.good")
JUDGED_GOOD, JUDGED_BAD, STATS_PER_TASK = 0, 1, 2
COLUMNS: Final = len(AGGREGATES)
WINDOWS_COUNT: Final = len(WIDTHS_MS)
TASKS_COUNT: Final = len(JUDGED_TASKS)
DAY_S: Final = 86_400

Aggregates = npt.NDArray[np.float64]


class FoldState(NamedTuple):
    """S slices of E entities; `order[start[e] : start[e + 1]]` are those of entity `e`, in the order of sources."""

    slices: npt.NDArray[np.void]  # (S) of RECORD
    family: npt.NDArray[np.int64]  # (S)
    order: npt.NDArray[np.int64]  # (S)
    start: npt.NDArray[np.int64]  # (E+1)
    erased: ErasedIds  # erased users, left out of all lists of links


class Scratch(NamedTuple):
    """Buffers reused for each entity, so that the loop allocates nothing: its links, and one point in time."""

    ids: npt.NDArray[np.uint64]  # distinct linked ids
    seen: npt.NDArray[np.int64]  # when each was seen last, in seconds
    table: npt.NDArray[np.int64]  # a hash table: 1 + index into `ids`, 0 for a free slot
    cell: npt.NDArray[np.int64]  # the current cell of each window
    left: npt.NDArray[np.float64]  # the share of each previous cell that is still inside the window


def make_scratch(state: FoldState) -> Scratch:
    """Buffers for the entity with the most slices."""
    ids_max = int(np.diff(state.start).max(initial=0)) * RING_SIZE
    windows = np.zeros(WINDOWS_COUNT, np.int64), np.zeros(WINDOWS_COUNT, np.float64)
    return Scratch(
        np.zeros(ids_max, np.uint64),
        np.zeros(ids_max, np.int64),
        np.zeros(4 * ids_max + 2 * RING_SIZE, np.int64),
        *windows,
    )


@jit_in_place
def reset_slice(record, offset):  # type: ignore[no-untyped-def]
    """Clear a record, keeping only the offset in the log."""
    record.layout, record.offset = LAYOUT, offset
    record.count = 0
    record.sum = 0
    record.first_ms = 0
    record.last_ms = 0
    record.place = 0
    record.judged[:] = 0
    record.orders[:] = 0
    for slot in range(2):
        record.links[slot].id[:] = 0
        record.links[slot].seen_s[:] = 0
    for w in range(WINDOWS_COUNT):
        cells = record.windows[w]
        cells.index = 0
        cells.count[:] = 0
        cells.sum[:] = 0


@jit_in_place
def count_event(record, ts_ms, amount):  # type: ignore[no-untyped-def]
    """Add one event and its amount to the totals and to the cells of its time."""
    if record.count == 0 or ts_ms < record.first_ms:
        record.first_ms = ts_ms
    record.last_ms = max(record.last_ms, ts_ms)
    record.count += np.uint32(1)
    record.sum += amount
    for w in range(WINDOWS_COUNT):
        cells = record.windows[w]
        index = ts_ms // WIDTHS_MS[w]
        ahead = index - np.int64(cells.index)
        if ahead > 0:
            cells.count[1] = cells.count[0] if ahead == 1 else 0
            cells.sum[1] = cells.sum[0] if ahead == 1 else 0
            cells.count[0] = 0
            cells.sum[0] = 0
            cells.index = index
        if ahead >= -1:  # an event from before the previous cell is in the totals only
            cell = 1 if ahead == -1 else 0
            cells.count[cell] += np.uint32(1)
            cells.sum[cell] += amount


@jit_in_place
def add_link(links, ident, seen_s, until_s):  # type: ignore[no-untyped-def]
    """Add a link: the most recent distinct ids stay, ties broken by id; free slots (0, 0) are replaced first.

    `until_s`: the last erased second of a user, -1 for another entity. Up to it the ring has the masked id, in the slot
    and with the rank of the id: so masking a ring later gives the same bytes.
    """
    masked = mask_ident(ident)
    oldest = 0
    for k in range(RING_SIZE):
        if links.id[k] == ident or (until_s >= 0 and links.id[k] == masked):
            links.seen_s[k] = max(np.int64(links.seen_s[k]), seen_s)
            links.id[k] = masked if np.int64(links.seen_s[k]) <= until_s else ident
            return
        if (links.seen_s[k], links.id[k] & IDENT_BITS) < (links.seen_s[oldest], links.id[oldest] & IDENT_BITS):
            oldest = k
    if (seen_s, ident) > (np.int64(links.seen_s[oldest]), links.id[oldest] & IDENT_BITS):
        links.id[oldest], links.seen_s[oldest] = (masked if seen_s <= until_s else ident), seen_s


@jit_in_place
def fold_update(record, event_columns, amount):  # type: ignore[no-untyped-def]
    """Fold one event into one slice; returns whether it counted. Offsets up to the slice's own are folded already."""
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
        record.last_ms = max(record.last_ms, event_columns[TS])  # for every task: the entity was active
        if event_columns[TASK] != FRAUD:
            return False
        amount = event_columns[BAD]
    count_event(record, event_columns[TS], amount)
    return True


@jit_in_place
def add_links(record, link_slots, entity, kind, ident, seen_s, until_s):  # type: ignore[no-untyped-def]
    """Link a slice with the event's entities of the kinds that it is linked with; of many items, with the last ones."""
    items = 0
    for u in range(len(entity) - 1, -1, -1):
        other_kind = kind[entity[u]]
        items += other_kind == ITEM
        if link_slots[other_kind] >= 0 and (other_kind != ITEM or items <= RING_SIZE):
            add_link(record.links[link_slots[other_kind]], ident[entity[u]], seen_s, until_s[entity[u]])


@jit_in_place
def add_windows(record, cell, left, out):  # type: ignore[no-untyped-def]
    """Add a slice's sliding windows, interpolated: `left` is the share of each previous cell that is still inside."""
    for w in range(WINDOWS_COUNT):
        cells = record.windows[w]
        behind = cell[w] - np.int64(cells.index)
        if behind == 0:
            out[STATS_PER_WINDOW * w + WINDOW_COUNT] += cells.count[0] + left[w] * cells.count[1]
            out[STATS_PER_WINDOW * w + WINDOW_SUM] += cells.sum[0] + left[w] * cells.sum[1]
        elif behind == 1:
            out[STATS_PER_WINDOW * w + WINDOW_COUNT] += left[w] * cells.count[0]
            out[STATS_PER_WINDOW * w + WINDOW_SUM] += left[w] * cells.sum[0]
        elif behind == -1:
            out[STATS_PER_WINDOW * w + WINDOW_COUNT] += cells.count[1]
            out[STATS_PER_WINDOW * w + WINDOW_SUM] += cells.sum[1]


@jit_in_place
def add_totals(record, now_ms, out):  # type: ignore[no-untyped-def]
    """Add a slice's count, age and gap: over several slices the greatest age and the least gap."""
    age_s = (now_ms - record.first_ms) / 1000.0
    gap_s = (now_ms - record.last_ms) / 1000.0
    out[COUNT] += record.count
    out[AGE_S] = age_s if np.isnan(out[AGE_S]) else max(out[AGE_S], age_s)
    out[GAP_S] = gap_s if np.isnan(out[GAP_S]) else min(out[GAP_S], gap_s)


@jit_in_place
def gather_links(slices, own_slices, slot, scratch):  # type: ignore[no-untyped-def]
    """Write the distinct ids of `own_slices` and when each was seen last to `scratch`; returns their number."""
    ids, last_seen_s, table = scratch.ids, scratch.seen, scratch.table
    distinct = 0
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


@jit_in_place
def is_erased(erased, ident, seen_s):  # type: ignore[no-untyped-def]
    """Whether an id is that of an erased user who was not seen after the erasure, masked or not yet."""
    if ident >= MASKED:
        return True
    position = np.searchsorted(erased.idents, ident)
    return position < len(erased.idents) and erased.idents[position] == ident and seen_s <= erased.until_s[position]


@jit_in_place
def select_latest(ids, last_seen_s, erased, recent):  # type: ignore[no-untyped-def]
    """Fill `recent` (RING) with the ids that were seen last, newest first, ties by the greater id."""
    filled = 0
    for k in range(len(ids)):  # `recent` holds indices while it is being sorted
        if is_erased(erased, ids[k], last_seen_s[k]):
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


@jit_in_place
def count_links(slices, own_slices, now_s, erased, scratch, out, recent):  # type: ignore[no-untyped-def]
    """Count the distinct ids of each ring, within a day and in all; `recent` gets the latest first links."""
    for slot in range(2):
        distinct = gather_links(slices, own_slices, slot, scratch)
        for k in range(distinct):
            out[STATS_PER_LINKS * slot + LINKS_1D] += now_s - scratch.seen[k] <= DAY_S
        out[STATS_PER_LINKS * slot + LINKS_ALL] = distinct
        if slot == 0:
            select_latest(scratch.ids[:distinct], scratch.seen[:distinct], erased, recent)


@jit_in_place
def set_time(scratch, now_ms):  # type: ignore[no-untyped-def]
    """Set the point in time of `scratch`: where `now_ms` lies in the cells of each window."""
    for w in range(WINDOWS_COUNT):
        scratch.cell[w] = now_ms // WIDTHS_MS[w]
        scratch.left[w] = 1.0 - (now_ms % WIDTHS_MS[w]) / WIDTHS_MS[w]


@jit_in_place
def read_entity(state, e, now_ms, scratch, out, recent):  # type: ignore[no-untyped-def]
    """The aggregates of entity `e` at the time of `scratch`: `out` (COLUMNS), `recent` (RING), zeroed by the caller."""
    for f in range(len(FAMILIES)):
        out[f * STATS_PER_FAMILY + AGE_S] = np.nan
        out[f * STATS_PER_FAMILY + GAP_S] = np.nan
    own_slices = state.order[state.start[e] : state.start[e + 1]]
    for s in own_slices:
        record = state.slices[s]
        family_column = state.family[s] * STATS_PER_FAMILY
        for task in range(TASKS_COUNT):
            out[JUDGED_START + STATS_PER_TASK * task + JUDGED_GOOD] += record.judged[task, 0]
            out[JUDGED_START + STATS_PER_TASK * task + JUDGED_BAD] += record.judged[task, 1]
        if record.count > 0:
            add_windows(record, scratch.cell, scratch.left, out[family_column:])
            add_totals(record, now_ms, out[family_column:])
    count_links(state.slices, own_slices, now_ms // 1000, state.erased, scratch, out[LINKS_START:], recent)


@jit_in_place
def fold_arrivals(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - the columns of `UpdateBatch`
    state, scratch, out, start, entity, own_slice, is_folded, amount, event_columns, kind, id_hash, until_s, link_slots
):
    """Fold N arrivals in order. `out`: what `fold_batch` returns, zeroed."""
    before, recent, counted = out
    for i in range(len(event_columns)):
        a, b = start[i], start[i + 1]
        set_time(scratch, event_columns[i, TS])
        for t in range(a, b):
            read_entity(state, entity[t], event_columns[i, TS], scratch, before[t], recent[t])
        for t in range(a, b):
            if is_folded[t] and fold_update(state.slices[own_slice[t]], event_columns[i], amount[t]):
                counted[t] = 2 if state.slices[own_slice[t]].count == 1 else 1
                linked = entity[a:b] if kind[entity[t]] == USER else entity[a : min(b, a + LINKED_MAX)]
                own_slots = link_slots[event_columns[i, FAMILY], kind[entity[t]]]
                seen_s = event_columns[i, TS] // 1000
                add_links(state.slices[own_slice[t]], own_slots, linked, kind, id_hash, seen_s, until_s)


def fold_batch(
    state: FoldState, updates: UpdateBatch, own_slice: npt.NDArray[np.int64], is_folded: npt.NDArray[np.bool_]
) -> tuple[Aggregates, npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Fold a batch. Returns each update's aggregates before its arrival: (T, COLUMNS) and (T, RING).

    Also what it did with each update (T): 0: it does not count, 1: it counts, 2: its slice begins with it.
    """
    t, count = updates, len(updates.entity)
    out = np.zeros((count, COLUMNS)), np.zeros((count, RING_SIZE), np.uint64), np.zeros(count, np.uint8)
    columns = t.amount, t.event_columns, t.kind, t.id_hash, t.erased_until_s, t.kinds.link_slots
    fold_arrivals(state, make_scratch(state), out, t.start, t.entity, own_slice, is_folded, *columns)
    return out


@jit_in_place
def read_each(state, scratch, out, entities, now_ms):  # type: ignore[no-untyped-def]
    """`out`: what `read_entities` returns, zeroed."""
    before, recent = out
    for m in range(len(entities)):
        set_time(scratch, now_ms[m])
        read_entity(state, entities[m], now_ms[m], scratch, before[m], recent[m])


def read_entities(
    state: FoldState, entities: npt.NDArray[np.int64], now_ms: npt.NDArray[np.int64]
) -> tuple[Aggregates, npt.NDArray[np.uint64]]:
    """The aggregates of M entities, each at its own `now_ms`: (M, COLUMNS) and (M, RING)."""
    out = np.zeros((len(entities), COLUMNS)), np.zeros((len(entities), RING_SIZE), np.uint64)
    read_each(state, make_scratch(state), out, entities, now_ms)
    return out


@jit
def assign_slices(entities, sources, entity, source, start, update_entity, arrival_source):  # type: ignore[no-untyped-def]
    """Number the slice of every (entity, source) pair that exists or is updated, new ones after existing ones.

    Returns the slice that each update writes (T), the slices entity by entity in the order of sources (S), the start
    of each entity in that order (E+1), and the entity and the source of each slice (S).
    """
    slice_number = np.full((entities, sources), -1, np.int64)
    for s in range(len(entity)):
        slice_number[entity[s], source[s]] = s
    own_slice = np.zeros(len(update_entity), np.int64)
    count = len(entity)
    for i in range(len(start) - 1):
        for t in range(start[i], start[i + 1]):
            if slice_number[update_entity[t], arrival_source[i]] < 0:
                slice_number[update_entity[t], arrival_source[i]] = count
                count += 1
            own_slice[t] = slice_number[update_entity[t], arrival_source[i]]
    order, starts = np.zeros(count, np.int64), np.zeros(entities + 1, np.int64)
    entity_of, source_of = np.zeros(count, np.int64), np.zeros(count, np.int64)
    position = 0
    for e in range(entities):
        for k in range(sources):
            s = slice_number[e, k]
            if s >= 0:
                order[position] = s
                entity_of[s] = e
                source_of[s] = k
                position += 1
        starts[e + 1] = position
    return own_slice, order, starts, entity_of, source_of
