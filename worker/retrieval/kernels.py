"""Candidate selection in numba: for each user the items of every source, each once, with its first source.

A user has a few hundred items to add up, sort and look up: sixty NumPy operations, or a few microseconds here. Source
codes are indexes of `worker.retrieval.candidate_generator.SOURCES`.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.compilation import jit


@jit
def hash_table_size(count):  # type: ignore[no-untyped-def]
    """The length of a hash table for `count` items: a power of two, at most half full."""
    size = 16
    while size < 2 * count + 2:
        size *= 2
    return size


@jit
def find_slot(table: Any, number: Any) -> Any:
    """The slot of an item in a hash table of numbers + 1 (open addressing), or the free slot for it."""
    slot = (number * np.int64(0x9E3779B1)) & np.int64(len(table) - 1)
    while table[slot] != 0 and table[slot] != number + 1:
        slot = (slot + 1) & np.int64(len(table) - 1)
    return slot


@jit
def sort_by_total_weight(numbers: Any, weights: Any, table: Any, total: Any) -> Any:
    """The distinct items among `numbers` (-1: none), by descending total weight; ties by number.

    Scratch space: `table` (zeros, left as zeros) and `total`, each of a power of two of at least twice len(numbers).
    """
    count = 0
    for n in range(len(numbers)):
        if numbers[n] >= 0:
            slot = find_slot(table, numbers[n])
            if table[slot] == 0:
                table[slot] = numbers[n] + 1
                total[slot] = np.float32(0)
                count += 1
            total[slot] += weights[n]
    keys = np.empty(count, np.int64)
    bits = total.view(np.int32)
    filled = 0
    for slot in range(len(table)):
        if table[slot] != 0:
            # Non-negative floats have the same order as their bits.
            weight = np.int64(bits[slot]) if total[slot] > 0 else np.int64(0)
            keys[filled] = ((np.int64(0x7FFFFFFF) - weight) << np.int64(32)) | np.int64(table[slot] - 1)
            filled += 1
            table[slot] = 0
    keys.sort()
    return keys & np.int64(0xFFFFFFFF)


class CandidateSources(NamedTuple):
    """The item numbers that candidates come from, -1 for no item, and the attributes of all items."""

    neighbours: npt.NDArray[np.int64]  # (U, n) of each user's recent items
    neighbour_weights: npt.NDArray[np.float32]  # (U, n)
    popular: npt.NDArray[np.int64]  # (k,) best first
    popular_by_category: npt.NDArray[np.int64]  # (C, k) best first
    item_category: npt.NDArray[np.int32]  # (items,)
    in_stock: npt.NDArray[np.bool_]  # (items,)
    categories_max: int  # categories of a user's recent items that are used


@jit
def is_among(item, others):  # type: ignore[no-untyped-def]
    is_equal = False
    for other in others:
        is_equal = is_equal or other == item
    return is_equal


@jit
def add_from_source(items, code, in_stock, excluded, selected, out, count):  # type: ignore[no-untyped-def]
    """Append items of one source to the `count` candidates of a user, if new, in stock and not excluded."""
    numbers, codes = out
    for item in items:
        if count == len(numbers):
            break
        if item < 0 or not in_stock[item]:
            continue
        slot = find_slot(selected, item)
        if selected[slot] == 0 and not is_among(item, excluded):
            selected[slot] = item + 1
            numbers[count] = item
            codes[count] = code
            count += 1
    return count


@jit
def select_popular_of_categories(recent, sources):  # type: ignore[no-untyped-def]
    """Popular items of the first `categories_max` categories of recent items, in their order; 0 is no category."""
    categories = np.zeros(sources.categories_max, np.int64)
    count = 0
    for item in recent:
        category = np.int64(sources.item_category[item]) if item >= 0 else 0
        if count < sources.categories_max and category and category < len(sources.popular_by_category):
            is_repeated = False
            for k in range(count):
                is_repeated = is_repeated or categories[k] == category
            if not is_repeated:
                categories[count] = category
                count += 1
    return sources.popular_by_category[categories[:count]].ravel()


@jit
def top_per_group(weights, in_stock, group_of_item, groups, count_max):  # type: ignore[no-untyped-def]
    """The heaviest items in stock of each group (groups, count_max), -1 after the last; ties by number.

    One pass: nearly all items are lighter than the lightest one that their group keeps.
    """
    top = np.full((groups, count_max), -1, np.int64)
    counts = np.zeros(groups, np.int64)
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
    """The lists end to end, and the start of each, followed by the end of the last."""
    start = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return np.concatenate([np.zeros(0, np.int64), *lists]), start


@jit
def select_candidates(recent, sources, bought, bought_start, count_max):  # type: ignore[no-untyped-def]
    """Item numbers (U, count_max), -1 after the last, their source codes (U, count_max), and counts (U,).

    recent (U, R): recent items of each user, newest first. sources: CandidateSources.
    bought[bought_start[u] : bought_start[u + 1]]: items that are excluded for user u.
    """
    users = len(recent)
    in_stock = sources.in_stock
    table_size = hash_table_size(sources.neighbours.shape[1])
    table = np.zeros(table_size, np.int64)
    total = np.zeros(table_size, np.float32)
    selected = np.zeros(hash_table_size(count_max), np.int64)
    numbers = np.full((users, count_max), -1, np.int64)
    codes = np.zeros((users, count_max), np.int8)
    counts = np.zeros(users, np.int64)
    for u in range(users):
        selected[:] = 0
        out = (numbers[u], codes[u])
        excluded = bought[bought_start[u] : bought_start[u + 1]]
        neighbours = sort_by_total_weight(sources.neighbours[u], sources.neighbour_weights[u], table, total)
        count = add_from_source(neighbours, 0, in_stock, excluded, selected, out, 0)
        for n in range(count):
            codes[u, n] = 1 if is_among(numbers[u, n], recent[u]) else 0  # a neighbour that is itself a recent item
        count = add_from_source(recent[u], 1, in_stock, excluded, selected, out, count)
        in_categories = select_popular_of_categories(recent[u], sources)
        count = add_from_source(in_categories, 2, in_stock, excluded, selected, out, count)
        counts[u] = add_from_source(sources.popular, 3, in_stock, excluded, selected, out, count)
    return numbers, codes, counts
