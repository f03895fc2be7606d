"""The features of a candidate that the ranker of a bundle reads: one function for training and for serving.

Each source of candidates says how strongly it points at the item, so that a ranker starts from what they know. All are
numbers of moderate size; those of an item without a row in the bundle are 0, but for the length of the history.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from contract.compilation import jit
from contract.retrieval.item_table import ItemTable, Rows
from contract.retrieval.strengths import gather_strengths

HISTORY_MAX: Final = 64  # latest interactions of a user that features and the sequence network read
TEMPERATURE: Final = 0.07  # of the softmax over similarities, in training and here
STRENGTH_MIN: Final = 1e-4  # a strength counts from this size on
FEATURES: Final = (
    "neighbour",  # log strength of the neighbours of the history; the candidates' own order
    "neighbour_relative",  # the same, relative to the strongest candidate of the user
    "has_neighbour",
    "neighbour_of_latest",  # log strength of the neighbours of the latest item alone
    "other_neighbour",  # log strength in the second source
    "other_neighbour_relative",
    "similarity",  # of the vectors of user and item
    "similarity_share",  # log softmax of the similarity over the user's candidates
    "similarity_to_latest",  # of the vectors of the latest item and the item
    "popularity",  # log count of interactions
    "recent_popularity",  # the same in the last tenth of the time
    "in_history",
    "times_in_history",  # log of the number of times
    "recency_in_history",  # 1 / k for the user's k-th latest interaction
    "is_latest",
    "history_length",
)


def build_features(
    table: ItemTable, histories: Rows, users: npt.NDArray[np.float32], items: Rows, starts: Rows
) -> npt.NDArray[np.float32]:
    """Features (P, F) of candidates: `items` (P,), of which those in [starts[u], starts[u + 1]) are for user u.

    histories (U, L): the rows of each user's latest items, newest first, -1 for none; the latest `HISTORY_MAX` count.
    users (U, d): vectors of `sequence.onnx`. Items are rows of the table, -1 for an item that has none; those behind
    its neighbours and counts have a vector alone.
    """
    histories = np.ascontiguousarray(histories[:, :HISTORY_MAX], np.int64)
    vector_items, items = items, np.where(items < len(table.counts), items, -1)
    features = np.zeros((len(items), len(FEATURES)), np.float32)
    strengths = (
        gather_strengths(histories, tuple(table.neighbours), HISTORY_MAX, items, starts),
        gather_strengths(histories, tuple(table.neighbours), 1, items, starts),
        gather_strengths(histories, tuple(table.other_neighbours), HISTORY_MAX, items, starts),
    )
    fill_strengths(features, strengths, starts)
    fill_similarities(features, table.vectors, users, histories, vector_items, starts)
    known = np.maximum(items, 0)
    for column, counts in ((9, table.counts), (10, table.recent_counts)):
        features[:, column] = np.where(items >= 0, np.log1p(counts[known]) / 3, 0) if len(counts) else 0
    fill_history(features, histories, items, starts)
    return features


@jit
def scale_strength(strength):  # type: ignore[no-untyped-def]
    return np.float32(np.log(strength / STRENGTH_MIN + 1) / 3)


@jit
def fill_strengths(features, strengths, starts):  # type: ignore[no-untyped-def]
    """Write the columns of both sources; `strengths`: of all neighbours, of the latest's, of the other neighbours."""
    neighbour, latest, other = strengths
    for u in range(len(starts) - 1):
        neighbour_max, other_max = np.float32(0), np.float32(0)
        for p in range(starts[u], starts[u + 1]):
            neighbour_max, other_max = max(neighbour_max, neighbour[p]), max(other_max, other[p])
        for p in range(starts[u], starts[u + 1]):
            if neighbour[p] > 0:
                features[p, 0] = scale_strength(neighbour[p])
                features[p, 1] = scale_strength(neighbour[p] / neighbour_max)
                features[p, 2] = 1
            features[p, 3] = scale_strength(latest[p])
            if other[p] > 0:
                features[p, 4] = scale_strength(other[p])
                features[p, 5] = scale_strength(other[p] / other_max)


@jit
def fill_similarities(features, vectors, users, histories, items, starts):  # type: ignore[no-untyped-def]
    """Write the columns of similarities, products of unit vectors."""
    for u in range(len(starts) - 1):
        latest = np.int64(-1)
        for k in range(histories.shape[1]):
            if histories[u, k] >= 0:
                latest = histories[u, k]
                break
        similarity_max = np.float32(-2)
        for p in range(starts[u], starts[u + 1]):
            similarity, to_latest = np.float32(0), np.float32(0)
            if items[p] >= 0:
                for d in range(vectors.shape[1]):
                    similarity += vectors[items[p], d] * users[u, d]
                    if latest >= 0:
                        to_latest += vectors[items[p], d] * vectors[latest, d]
            similarity_max = max(similarity_max, similarity)
            features[p, 6] = similarity * 3
            features[p, 7] = similarity
            features[p, 8] = to_latest * 2
        total = 0.0
        for p in range(starts[u], starts[u + 1]):
            total += np.exp((features[p, 7] - similarity_max) / TEMPERATURE)
        for p in range(starts[u], starts[u + 1]):
            share = (features[p, 7] - similarity_max) / TEMPERATURE - np.log(total)
            features[p, 7] = share / 4 if items[p] >= 0 else 0


@jit
def fill_history(features, histories, items, starts):  # type: ignore[no-untyped-def]
    """Write the columns of the item's own place in the history, and of the history's length."""
    for u in range(len(starts) - 1):
        length = 0
        for k in range(histories.shape[1]):
            length += histories[u, k] >= 0
        for p in range(starts[u], starts[u + 1]):
            features[p, 15] = np.log(length + 1.0) / 2
            first, times = -1, 0
            for k in range(histories.shape[1]):
                if items[p] >= 0 and histories[u, k] == items[p]:
                    first = k if first < 0 else first
                    times += 1
            if times:
                features[p, 11] = 1
                features[p, 12] = np.log(np.float64(times))
                features[p, 13] = 1 / (1.0 + first)
                features[p, 14] = first == 0
