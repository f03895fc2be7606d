"""What a bundle knows of its items for candidates and their features, by the row of the item in `vectors.npz`."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


class Neighbours(NamedTuple):
    """Rows of the neighbours of M items (M, K), -1 for none, and their weights (M, K).

    The neighbours of a user's k-th latest distinct item are weighted by k ** -fading.
    """

    rows: npt.NDArray[np.int32]
    weights: Weights
    fading: float


class ItemTable(NamedTuple):
    """M items. `neighbours` makes the candidates' own order; `other_neighbours` is a second source, (M, 0) without one.

    `vectors` (M, d): of unit length, or zeros; further rows are of items that have no neighbours and counts.
    `counts`, `recent_counts` (M,): interactions of each item, in all of the time and in its last tenth.
    """

    neighbours: Neighbours
    other_neighbours: Neighbours
    vectors: npt.NDArray[np.float32]
    counts: npt.NDArray[np.float32]
    recent_counts: npt.NDArray[np.float32]


def no_neighbours(items: int) -> Neighbours:
    """The neighbours of items for which a source has none."""
    return Neighbours(np.zeros((items, 0), np.int32), np.zeros((items, 0), np.float32), 0.0)
