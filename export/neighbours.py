"""Item neighbours and popular items, learned from interactions: the source of the worker's candidates.

Similarity is measured in one of two ways. Counting how closely items follow one another suits browsing, for any number
of items; there a user's k-th latest item is weighted by 1 / k. A linear model of baskets (`export.ease`) suits shops
with few items that are bought together; there all recent items weigh the same. The shop's latest interactions decide
which of them is exported.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.arrays import Array, Floats, Integers, Mask
from export.ease import ITEMS_MAX, RIDGE, fit_ease

NEIGHBOURS_MAX: Final = 50
POPULAR_MAX: Final = 1_000
LAG_MAX: Final = 10  # distance in a user's history up to which two items count as seen together
BACKWARD_WEIGHT: Final = 0.7  # weight from the later to the earlier item, relative to the other direction
SOURCE_POWER, TARGET_POWER = 0.5, 0.3  # weights are divided by these powers of the frequencies of both items
SELF_WEIGHT: Final = 3.0  # weight of a repeated item for itself, relative to its closest neighbour
REPEAT_SHARE_MIN: Final = 0.03  # share of steps to the same item from which on every item counts as repeated
WEIGHT_MIN: Final = 1e-6  # of an item without other neighbours
HOLDOUT_SHARE: Final = 0.1  # the latest share of the time, on which both ways are compared
CASES_MIN: Final = 100
RECENT_MAX: Final = 8  # recent items in a user's profile
TOP_K: Final = 20


class WeightedPairs(NamedTuple):
    """Weights from items `a` to items `b` (N,); a user's k-th latest item is weighted by k ** -recency_exponent."""

    a: Integers
    b: Integers
    weight: Floats
    recency_exponent: float


class Interactions(NamedTuple):
    """Interactions, by user and time: numbers of users and items, and times; all (N,)."""

    user: Integers
    item: Integers
    ts_ms: Integers
    items: int

    def select(self, mask: Mask) -> "Interactions":
        return Interactions(self.user[mask], self.item[mask], self.ts_ms[mask], self.items)


def find_neighbours(interactions: Any) -> dict[str, Array]:
    """The arrays of neighbours.npz from a table (user_id, item_id, ts_ms); see `contract.bundle`."""
    names, item = np.unique(encode_ids(interactions, "item_id"), return_inverse=True)
    user = np.unique(encode_ids(interactions, "user_id"), return_inverse=True)[1]
    ts_ms = interactions.column("ts_ms").to_numpy()
    order = np.lexsort((item, ts_ms, user))
    history = Interactions(user[order], item[order], ts_ms[order], len(names))
    pairs = pair_by_ease(history) if is_ease_better(history) else pair_by_sequence(history)
    rows, weights = select_closest(pairs, len(names))
    return {
        "items": names,
        "neighbours": rows,
        "weights": weights,
        "fading": np.array(pairs.recency_exponent, np.float32),
        "popular": find_popular(history),
    }


def find_popular(history: Interactions) -> npt.NDArray[np.int32]:
    """The items (P,) of most users, the most popular first; ties by number."""
    user_counts = np.bincount(np.unique(history.item + history.items * history.user) % history.items)
    user_counts = np.pad(user_counts, (0, history.items - len(user_counts)))
    return np.lexsort((np.arange(history.items), -user_counts))[:POPULAR_MAX].astype(np.int32)


def encode_ids(interactions: Any, column: str) -> npt.NDArray[np.bytes_]:
    """The ids of a column in UTF-8."""
    return np.array([ident.encode() for ident in interactions.column(column).to_pylist()], np.bytes_)


