"""Co-visited and popular items, counted from who took what: where the worker's candidates come from."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

NEIGHBOURS_MAX: Final = 50
POPULAR_MAX: Final = 1_000
LAG_MAX: Final = 10  # how far apart two items of one user may stand to count as seen together

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def count_neighbours(interactions: Any) -> dict[str, npt.NDArray[Any]]:
    """The arrays of neighbours.npz from a table (user_id, item_id, ts_ms); see `contract.bundle`.

    A pair of items weighs the more the closer they stand in a user's history, over the geometric mean of how often each
    occurs (cosine), so that popular items are not everybody's neighbours.
    """
    names, item = np.unique(interactions.column("item_id").to_numpy().astype("S"), return_inverse=True)
    user = np.unique(interactions.column("user_id").to_numpy().astype("S"), return_inverse=True)[1]
    order = np.lexsort((item, interactions.column("ts_ms").to_numpy(), user))
    users_of = np.bincount(np.unique(np.stack([item, user]), axis=1)[0], minlength=len(names))
    rows, weights = closest(pairs(item[order], user[order], len(names)), len(names))
    popular = np.lexsort((np.arange(len(names)), -users_of))[:POPULAR_MAX]
    return {"items": names, "neighbours": rows, "weights": weights, "popular": popular.astype(np.int32)}


def pairs(item: npt.NDArray[np.int64], user: npt.NDArray[np.int64], items: int) -> Pairs:
    """Every pair of items (a, b) that one user took near each other, both ways, with its weight."""
    codes, amounts = [np.zeros(0, np.int64)], [np.zeros(0)]
    for lag in range(1, min(LAG_MAX, len(item) - 1) + 1):
        a, b = item[:-lag], item[lag:]
        both = (user[:-lag] == user[lag:]) & (a != b)
        codes += [a[both] * items + b[both], b[both] * items + a[both]]
        amounts += [np.full(int(both.sum()), 1 / lag)] * 2
    code, place = np.unique(np.concatenate(codes), return_inverse=True)
    total = np.bincount(place, weights=np.concatenate(amounts), minlength=len(code))
    often = np.bincount(item, minlength=items)
    a, b = code // max(items, 1), code % max(items, 1)
    return a, b, total / np.sqrt(often[a] * often[b])


def closest(found: Pairs, items: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The closest neighbours (items, K) of each item, -1 where there are no more, and their weights."""
    a, b, weight = found
    order = np.lexsort((b, -weight, a))
    a, b, weight = a[order], b[order], weight[order]
    place = np.arange(len(a)) - np.searchsorted(a, a)
    kept = place < NEIGHBOURS_MAX
    rows = np.full((items, NEIGHBOURS_MAX), -1, np.int32)
    weights = np.zeros((items, NEIGHBOURS_MAX), np.float32)
    rows[a[kept], place[kept]], weights[a[kept], place[kept]] = b[kept], weight[kept]
    return rows, weights
