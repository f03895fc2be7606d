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

from contract.erasures import Gone
from contract.profiles import (
    AGGREGATES,
    ENTITY_KINDS,
    FAMILIES,
    FAMILY_STATS,
    HORIZON_MS,
    JUDGED_TASKS,
    LAYOUT,
    RING,
    WIDTHS_MS,
)
from contract.touches import NEAR, RINGS

TS, OFFSET, FAMILY, EVENT, TASK, BAD = range(6)
ORDERS: Final = FAMILIES.index("orders")
JUDGEMENTS: Final = FAMILIES.index("judgements")
USER: Final = ENTITY_KINDS.index("user")
ITEM: Final = ENTITY_KINDS.index("item")
FRAUD: Final = JUDGED_TASKS.index("fraud")
STATS_PER_FAMILY: Final = len(FAMILY_STATS)
LINKS_AT: Final = len(FAMILIES) * STATS_PER_FAMILY
JUDGED_AT: Final = LINKS_AT + 4
COLUMNS: Final = len(AGGREGATES)
WINDOWS_COUNT: Final = len(WIDTHS_MS)
TASKS_COUNT: Final = len(JUDGED_TASKS)
DAY_S: Final = 86_400

compiled = numba.njit(cache=True, nogil=True)


class State(NamedTuple):
    """S slices of E entities; `order[start[e] : start[e + 1]]` are those of entity `e`, in the order of their names."""

    slices: npt.NDArray[np.void]  # (S) of RECORD
    family: npt.NDArray[np.int64]  # (S)
    order: npt.NDArray[np.int64]  # (S)
    start: npt.NDArray[np.int64]  # (E+1)
    gone: Gone  # erased people, whom no list of links names


class Scratch(NamedTuple):
    """Room to work in, so that nothing is allocated for each entity: links of one entity, and one point in time."""

    ids: npt.NDArray[np.uint64]
    seen: npt.NDArray[np.int64]
    table: npt.NDArray[np.int64]  # a hash table: 1 + index into `ids`, 0 for nothing
    cell: npt.NDArray[np.int64]
    left: npt.NDArray[np.float64]


def scratch(state: State) -> Scratch:
    """Room for the entity with the most slices."""
    most = int(np.diff(state.start).max(initial=0)) * RING
    windows = np.zeros(WINDOWS_COUNT, np.int64), np.zeros(WINDOWS_COUNT, np.float64)
    return Scratch(
        np.zeros(most, np.uint64), np.zeros(most, np.int64), np.zeros(4 * most + 2 * RING, np.int64), *windows
    )


@compiled
def begin(record, offset):  # type: ignore[no-untyped-def]
    """Make a record new, keeping nothing but the position in the log."""
    record.layout, record.offset = LAYOUT, offset
    record.count, record.sum, record.first_ms, record.last_ms, record.place = 0, 0, 0, 0, 0
    record.judged[:] = 0
    record.orders[:] = 0
    for ring in range(2):
        record.links[ring].id[:] = 0
        record.links[ring].seen_s[:] = 0
    for w in range(WINDOWS_COUNT):
        cells = record.windows[w]
        cells.index, cells.count[:], cells.sum[:] = 0, 0, 0


@compiled
def count(record, ts_ms, amount):  # type: ignore[no-untyped-def]
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


@compiled
def link(ring, ident, seen_s):  # type: ignore[no-untyped-def]
    """Remember that `ident` was seen: the most recent distinct ids stay, ties by id, free places (0, 0) go first."""
    oldest = 0
    for k in range(RING):
        if ring.id[k] == ident:
            ring.seen_s[k] = max(np.int64(ring.seen_s[k]), seen_s)
            return
        if (ring.seen_s[k], ring.id[k]) < (ring.seen_s[oldest], ring.id[oldest]):
            oldest = k
    if (seen_s, ident) > (np.int64(ring.seen_s[oldest]), ring.id[oldest]):
        ring.id[oldest], ring.seen_s[oldest] = ident, seen_s


