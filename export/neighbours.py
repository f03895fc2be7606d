"""Neighbours of items and popular items, learned from who took what: where the worker's candidates come from.

There are two ways to say how much an item speaks for another one. Counting how closely they follow one another is good
for browsing, of however many items: there the k-th latest item of a user speaks with 1 / k. A linear model of what
users have (`export.ease`) is good for shops of few items that are bought together, and there all speak alike. Which
of them a shop is served with, its own latest interactions decide.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from export.ease import ITEMS_MAX, fit_ease

NEIGHBOURS_MAX: Final = 50
POPULAR_MAX: Final = 1_000
LAG_MAX: Final = 10  # how far apart two items of one user may stand to count as seen together
BACKWARD_WEIGHT: Final = (
    0.7  # how much the later of two items speaks for the earlier one, where the earlier one speaks with 1
)
SOURCE_POWER, TARGET_POWER = (
    0.5,
    0.3,
)  # powers of how often an item occurs that weights are divided by: the one that speaks, the other
SELF_WEIGHT: Final = (
    3.0  # how much an item that users come back to speaks for itself, of what it does for its closest one
)
REPEAT_SHARE_MIN: Final = (
    0.03  # of steps that lead to the same item again: where there are so many, users come back to any item
)
WEIGHT_MIN: Final = 1e-6  # of an item that has no neighbour but itself
HOLDOUT_SHARE: Final = 0.1  # of the time, on which the two ways are compared
CASES_MIN: Final = 100
RECENT_MAX: Final = 8  # items that a worker remembers of a user
TOP_K: Final = 20

Ints = npt.NDArray[np.int64]


class WeightedPairs(NamedTuple):
    """How much items `a` speak for items `b` (N,), the k-th latest of a user's items as its weight by k ** -fading."""

    a: Ints
    b: Ints
    weight: npt.NDArray[np.float64]
    recency_exponent: float


class Interactions(NamedTuple):
    """Who took what, user by user in the order of time: numbers of users and items, and when; all (N,)."""

    user: Ints
    item: Ints
    ts_ms: Ints
    items: int

    def select(self, mask: npt.NDArray[np.bool_]) -> "Interactions":
        return Interactions(self.user[mask], self.item[mask], self.ts_ms[mask], self.items)


def find_neighbours(interactions: Any) -> dict[str, npt.NDArray[Any]]:
    """The arrays of neighbours.npz from a table (user_id, item_id, ts_ms); see `contract.bundle`."""
    names, item = np.unique(interactions.column("item_id").to_numpy().astype("S"), return_inverse=True)
    user = np.unique(interactions.column("user_id").to_numpy().astype("S"), return_inverse=True)[1]
    ts_ms = interactions.column("ts_ms").to_numpy()
    order = np.lexsort((item, ts_ms, user))
    history = Interactions(user[order], item[order], ts_ms[order], len(names))
    pairs = pair_by_ease(history) if is_ease_better(history) else pair_by_sequence(history)
    rows, weights = select_closest(pairs, len(names))
    users_of = np.bincount(np.unique(np.stack([item, user]), axis=1)[0], minlength=len(names))
    popular = np.lexsort((np.arange(len(names)), -users_of))[:POPULAR_MAX]
    return {
        "items": names,
        "neighbours": rows,
        "weights": weights,
        "fading": np.array(pairs.recency_exponent, np.float32),
        "popular": popular.astype(np.int32),
    }


def pair_by_sequence(history: Interactions) -> WeightedPairs:
    """Pairs of items that users took one soon after the other, the sooner the more, and less the other way round.

    What is frequent is divided by, but less for the item that is spoken for: popular items are taken often. An item
    that users come back to speaks for itself `OWN` times as much as for its closest neighbour; in a shop where that is
    usual every item does.
    """
    item, user, items = history.item, history.user, history.items
    codes, amounts, repeats = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, np.int64)]
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


def find_repeated_items(repeats: Ints, other_steps: int, items: int) -> Ints:
    """Items that users come back to: `again`, with repeats, or any where of `apart` other steps these are many."""
    is_usual = len(repeats) > REPEAT_SHARE_MIN * (len(repeats) + other_steps)
    return np.arange(items) if is_usual else np.unique(repeats)


def pair_by_ease(history: Interactions) -> WeightedPairs:
    """Pairs of items by the linear model, those that speak for one another."""
    weights = fit_ease(history.user, history.item, history.items)
    a, b = np.nonzero(weights > 0)
    return WeightedPairs(a, b, weights[a, b], 0.0)


def is_ease_better(history: Interactions) -> bool:
    """Whether the linear model finds more of what users took in the last part of the time and never before."""
    if not 0 < history.items <= ITEMS_MAX:
        return False
    begin_ms = np.quantile(history.ts_ms, 1 - HOLDOUT_SHARE)
    before, after = history.select(history.ts_ms < begin_ms), history.select(history.ts_ms >= begin_ms)
    if len(np.intersect1d(before.user, after.user)) < CASES_MIN:
        return False
    return measure_recall(pair_by_ease(before), before, after) > measure_recall(pair_by_sequence(before), before, after)


def measure_recall(pairs: WeightedPairs, before: Interactions, after: Interactions) -> float:
    """The mean share of each user's new items `after` that are among the best for their latest items `before`."""
    rows, weights = select_closest(pairs, before.items)
    shares = []
    for user in np.intersect1d(before.user, after.user).tolist():
        past_items = before.item[slice(*np.searchsorted(before.user, (user, user + 1)))]
        new_items = np.setdiff1d(after.item[slice(*np.searchsorted(after.user, (user, user + 1)))], past_items)
        if len(new_items):
            recent = list(dict.fromkeys(past_items[::-1].tolist()))[:RECENT_MAX]
            score = np.zeros(before.items + 1)  # the last one is for no item
            for rank, item in enumerate(recent, 1):
                score[rows[item]] += weights[item] * rank**-pairs.recency_exponent
            score[past_items] = score[-1] = -1
            best = np.argpartition(-score, min(TOP_K, before.items))[:TOP_K]
            shares.append(len(np.intersect1d(best, new_items)) / len(new_items))
    return float(np.mean(shares)) if shares else 0.0


def select_closest(pairs: WeightedPairs, items: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The closest neighbours (items, K) of each item, -1 where there are no more, and their weights."""
    order = np.lexsort((pairs.b, -pairs.weight, pairs.a))
    a, b, weight = pairs.a[order], pairs.b[order], pairs.weight[order]
    rank = np.arange(len(a)) - np.searchsorted(a, a)
    selected = rank < NEIGHBOURS_MAX
    rows = np.full((items, NEIGHBOURS_MAX), -1, np.int32)
    weights = np.zeros((items, NEIGHBOURS_MAX), np.float32)
    rows[a[selected], rank[selected]], weights[a[selected], rank[selected]] = b[selected], weight[selected]
    return rows, weights
