"""How strongly the neighbours of a user's history point at items: sums over the user's distinct items, in numba."""

import numpy as np

from contract.compilation import jit


@jit
def add_strengths(history, rows, weights, fading, items_max, total, touched):  # type: ignore[no-untyped-def]
    """Add the weights of the neighbours of a history's latest distinct items to `total`; returns the items touched.

    history (L,): newest first, -1 for an item without a row. `items_max`: distinct items that are used. `total` (M,)
    float32 is zero before. `touched` (M,) int64 gets the rows whose total is not zero any more.
    """
    count = 0
    rank = 0
    for k in range(len(history)):
        row = history[k]
        if row < 0 or rank == items_max:
            continue
        is_repeated = False
        for earlier in range(k):
            is_repeated = is_repeated or history[earlier] == row
        if is_repeated:
            continue
        rank += 1
        factor = np.float32(np.float64(rank) ** -fading)
        for n in range(rows.shape[1]):
            neighbour = rows[row, n]
            if neighbour >= 0 and weights[row, n] > 0:
                if total[neighbour] == 0:
                    touched[count] = neighbour
                    count += 1
                total[neighbour] += factor * weights[row, n]
    return count


@jit
def clear_touched(total, touched, count):  # type: ignore[no-untyped-def]
    for n in range(count):
        total[touched[n]] = np.float32(0)


@jit
def gather_strengths(histories, neighbours, items_max, items, starts):  # type: ignore[no-untyped-def]
    """The strengths (P,) of items, of which those in [starts[u], starts[u + 1]) are for user u; 0 for row -1.

    histories (U, L). neighbours: rows and weights (M, K) and the fading.
    """
    rows, weights, fading = neighbours
    total = np.zeros(len(rows), np.float32)
    touched = np.zeros(len(rows), np.int64)
    strength = np.zeros(len(items), np.float32)
    for u in range(len(histories)):
        count = add_strengths(histories[u], rows, weights, fading, items_max, total, touched)
        for p in range(starts[u], starts[u + 1]):
            if items[p] >= 0:
                strength[p] = total[items[p]]
        clear_touched(total, touched, count)
    return strength


@jit
def select_strongest(histories, neighbours, items_max, excluded, excluded_starts, count_max):  # type: ignore[no-untyped-def]
    """The rows (U, count_max) of the strongest neighbours of each history, -1 after the last; ties by row.

    excluded[excluded_starts[u] : excluded_starts[u + 1]]: rows that user u should not get.
    """
    rows, weights, fading = neighbours
    total = np.zeros(len(rows), np.float32)
    touched = np.zeros(len(rows), np.int64)
    strongest = np.full((len(histories), count_max), -1, np.int64)
    for u in range(len(histories)):
        count = add_strengths(histories[u], rows, weights, fading, items_max, total, touched)
        for p in range(excluded_starts[u], excluded_starts[u + 1]):
            if excluded[p] >= 0:
                total[excluded[p]] = np.float32(0)
        selected = np.sort(touched[:count])
        best = selected[np.argsort(-total[selected], kind="mergesort")][:count_max]
        for n in range(len(best)):
            if total[best[n]] > 0:
                strongest[u, n] = best[n]
        clear_touched(total, touched, count)
    return strongest