@compiled
def fold_touch(record, head, amount):  # type: ignore[no-untyped-def]
    """Fold one event into one slice; whether it counted. An offset at or below the slice's own is already in it."""
    if head[OFFSET] <= record.offset:
        return False
    record.offset = head[OFFSET]
    if head[TS] - record.last_ms > HORIZON_MS:
        begin(record, head[OFFSET])
    if head[FAMILY] == ORDERS:
        for k in range(RING):
            if record.orders[k] == np.uint64(head[EVENT]):
                return False
        record.orders[record.place % RING] = head[EVENT]
        record.place = (record.place + 1) % RING
    if head[FAMILY] == JUDGEMENTS:
        if head[TASK] < 0:
            return False
        record.judged[head[TASK], head[BAD]] += np.uint32(1)
        record.last_ms = max(record.last_ms, head[TS])  # whatever the task: the entity was not silent
        if head[TASK] != FRAUD:
            return False
        amount = head[BAD]
    count(record, head[TS], amount)
    return True


@compiled
def link_touched(record, ring_of, entity, kind, ident, seen_s):  # type: ignore[no-untyped-def]
    """Link a slice with those of an event's entities that its kind is linked with; of items with the last ones."""
    items = 0
    for u in range(len(entity) - 1, -1, -1):
        other = kind[entity[u]]
        items += other == ITEM
        if ring_of[other] >= 0 and (other != ITEM or items <= RING):
            link(record.links[ring_of[other]], ident[entity[u]], seen_s)


@compiled
def look_windows(record, cell, left, out):  # type: ignore[no-untyped-def]
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


@compiled
def look_totals(record, now_ms, out):  # type: ignore[no-untyped-def]
    """Add a slice's count, age and gap; of several slices the greatest age and the least gap stand."""
    age_s, gap_s = (now_ms - record.first_ms) / 1000.0, (now_ms - record.last_ms) / 1000.0
    out[0] += record.count
    out[1] = age_s if np.isnan(out[1]) else max(out[1], age_s)
    out[2] = gap_s if np.isnan(out[2]) else min(out[2], gap_s)


@compiled
def gather_links(slices, own, ring, scratch):  # type: ignore[no-untyped-def]
    """The distinct ids of the slices `own` and when each was seen last, into `scratch`; returns how many they are."""
    ids, seen, table, distinct = scratch.ids, scratch.seen, scratch.table, 0
    size = 2 * RING
    while size < 2 * RING * len(own):
        size *= 2
    for k in range(np.uint64(size)):  # open addressing: the ids are hashes already
        table[k] = 0
    for s in own:
        links = slices[s].links[ring]
        for k in range(RING):
            ident, seen_s = links.id[k], np.int64(links.seen_s[k])
            if ident == 0:
                continue
            at = np.int64(ident) & (size - 1)
            while table[at] > 0 and ids[table[at] - 1] != ident:
                at = (at + 1) & (size - 1)
            if table[at] == 0:
                ids[distinct], seen[distinct] = ident, seen_s
                distinct += 1
                table[at] = distinct
            elif seen_s > seen[table[at] - 1]:
                seen[table[at] - 1] = seen_s
    return distinct


@compiled
def is_gone(gone, ident, seen_s):  # type: ignore[no-untyped-def]
    """Whether an id is that of an erased person who was not seen again later."""
    at = np.searchsorted(gone.idents, ident)
    return at < len(gone.idents) and gone.idents[at] == ident and seen_s <= gone.until_s[at]


@compiled
def latest(ids, seen, gone, recent):  # type: ignore[no-untyped-def]
    """Fill `recent` (RING) with the ids that were seen last, newest first, of two seen at once the greater one."""
    held = 0
    for k in range(len(ids)):  # `recent` holds indices while it is being sorted
        if len(gone.idents) > 0 and is_gone(gone, ids[k], seen[k]):
            continue
        at = held
        while at > 0 and (seen[k], ids[k]) > (seen[recent[at - 1]], ids[recent[at - 1]]):
            at -= 1
        if at < RING:
            held = min(held + 1, RING)
            for j in range(held - 1, at, -1):
                recent[j] = recent[j - 1]
            recent[at] = k
    for j in range(held):
        recent[j] = ids[recent[j]]


@compiled
def look_links(slices, own, now_s, gone, scratch, out, recent):  # type: ignore[no-untyped-def]
    """How many distinct ids were seen within a day, and at all, in either ring; `recent` gets the latest first ones."""
    for ring in range(2):
        distinct = gather_links(slices, own, ring, scratch)
        for k in range(distinct):
            out[2 * ring] += now_s - scratch.seen[k] <= DAY_S
        out[2 * ring + 1] = distinct
        if ring == 0:
            latest(scratch.ids[:distinct], scratch.seen[:distinct], gone, recent)


