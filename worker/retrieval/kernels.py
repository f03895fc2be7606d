"""Drawing candidates, compiled: for each user the items of every source, each once, for its first reason.

One user has some hundred items to be added up, sorted and looked up: sixty array operations, or a few microseconds
here. Sources are in the order of `worker.retrieval.candidate_generator.WHY`; what they are is told there.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

compiled = numba.njit(cache=True, nogil=True)


@compiled
def find_slot(table: Any, number: Any) -> Any:
    """Where an item stands in a table of numbers + 1 (open addressing), or the free place for it."""
    slot = (number * np.int64(0x9E3779B1)) & np.int64(len(table) - 1)
    while table[slot] != 0 and table[slot] != number + 1:
        slot = (slot + 1) & np.int64(len(table) - 1)
    return slot


@compiled
def sort_by_total_weight(numbers: Any, weights: Any, table: Any, total: Any) -> Any:
    """The distinct items among `numbers` (-1: none), those that most speaks for first; ties by number.

    Room: `table` of zeros and `total`, of a length that is a power of two and twice as many as there are numbers.
    """
    count = 0
    for n in range(len(numbers)):
        if numbers[n] >= 0:
            slot = find_slot(table, numbers[n])
            if table[slot] == 0:
                table[slot], total[slot] = numbers[n] + 1, np.float32(0)
                count += 1
            total[slot] += weights[n]
    keys, bits = np.empty(count, np.int64), total.view(np.int32)
    filled = 0
    for slot in range(len(table)):
        if table[slot] != 0:
            # The bits of floats that are not negative are in the order of the floats.
            weight = np.int64(bits[slot]) if total[slot] > 0 else np.int64(0)
            keys[filled] = ((np.int64(0x7FFFFFFF) - weight) << np.int64(32)) | np.int64(table[slot] - 1)
            filled += 1
            table[slot] = 0
    keys.sort()
    return keys & np.int64(0xFFFFFFFF)


class CandidateSources(NamedTuple):
    """What candidates are drawn from; -1 is no item everywhere."""

    near: npt.NDArray[np.int64]  # (U, n) neighbours of each user's recent items
    weights: npt.NDArray[np.float32]  # (U, n) how much speaks for each
    popular: npt.NDArray[np.int64]
    in_category: npt.NDArray[np.int64]  # (C, k) popular items of each category
    category: npt.NDArray[np.int32]  # of every item
    sold: npt.NDArray[np.bool_]  # whether an item can be had
    categories_max: int  # of a user's recent items


@compiled
def select_candidates(seen, pool, bought, bought_start, count_max):  # type: ignore[no-untyped-def]
    """Items (U, most), -1 behind the last, the source of each, and how many each of the U users has.

    seen (U, R): the user's recent items; bought[bought_start[u] : bought_start[u + 1]]: what is left out for user u.
    """
    users = len(seen)
    table, total = (
        np.zeros(hash_table_size(pool.near.shape[1]), np.int64),
        np.zeros(hash_table_size(pool.near.shape[1]), np.float32),
    )
    selected = np.zeros(hash_table_size(count_max), np.int64)
    numbers, sources = np.full((users, count_max), -1, np.int64), np.zeros((users, count_max), np.int8)
    counts = np.zeros(users, np.int64)
    for u in range(users):
        selected[:] = 0
        out, left_out = (numbers[u], sources[u]), bought[bought_start[u] : bought_start[u + 1]]
        count = add_from_source(
            sort_by_total_weight(pool.near[u], pool.weights[u], table, total), 0, pool.sold, left_out, selected, out, 0
        )
        for n in range(count):
            sources[u, n] = 1 if is_among(numbers[u, n], seen[u]) else 0  # an item that users come back to
        count = add_from_source(seen[u], 1, pool.sold, left_out, selected, out, count)
        count = add_from_source(
            select_popular_of_categories(seen[u], pool), 2, pool.sold, left_out, selected, out, count
        )
        counts[u] = add_from_source(pool.popular, 3, pool.sold, left_out, selected, out, count)
    return numbers, sources, counts


@compiled
def hash_table_size(count):  # type: ignore[no-untyped-def]
    """How long a table of so many items should be: a power of two, and never more than half full."""
    size = 16
    while size < 2 * count + 2:
        size *= 2
    return size


@compiled
def add_from_source(items, source, in_stock, left_out, selected, out, count):  # type: ignore[no-untyped-def]
    """Add items of one source to what a user has, `count` so far, each that is new, can be had and is not left out."""
    numbers, sources = out
    for item in items:
        if count == len(numbers):
            break
        if item < 0 or not in_stock[item]:
            continue
        slot = find_slot(selected, item)
        if selected[slot] == 0 and not is_among(item, left_out):
            selected[slot] = item + 1
            numbers[count], sources[count] = item, source
            count += 1
    return count


@compiled
def is_among(item, others):  # type: ignore[no-untyped-def]
    is_equal = False
    for other in others:
        is_equal = is_equal or other == item
    return is_equal


@compiled
def select_popular_of_categories(seen, pool):  # type: ignore[no-untyped-def]
    """Popular items of the categories of these items, the first ones' first; 0 is no category."""
    codes = np.zeros(pool.categories_max, np.int64)
    known = 0
    for item in seen:
        code = np.int64(pool.category[item]) if item >= 0 else 0
        if known < pool.categories_max and code and code < len(pool.in_category):
            is_repeated = False
            for k in range(known):
                is_repeated = is_repeated or codes[k] == code
            if not is_repeated:
                codes[known] = code
                known += 1
    return pool.in_category[codes[:known]].ravel()


@compiled
def top_per_group(weights, in_stock, group_of_item, groups, count_max):  # type: ignore[no-untyped-def]
    """The heaviest items of each group that can be had (groups, most), -1 behind the last; ties by number.

    One look at each item: nearly all are lighter than the lightest that its group has kept.
    """
    top, counts = np.full((groups, count_max), -1, np.int64), np.zeros(groups, np.int64)
    for item in range(len(weights)):
        if not in_stock[item] or not weights[item] > 0:
            continue
        g = group_of_item[item]
        rank = counts[g]
        if rank == count_max and weights[item] <= weights[top[g, count_max - 1]]:
            continue
        if rank < count_max:
            counts[g] += 1
        else:
            rank -= 1
        while rank > 0 and weights[top[g, rank - 1]] < weights[item]:
            top[g, rank] = top[g, rank - 1]
            rank -= 1
        top[g, rank] = item
    return top


def concatenate_lists(lists: list[npt.NDArray[np.int64]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lists end to end, and where each begins, with the end of the last one."""
    start = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return np.concatenate([np.zeros(0, np.int64), *lists]), start
