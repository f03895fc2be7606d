"""Exact search by vector: the items whose vectors have the largest product with a user's, for many users at once.

Many users and a few thousand items at a time are one matrix product, whose result stays in the processor's cache. A
compiled pass keeps the largest scores of each user; nearly all items cost a comparison with the least one kept.
`worker.retrieval.item_search` has an index take its place in large catalogues.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from contract.compilation import jit

ITEMS_PER_PRODUCT: Final = 4_096
USERS_PER_PRODUCT: Final = 64


def find_nearest(
    users: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    penalty: npt.NDArray[np.float32],
    excluded: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    count: int,
) -> npt.NDArray[np.int64]:
    """The rows (U, count) of the items nearest to each user, best first, -1 after the last; ties by row.

    users (U, d), vectors (M, d). penalty (M,): 0 for an item that may be found, minus infinity for another. `excluded`:
    users (E,) and rows (E,) that are not to be found for them. A user without a vector (zeros) has none.
    """
    nearest = np.full((len(users), count), -1, np.int64)
    has_vector = np.flatnonzero(users.any(1))
    for begin in range(0, len(has_vector), USERS_PER_PRODUCT):
        chunk = has_vector[begin : begin + USERS_PER_PRODUCT]
        position = np.full(len(users), -1, np.int64)
        position[chunk] = np.arange(len(chunk))
        here = position[excluded[0]] >= 0
        nearest[chunk] = search_chunk(
            users[chunk], vectors, penalty, (position[excluded[0][here]], excluded[1][here]), count
        )
    return nearest


def search_chunk(
    users: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    penalty: npt.NDArray[np.float32],
    excluded: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    count: int,
) -> npt.NDArray[np.int64]:
    """`find_nearest` for users who have a vector."""
    scores = np.full((len(users), count), -np.inf, np.float32)
    rows = np.full((len(users), count), -1, np.int64)
    for begin in range(0, len(vectors), ITEMS_PER_PRODUCT):
        end = min(begin + ITEMS_PER_PRODUCT, len(vectors))
        product = users @ vectors[begin:end].T
        here = (excluded[1] >= begin) & (excluded[1] < end)
        product[excluded[0][here], excluded[1][here] - begin] = -np.inf
        keep_largest(product, penalty[begin:end], begin, scores, rows)
    return rows


@jit
def keep_largest(product, penalty, first_row, scores, rows):  # type: ignore[no-untyped-def]
    """Put the items of a product (U, C) that are among a user's largest into `scores` and `rows` (U, k), in order."""
    count = scores.shape[1]
    for u in range(product.shape[0]):
        least = scores[u, count - 1]
        for c in range(product.shape[1]):
            score = product[u, c]
            if score > least and score + penalty[c] > least:
                place = count - 1
                while place > 0 and scores[u, place - 1] < score:
                    scores[u, place] = scores[u, place - 1]
                    rows[u, place] = rows[u, place - 1]
                    place -= 1
                scores[u, place] = score
                rows[u, place] = first_row + c
                least = scores[u, count - 1]
