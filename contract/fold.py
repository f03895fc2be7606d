"""Folding: how a batch of events changes slices, and what each event knew before it.

Written as one event at a time, because that is what the promise says (the second order of a burst sees the first, on
every device, card and item they share), and compiled by numba, because that is fast: about the cost of a NumPy call per
event, whatever share of the batch one hot entity has. `docs/decisions/` tells why this replaced segmented sums.
Everything is integer arithmetic; only what readers derive (`look`) is floating point.
"""

from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from contract.profiles import AGGREGATES, FAMILIES, FAMILY_STATS, HORIZON_MS, JUDGED_TASKS, LAYOUT, RING, WIDTHS_MS

TS, OFFSET, FAMILY, EVENT, TASK, BAD = range(6)
ORDERS: Final = FAMILIES.index("orders")
JUDGEMENTS: Final = FAMILIES.index("judgements")
FRAUD: Final = JUDGED_TASKS.index("fraud")
STATS_PER_FAMILY: Final = len(FAMILY_STATS)
LINKS_AT: Final = len(FAMILIES) * STATS_PER_FAMILY
JUDGED_AT: Final = LINKS_AT + 4
COLUMNS: Final = len(AGGREGATES)
WINDOWS_COUNT: Final = len(WIDTHS_MS)
TASKS_COUNT: Final = len(JUDGED_TASKS)
DAY_S: Final = 86_400

compiled = numba.njit(cache=True, nogil=True)


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
def fold_touch(record, head, amount, link_ring, link_id):  # type: ignore[no-untyped-def]
    """Fold one event into one slice; an offset at or below the slice's own is already in it."""
    if head[OFFSET] <= record.offset:
        return
    record.offset = head[OFFSET]
    if head[TS] - record.last_ms > HORIZON_MS:
        begin(record, head[OFFSET])
    if head[FAMILY] == ORDERS:
        for k in range(RING):
            if record.orders[k] == np.uint64(head[EVENT]):
                return
        record.orders[record.place % RING] = head[EVENT]
        record.place = (record.place + 1) % RING
    if head[FAMILY] == JUDGEMENTS:
        if head[TASK] < 0:
            return
        record.judged[head[TASK], head[BAD]] += np.uint32(1)
        record.last_ms = max(record.last_ms, head[TS])  # whatever the task: the entity was not silent
        if head[TASK] != FRAUD:
            return
        amount = head[BAD]
    count(record, head[TS], amount)
    for k in range(len(link_id)):
        link(record.links[link_ring[k]], link_id[k], head[TS] // 1000)


@compiled
def look_windows(record, now_ms, out):  # type: ignore[no-untyped-def]
    """Add a slice's sliding windows at `now_ms`, interpolated: the share of the previous cell that is still inside."""
    for w in range(WINDOWS_COUNT):
        cells, width = record.windows[w], WIDTHS_MS[w]
        behind = now_ms // width - np.int64(cells.index)
        left = 1.0 - (now_ms % width) / width
        if behind == 0:
            out[2 * w] += cells.count[0] + left * cells.count[1]
            out[2 * w + 1] += cells.sum[0] + left * cells.sum[1]
        elif behind == 1:
            out[2 * w] += left * cells.count[0]
            out[2 * w + 1] += left * cells.sum[0]
        elif behind == -1:
            out[2 * w] += cells.count[1]
            out[2 * w + 1] += cells.sum[1]


@compiled
def look_links(slices, start, end, ring, now_s, recent):  # type: ignore[no-untyped-def]
    """How many distinct ids were seen within a day, and at all, over the slices; `recent` gets the latest first."""
    ids, seen = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for s in range(start, end):
        links = slices[s].links[ring]
        ids = np.concatenate((ids, links.id))
        seen = np.concatenate((seen, links.seen_s.astype(np.int64)))
    distinct, of_today = 0, 0
    while True:
        best = -1
        for k in range(len(ids)):
            if ids[k] != 0 and (best < 0 or (seen[k], ids[k]) > (seen[best], ids[best])):
                best = k
        if best < 0:
            return of_today, distinct
        if distinct < len(recent):
            recent[distinct] = ids[best]
        distinct += 1
        of_today += now_s - seen[best] <= DAY_S
        chosen = ids[best]
        for k in range(len(ids)):
            if ids[k] == chosen:
                ids[k] = 0


@compiled
def look(slices, family, start, end, now_ms, out, recent):  # type: ignore[no-untyped-def]
    """What slices `start:end` tell at `now_ms`: `out` (COLUMNS) and `recent` (RING), both zeroed by the caller."""
    for f in range(len(FAMILIES)):
        out[f * STATS_PER_FAMILY + STATS_PER_FAMILY - 2] = np.nan
        out[f * STATS_PER_FAMILY + STATS_PER_FAMILY - 1] = np.nan
    for s in range(start, end):
        record, at = slices[s], family[s] * STATS_PER_FAMILY
        for task in range(TASKS_COUNT):
            out[JUDGED_AT + 2 * task] += record.judged[task, 0]
            out[JUDGED_AT + 2 * task + 1] += record.judged[task, 1]
        if record.count == 0:
            continue
        look_windows(record, now_ms, out[at:])
        totals = out[at + STATS_PER_FAMILY - 3 :]
        age_s, gap_s = (now_ms - record.first_ms) / 1000.0, (now_ms - record.last_ms) / 1000.0
        totals[0] += record.count
        totals[1] = age_s if np.isnan(totals[1]) else max(totals[1], age_s)
        totals[2] = gap_s if np.isnan(totals[2]) else min(totals[2], gap_s)
    none = np.zeros(0, np.uint64)
    out[LINKS_AT], out[LINKS_AT + 1] = look_links(slices, start, end, 0, now_ms // 1000, recent)
    out[LINKS_AT + 2], out[LINKS_AT + 3] = look_links(slices, start, end, 1, now_ms // 1000, none)


@compiled
def fold_batch(slices, family, entity_start, own, start, entity, amount, link_start, link_ring, link_id, head):  # type: ignore[no-untyped-def]  # noqa: PLR0913 - numba takes arrays, not objects
    """Fold N arrivals in order. Returns what each touch knew before its arrival: (T, COLUMNS) and (T, RING)."""
    before = np.zeros((len(entity), COLUMNS), np.float64)
    recent = np.zeros((len(entity), RING), np.uint64)
    for i in range(len(head)):
        for t in range(start[i], start[i + 1]):
            e = entity[t]
            look(slices, family, entity_start[e], entity_start[e + 1], head[i, TS], before[t], recent[t])
        for t in range(start[i], start[i + 1]):
            a, b = link_start[t], link_start[t + 1]
            fold_touch(slices[own[t]], head[i], amount[t], link_ring[a:b], link_id[a:b])
    return before, recent


@compiled
def look_batch(slices, family, entity_start, entities, now_ms):  # type: ignore[no-untyped-def]
    """What the given entities' slices tell at their `now_ms`: (M, COLUMNS) and (M, RING)."""
    out = np.zeros((len(entities), COLUMNS), np.float64)
    recent = np.zeros((len(entities), RING), np.uint64)
    for m in range(len(entities)):
        e = entities[m]
        look(slices, family, entity_start[e], entity_start[e + 1], now_ms[m], out[m], recent[m])
    return out, recent


Aggregates = npt.NDArray[np.float64]
