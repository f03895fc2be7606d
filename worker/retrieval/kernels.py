"""Candidate selection in numba: for each user the items of every source, each once, with its first source.

A user has a few hundred items to add up, sort and look up: sixty NumPy operations, or a few microseconds here.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.compilation import jit
from contract.retrieval.strengths import add_strengths

SOURCES: Final = ("neighbour", "recent", "category", "popular", "fresh", "vector", "rule")  # by the code of a source
NEIGHBOUR, RECENT, CATEGORY, POPULAR, FRESH, VECTOR, RULE = range(len(SOURCES))
POPULAR_SHARE: Final = 5  # at most a fifth of the candidates are popular items, unless few others were found


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
    other_neighbours: npt.NDArray[np.int64]  # (U, n) of a second source, best first
    nearest: npt.NDArray[np.int64]  # (U, n) by the user's vector, best first
    popular: npt.NDArray[np.int64]  # (k,) best first
    popular_by_category: npt.NDArray[np.int64]  # (C, k) best first
    item_category: npt.NDArray[np.int32]  # (items,)
    in_stock: npt.NDArray[np.bool_]  # (items,)
    is_excluded: npt.NDArray[np.bool_]  # (items,) by rules
    categories_max: int  # categories of a user's recent items that are used
    neighbours_max: int  # candidates that are neighbours
    fill_max: int  # candidates of a user from which on there are no further popular items


@jit
def is_among(item, others):  # type: ignore[no-untyped-def]
    is_equal = False
    for other in others:
        is_equal = is_equal or other == item
    return is_equal


@jit
def add_from_source(items, code, sources, hidden, selected, out, count, count_max):  # type: ignore[no-untyped-def]
    """Append items of one source to the `count` candidates of a user, up to `count_max`, if new and to be shown.

    hidden: categories whose items are not.
    """
    numbers, codes = out
    for item in items:
        if count >= count_max:
            break
        if item < 0 or not sources.in_stock[item] or sources.is_excluded[item]:
            continue
        if len(hidden) and is_among(sources.item_category[item], hidden):
            continue
        slot = find_slot(selected, item)
        if selected[slot] == 0:
            selected[slot] = item + 1
            numbers[count] = item
            codes[count] = code
            count += 1
    return count


@jit
def exclude(items, selected):  # type: ignore[no-untyped-def]
    """Mark items as selected, so that no source adds them."""
    for item in items:
        if item >= 0:
            selected[find_slot(selected, item)] = item + 1


@jit
def mark_nearest(nearest, numbers, codes, count):  # type: ignore[no-untyped-def]
    """Set the code of those of the first `count` candidates, all neighbours, that the vector ranks higher."""
    for n in range(count):
        for rank in range(min(n, len(nearest))):
            if nearest[rank] == numbers[n]:
                codes[n] = VECTOR
                break


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
def top_per_group(weights, is_shown, group_of_item, groups, count_max):  # type: ignore[no-untyped-def]
    """The heaviest items of each group that are shown (groups, count_max), -1 after the last; ties by number.

    One pass: nearly all items are lighter than the lightest one that their group keeps.
    """
    top = np.full((groups, count_max), -1, np.int64)
    counts = np.zeros(groups, np.int64)
    for item in range(len(weights)):
        if not is_shown[item] or not weights[item] > 0:
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
def select_candidates(recent, sources, hidden, count_max):  # type: ignore[no-untyped-def]
    """Item numbers (U, count_max), -1 after the last, their source codes (U, count_max), and counts (U,).

    recent (U, R): recent items of each user, newest first. sources: CandidateSources.
    hidden: items and their starts, categories and their starts: items[item_start[u] : item_start[u + 1]] and those of
    categories[category_start[u] : category_start[u + 1]] are excluded for user u.
    """
    users = len(recent)
    hidden_items, item_start, hidden_categories, category_start = hidden
    table_size = hash_table_size(sources.neighbours.shape[1])
    table = np.zeros(table_size, np.int64)
    total = np.zeros(table_size, np.float32)
    hidden_max = 0
    for u in range(users):
        hidden_max = max(hidden_max, item_start[u + 1] - item_start[u])
    selected = np.zeros(hash_table_size(count_max + hidden_max), np.int64)
    numbers = np.full((users, count_max), -1, np.int64)
    codes = np.zeros((users, count_max), np.int8)
    counts = np.zeros(users, np.int64)
    for u in range(users):
        selected[:] = 0
        out = (numbers[u], codes[u])
        exclude(hidden_items[item_start[u] : item_start[u + 1]], selected)
        categories = hidden_categories[category_start[u] : category_start[u + 1]]
        neighbours = sort_by_total_weight(sources.neighbours[u], sources.neighbour_weights[u], table, total)
        count = add_from_source(
            neighbours, NEIGHBOUR, sources, categories, selected, out, 0, min(sources.neighbours_max, count_max)
        )
        mark_nearest(sources.nearest[u], numbers[u], codes[u], count)
        for n in range(count):
            if is_among(numbers[u, n], recent[u]):
                codes[u, n] = RECENT  # a neighbour that is itself a recent item
        count = add_from_source(recent[u], RECENT, sources, categories, selected, out, count, count_max)
        count = add_from_source(
            sources.other_neighbours[u], NEIGHBOUR, sources, categories, selected, out, count, count_max
        )
        count = add_from_source(sources.nearest[u], VECTOR, sources, categories, selected, out, count, count_max)
        fill_max = min(max(sources.fill_max, count + count_max // POPULAR_SHARE), count_max)
        in_categories = select_popular_of_categories(recent[u], sources)
        count = add_from_source(in_categories, CATEGORY, sources, categories, selected, out, count, fill_max)
        counts[u] = add_from_source(sources.popular, POPULAR, sources, categories, selected, out, count, fill_max)
    return numbers, codes, counts


@jit
def find_strongest(histories, neighbours, items_max, is_available, bought, bought_start, count_max):  # type: ignore[no-untyped-def]
    """The rows (U, count_max) of the strongest neighbours of each history (U, L), -1 after the last; and strengths.

    All items are rows of the bundle, -1 for none: `neighbours` as `contract.retrieval.strengths` takes them,
    bought[bought_start[u] : bought_start[u + 1]] are excluded for user u. is_available (M,). Ties are by row.
    """
    rows, weights, fading = neighbours
    total = np.zeros(len(rows), np.float32)
    touched = np.zeros(len(rows), np.int64)
    strongest = np.full((len(histories), count_max), -1, np.int64)
    strengths = np.zeros((len(histories), count_max), np.float32)
    for u in range(len(histories)):
        count = add_strengths(histories[u], rows, weights, fading, items_max, total, touched)
        for row in bought[bought_start[u] : bought_start[u + 1]]:
            if row >= 0:
                total[row] = np.float32(0)
        for n in range(count):
            row = touched[n]
            strength = total[row]
            total[row] = np.float32(0)
            if not is_available[row] or not strength > 0:
                continue
            place = count_max
            while place > 0 and (
                strengths[u, place - 1] < strength
                or (strengths[u, place - 1] == strength and strongest[u, place - 1] > row)
            ):
                place -= 1
            if place == count_max:
                continue
            for k in range(count_max - 1, place, -1):
                strengths[u, k], strongest[u, k] = strengths[u, k - 1], strongest[u, k - 1]
            strengths[u, place], strongest[u, place] = strength, row
    return strongest, strengths


@jit
def find_distinct(hashes, count_max):  # type: ignore[no-untyped-def]
    """The latest distinct items (U, count_max) of histories (U, L), newest first; 0 is no item."""
    distinct = np.zeros((len(hashes), count_max), np.uint64)
    for u in range(len(hashes)):
        count = 0
        for item in hashes[u]:
            if count == count_max:
                break
            if item != 0 and not is_among(item, distinct[u, :count]):
                distinct[u, count] = item
                count += 1
    return distinct