@compiled
def set_time(scratch, now_ms):  # type: ignore[no-untyped-def]
    """Where `now_ms` lies in the cells of each window."""
    for w in range(WINDOWS_COUNT):
        scratch.cell[w] = now_ms // WIDTHS_MS[w]
        scratch.left[w] = 1.0 - (now_ms % WIDTHS_MS[w]) / WIDTHS_MS[w]


@compiled
def look(state, e, now_ms, scratch, out, recent):  # type: ignore[no-untyped-def]
    """What entity `e` is at the time that is set: `out` (COLUMNS) and `recent` (RING), both zeroed by the caller."""
    for f in range(len(FAMILIES)):
        out[f * STATS_PER_FAMILY + STATS_PER_FAMILY - 2] = np.nan
        out[f * STATS_PER_FAMILY + STATS_PER_FAMILY - 1] = np.nan
    own = state.order[state.start[e] : state.start[e + 1]]
    for s in own:
        record, at = state.slices[s], state.family[s] * STATS_PER_FAMILY
        for task in range(TASKS_COUNT):
            out[JUDGED_AT + 2 * task] += record.judged[task, 0]
            out[JUDGED_AT + 2 * task + 1] += record.judged[task, 1]
        if record.count > 0:
            look_windows(record, scratch.cell, scratch.left, out[at:])
            look_totals(record, now_ms, out[at + STATS_PER_FAMILY - 3 :])
    look_links(state.slices, own, now_ms // 1000, state.gone, scratch, out[LINKS_AT:], recent)


@compiled
def fold_batch(state, scratch, start, entity, own, keep, amount, head, kind, ident):  # type: ignore[no-untyped-def]  # noqa: PLR0913 - the columns of `Touches`
    """Fold N arrivals in order. Returns what each touch knew before its arrival: (T, COLUMNS) and (T, RING)."""
    before = np.zeros((len(entity), COLUMNS), np.float64)
    recent = np.zeros((len(entity), RING), np.uint64)
    for i in range(len(head)):
        a, b = start[i], start[i + 1]
        set_time(scratch, head[i, TS])
        for t in range(a, b):
            look(state, entity[t], head[i, TS], scratch, before[t], recent[t])
        for t in range(a, b):
            if keep[t] and fold_touch(state.slices[own[t]], head[i], amount[t]):
                linked = entity[a:b] if kind[entity[t]] == USER else entity[a : min(b, a + NEAR)]
                ring_of = RINGS[head[i, FAMILY], kind[entity[t]]]
                link_touched(state.slices[own[t]], ring_of, linked, kind, ident, head[i, TS] // 1000)
    return before, recent


@compiled
def look_batch(state, scratch, entities, now_ms):  # type: ignore[no-untyped-def]
    """What the given entities are, each at its own `now_ms`: (M, COLUMNS) and (M, RING)."""
    out = np.zeros((len(entities), COLUMNS), np.float64)
    recent = np.zeros((len(entities), RING), np.uint64)
    for m in range(len(entities)):
        set_time(scratch, now_ms[m])
        look(state, entities[m], now_ms[m], scratch, out[m], recent[m])
    return out, recent


@compiled
def arrange(entities, sources, entity, source, start, touched, touched_source):  # type: ignore[no-untyped-def]
    """Find the slice of every (entity, source) pair that exists or is touched, new ones behind those that exist.

    Returns which slice each touch writes (T), the slices entity by entity in the order of sources (S), where each
    entity's begin (E+1), and the entity and the source of each slice (S).
    """
    place = np.full((entities, sources), -1, np.int64)
    for s in range(len(entity)):
        place[entity[s], source[s]] = s
    own, count = np.zeros(len(touched), np.int64), len(entity)
    for i in range(len(start) - 1):
        for t in range(start[i], start[i + 1]):
            if place[touched[t], touched_source[i]] < 0:
                place[touched[t], touched_source[i]] = count
                count += 1
            own[t] = place[touched[t], touched_source[i]]
    order, starts = np.zeros(count, np.int64), np.zeros(entities + 1, np.int64)
    entity_of, source_of, at = np.zeros(count, np.int64), np.zeros(count, np.int64), 0
    for e in range(entities):
        for k in range(sources):
            s = place[e, k]
            if s >= 0:
                order[at], entity_of[s], source_of[s] = s, e, k
                at += 1
        starts[e + 1] = at
    return own, order, starts, entity_of, source_of


Aggregates = npt.NDArray[np.float64]
