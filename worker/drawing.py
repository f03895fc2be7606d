"""Drawing candidates, compiled: for each user the items of every source, each once, for its first reason.

One user has some hundred items to be added up, sorted and looked up: sixty array operations, or a few microseconds
here. Sources are in the order of `worker.candidates.WHY`; what they are is told there.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

compiled = numba.njit(cache=True, nogil=True)


@compiled
def place(table: Any, number: Any) -> Any:
    """Where an item stands in a table of numbers + 1 (open addressing), or the free place for it."""
    at = (number * np.int64(0x9E3779B1)) & np.int64(len(table) - 1)
    while table[at] != 0 and table[at] != number + 1:
        at = (at + 1) & np.int64(len(table) - 1)
    return at


@compiled
def strongest(numbers: Any, weights: Any, table: Any, total: Any) -> Any:
    """The distinct items among `numbers` (-1: none), those that most speaks for first; ties by number.

    Room: `table` of zeros and `total`, of a length that is a power of two and twice as many as there are numbers.
    """
    count = 0
    for n in range(len(numbers)):
        if numbers[n] >= 0:
            at = place(table, numbers[n])
            if table[at] == 0:
                table[at], total[at] = numbers[n] + 1, np.float32(0)
                count += 1
            total[at] += weights[n]
    keys, bits = np.empty(count, np.int64), total.view(np.int32)
    found = 0
    for at in range(len(table)):
        if table[at] != 0:
            # The bits of floats that are not negative are in the order of the floats.
            weight = np.int64(bits[at]) if total[at] > 0 else np.int64(0)
            keys[found] = ((np.int64(0x7FFFFFFF) - weight) << np.int64(32)) | np.int64(table[at] - 1)
            found += 1
            table[at] = 0
    keys.sort()
    return keys & np.int64(0xFFFFFFFF)


class Pool(NamedTuple):
    """What candidates are drawn from; -1 is no item everywhere."""

    near: npt.NDArray[np.int64]  # (U, n) neighbours of each user's recent items
    weights: npt.NDArray[np.float32]  # (U, n) how much speaks for each
    popular: npt.NDArray[np.int64]
    in_category: npt.NDArray[np.int64]  # (C, k) popular items of each category
    category: npt.NDArray[np.int32]  # of every item
    sold: npt.NDArray[np.bool_]  # whether an item can be had
    categories_max: int  # of a user's recent items


@compiled
def draw_all(seen, pool, bought, bought_start, most):  # type: ignore[no-untyped-def]
    """Items (U, most), -1 behind the last, the source of each, and how many each of the U users has.

    seen (U, R): the user's recent items; bought[bought_start[u] : bought_start[u + 1]]: what is left out for user u.
    """
    users = len(seen)
    table, total = np.zeros(room(pool.near.shape[1]), np.int64), np.zeros(room(pool.near.shape[1]), np.float32)
    marks = np.zeros(room(most), np.int64)
    numbers, why = np.full((users, most), -1, np.int64), np.zeros((users, most), np.int8)
    counts = np.zeros(users, np.int64)
    for u in range(users):
        marks[:] = 0
        out, left_out = (numbers[u], why[u]), bought[bought_start[u] : bought_start[u + 1]]
        count = add(strongest(pool.near[u], pool.weights[u], table, total), 0, pool.sold, left_out, marks, out, 0)
        for n in range(count):
            why[u, n] = 1 if is_among(numbers[u, n], seen[u]) else 0  # an item that users come back to
        count = add(seen[u], 1, pool.sold, left_out, marks, out, count)
        count = add(of_categories(seen[u], pool), 2, pool.sold, left_out, marks, out, count)
        counts[u] = add(pool.popular, 3, pool.sold, left_out, marks, out, count)
    return numbers, why, counts


@compiled
def room(count):  # type: ignore[no-untyped-def]
    """How long a table of so many items should be: a power of two, and never more than half full."""
    size = 16
    while size < 2 * count + 2:
        size *= 2
    return size


@compiled
def add(items, source, sold, left_out, marks, out, count):  # type: ignore[no-untyped-def]
    """Add items of one source to what a user has, `count` so far, each that is new, can be had and is not left out."""
    numbers, why = out
    for item in items:
        if count == len(numbers):
            break
        if item < 0 or not sold[item]:
            continue
        at = place(marks, item)
        if marks[at] == 0 and not is_among(item, left_out):
            marks[at] = item + 1
            numbers[count], why[count] = item, source
            count += 1
    return count


@compiled
def is_among(item, others):  # type: ignore[no-untyped-def]
    found = False
    for other in others:
        found = found or other == item
    return found


@compiled
def of_categories(seen, pool):  # type: ignore[no-untyped-def]
    """Popular items of the categories of these items, the first ones' first; 0 is no category."""
    codes = np.zeros(pool.categories_max, np.int64)
    known = 0
    for item in seen:
        code = np.int64(pool.category[item]) if item >= 0 else 0
        if known < pool.categories_max and code and code < len(pool.in_category):
            again = False
            for k in range(known):
                again = again or codes[k] == code
            if not again:
                codes[known] = code
                known += 1
    return pool.in_category[codes[:known]].ravel()


@compiled
def best(weight, sold, group, groups, most):  # type: ignore[no-untyped-def]
    """The heaviest items of each group that can be had (groups, most), -1 behind the last; ties by number.

    One look at each item: nearly all are lighter than the lightest that its group has kept.
    """
    kept, counts = np.full((groups, most), -1, np.int64), np.zeros(groups, np.int64)
    for item in range(len(weight)):
        if not sold[item] or not weight[item] > 0:
            continue
        g = group[item]
        at = counts[g]
        if at == most and weight[item] <= weight[kept[g, most - 1]]:
            continue
        if at < most:
            counts[g] += 1
        else:
            at -= 1
        while at > 0 and weight[kept[g, at - 1]] < weight[item]:
            kept[g, at] = kept[g, at - 1]
            at -= 1
        kept[g, at] = item
    return kept


def flat(lists: list[npt.NDArray[np.int64]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lists end to end, and where each begins, with the end of the last one."""
    start = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return np.concatenate([np.zeros(0, np.int64), *lists]), start