def pair_by_sequence(history: Interactions) -> WeightedPairs:
    """Pairs of items close to one another in users' histories, weighted by 1 / distance, less in backward direction.

    Weights are divided by powers of both frequencies, a smaller one for the target, since popular items are taken
    often. A repeated item weighs `SELF_WEIGHT` times its closest neighbour for itself; in a shop where repetition is
    usual, every item does.
    """
    item = history.item
    user = history.user
    items = history.items
    codes = [np.zeros(0, np.int64)]
    amounts = [np.zeros(0)]
    repeats = [np.zeros(0, np.int64)]
    for lag in range(1, min(LAG_MAX, len(item) - 1) + 1):
        same = user[:-lag] == user[lag:]
        a, b = item[:-lag][same], item[lag:][same]
        other = a != b
        repeats.append(a[~other])
        codes += [a[other] * items + b[other], b[other] * items + a[other]]
        amounts += [np.full(int(other.sum()), 1 / lag), np.full(int(other.sum()), BACKWARD_WEIGHT / lag)]
    code, pair_number = np.unique(np.concatenate(codes), return_inverse=True)
    total = np.bincount(pair_number, weights=np.concatenate(amounts), minlength=len(code))
    frequency = np.maximum(np.bincount(item, minlength=items), 1)
    a, b = code // max(items, 1), code % max(items, 1)
    weight = total / (frequency[a] ** SOURCE_POWER * frequency[b] ** TARGET_POWER)
    strongest, repeated = np.zeros(items), find_repeated_items(np.concatenate(repeats), len(pair_number) // 2, items)
    np.maximum.at(strongest, a, weight)
    self_weight = np.maximum(SELF_WEIGHT * strongest[repeated], WEIGHT_MIN)
    return WeightedPairs(np.append(a, repeated), np.append(b, repeated), np.append(weight, self_weight), 1.0)


def find_repeated_items(repeats: Integers, other_steps: int, items: int) -> Integers:
    """The items that users repeat; all items if repeats are a large share of all steps."""
    is_usual = len(repeats) > REPEAT_SHARE_MIN * (len(repeats) + other_steps)
    return np.arange(items) if is_usual else np.unique(repeats)


def pair_by_ease(history: Interactions, ridge: float = RIDGE) -> WeightedPairs:
    """Pairs of items with a positive weight in the linear model."""
    weights = fit_ease(history.user, history.item, history.items, ridge)
    a, b = np.nonzero(weights > 0)
    return WeightedPairs(a, b, weights[a, b], 0.0)


def is_ease_better(history: Interactions) -> bool:
    """Whether the linear model has the higher recall of new items in the hold-out."""
    if not 0 < history.items <= ITEMS_MAX:
        return False
    begin_ms = np.quantile(history.ts_ms, 1 - HOLDOUT_SHARE)
    before = history.select(history.ts_ms < begin_ms)
    after = history.select(history.ts_ms >= begin_ms)
    if len(np.intersect1d(before.user, after.user)) < CASES_MIN:
        return False
    return measure_recall(pair_by_ease(before), before, after) > measure_recall(pair_by_sequence(before), before, after)


def measure_recall(pairs: WeightedPairs, before: Interactions, after: Interactions) -> float:
    """Recall at `TOP_K` of each user's new items in `after`, given their latest items in `before`; mean over users."""
    rows, weights = select_closest(pairs, before.items)
    shares = []
    for user in np.intersect1d(before.user, after.user).tolist():
        past_items = before.item[slice(*np.searchsorted(before.user, (user, user + 1)))]
        new_items = np.setdiff1d(after.item[slice(*np.searchsorted(after.user, (user, user + 1)))], past_items)
        if len(new_items):
            recent = list(dict.fromkeys(past_items[::-1].tolist()))[:RECENT_MAX]
            score = np.zeros(before.items + 1)  # the last entry takes the scores of -1, no item
            for rank, item in enumerate(recent, 1):
                score[rows[item]] += weights[item] * rank**-pairs.recency_exponent
            score[past_items] = score[-1] = -1
            best = np.argpartition(-score, min(TOP_K, before.items))[:TOP_K]
            shares.append(len(np.intersect1d(best, new_items)) / len(new_items))
    return float(np.mean(shares)) if shares else 0.0


def select_closest(
    pairs: WeightedPairs, items: int, count: int = NEIGHBOURS_MAX
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The closest neighbours (items, count) of each item, padded with -1, and their weights."""
    order = np.lexsort((pairs.b, -pairs.weight, pairs.a))
    a, b, weight = pairs.a[order], pairs.b[order], pairs.weight[order]
    rank = np.arange(len(a)) - np.searchsorted(a, a)
    selected = rank < count
    rows = np.full((items, count), -1, np.int32)
    weights = np.zeros((items, count), np.float32)
    rows[a[selected], rank[selected]] = b[selected]
    weights[a[selected], rank[selected]] = weight[selected]
    return rows, weights
