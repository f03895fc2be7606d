"""Neighbours of items and popular items, learned from who took what: where the worker's candidates come from.

There are two ways to say how much an item speaks for another one. Counting how closely they follow one another is good
for browsing, of however many items: there the k-th latest item of a user speaks with 1 / k. A linear model of what
users have (`export.linear`) is good for shops of few items that are bought together, and there all speak alike. Which
of them a shop is served with, its own latest interactions decide.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from export.linear import ITEMS_MAX, fit_linear

NEIGHBOURS_MAX: Final = 50
POPULAR_MAX: Final = 1_000
LAG_MAX: Final = 10  # how far apart two items of one user may stand to count as seen together
BACK: Final = 0.7  # how much the later of two items speaks for the earlier one, where the earlier one speaks with 1
OF, FOR = 0.5, 0.3  # powers of how often an item occurs that weights are divided by: the one that speaks, the other
OWN: Final = 3.0  # how much an item that users come back to speaks for itself, of what it does for its closest one
RETURNS: Final = 0.03  # of steps that lead to the same item again: where there are so many, users come back to any item
TINY: Final = 1e-6  # of an item that has no neighbour but itself
HELD_OUT: Final = 0.1  # of the time, on which the two ways are compared
CASES_MIN: Final = 100
RECENT: Final = 8  # items that a worker remembers of a user
BEST: Final = 20

Ints = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """How much items `a` speak for items `b` (N,), the k-th latest of a user's items as its weight by k ** -fading."""

    a: Ints
    b: Ints
    weight: npt.NDArray[np.float64]
    fading: float


class Taken(NamedTuple):
    """Who took what, user by user in the order of time: numbers of users and items, and when; all (N,)."""

    user: Ints
    item: Ints
    ts_ms: Ints
    items: int

    def where(self, kept: npt.NDArray[np.bool_]) -> "Taken":
        return Taken(self.user[kept], self.item[kept], self.ts_ms[kept], self.items)


def count_neighbours(interactions: Any) -> dict[str, npt.NDArray[Any]]:
    """The arrays of neighbours.npz from a table (user_id, item_id, ts_ms); see `contract.bundle`."""
    names, item = np.unique(interactions.column("item_id").to_numpy().astype("S"), return_inverse=True)
    user = np.unique(interactions.column("user_id").to_numpy().astype("S"), return_inverse=True)[1]
    ts_ms = interactions.column("ts_ms").to_numpy()
    order = np.lexsort((item, ts_ms, user))
    taken = Taken(user[order], item[order], ts_ms[order], len(names))
    pairs = linear(taken) if is_linear_better(taken) else following(taken)
    rows, weights = closest(pairs, len(names))
    users_of = np.bincount(np.unique(np.stack([item, user]), axis=1)[0], minlength=len(names))
    popular = np.lexsort((np.arange(len(names)), -users_of))[:POPULAR_MAX]
    return {
        "items": names,
        "neighbours": rows,
        "weights": weights,
        "fading": np.array(pairs.fading, np.float32),
        "popular": popular.astype(np.int32),
    }


def following(taken: Taken) -> Pairs:
    """Pairs of items that users took one soon after the other, the sooner the more, and less the other way round.

    What is frequent is divided by, but less for the item that is spoken for: popular items are taken often. An item
    that users come back to speaks for itself `OWN` times as much as for its closest neighbour; in a shop where that is
    usual every item does.
    """
    item, user, items = taken.item, taken.user, taken.items
    codes, amounts, again = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, np.int64)]
    for lag in range(1, min(LAG_MAX, len(item) - 1) + 1):
        same = user[:-lag] == user[lag:]
        a, b = item[:-lag][same], item[lag:][same]
        other = a != b
        again.append(a[~other])
        codes += [a[other] * items + b[other], b[other] * items + a[other]]
        amounts += [np.full(int(other.sum()), 1 / lag), np.full(int(other.sum()), BACK / lag)]
    code, place = np.unique(np.concatenate(codes), return_inverse=True)
    total = np.bincount(place, weights=np.concatenate(amounts), minlength=len(code))
    often = np.maximum(np.bincount(item, minlength=items), 1)
    a, b = code // max(items, 1), code % max(items, 1)
    weight = total / (often[a] ** OF * often[b] ** FOR)
    strongest, own = np.zeros(items), returned_to(np.concatenate(again), len(place) // 2, items)
    np.maximum.at(strongest, a, weight)
    alone = np.maximum(OWN * strongest[own], TINY)
    return Pairs(np.append(a, own), np.append(b, own), np.append(weight, alone), 1.0)


def returned_to(again: Ints, apart: int, items: int) -> Ints:
    """Items that users come back to: `again`, with repeats, or any where of `apart` other steps these are many."""
    is_usual = len(again) > RETURNS * (len(again) + apart)
    return np.arange(items) if is_usual else np.unique(again)


def linear(taken: Taken) -> Pairs:
    """Pairs of items by the linear model, those that speak for one another."""
    weights = fit_linear(taken.user, taken.item, taken.items)
    a, b = np.nonzero(weights > 0)
    return Pairs(a, b, weights[a, b], 0.0)


def is_linear_better(taken: Taken) -> bool:
    """Whether the linear model finds more of what users took in the last part of the time and never before."""
    if not 0 < taken.items <= ITEMS_MAX:
        return False
    begin_ms = np.quantile(taken.ts_ms, 1 - HELD_OUT)
    before, after = taken.where(taken.ts_ms < begin_ms), taken.where(taken.ts_ms >= begin_ms)
    if len(np.intersect1d(before.user, after.user)) < CASES_MIN:
        return False
    return found(linear(before), before, after) > found(following(before), before, after)


def found(pairs: Pairs, before: Taken, after: Taken) -> float:
    """The mean share of each user's new items `after` that are among the best for their latest items `before`."""
    rows, weights = closest(pairs, before.items)
    shares = []
    for user in np.intersect1d(before.user, after.user).tolist():
        had = before.item[slice(*np.searchsorted(before.user, (user, user + 1)))]
        new = np.setdiff1d(after.item[slice(*np.searchsorted(after.user, (user, user + 1)))], had)
        if len(new):
            recent = list(dict.fromkeys(had[::-1].tolist()))[:RECENT]
            score = np.zeros(before.items + 1)  # the last one is for no item
            for at, item in enumerate(recent, 1):
                score[rows[item]] += weights[item] * at**-pairs.fading
            score[had] = score[-1] = -1
            best = np.argpartition(-score, min(BEST, before.items))[:BEST]
            shares.append(len(np.intersect1d(best, new)) / len(new))
    return float(np.mean(shares)) if shares else 0.0


def closest(pairs: Pairs, items: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The closest neighbours (items, K) of each item, -1 where there are no more, and their weights."""
    order = np.lexsort((pairs.b, -pairs.weight, pairs.a))
    a, b, weight = pairs.a[order], pairs.b[order], pairs.weight[order]
    place = np.arange(len(a)) - np.searchsorted(a, a)
    kept = place < NEIGHBOURS_MAX
    rows = np.full((items, NEIGHBOURS_MAX), -1, np.int32)
    weights = np.zeros((items, NEIGHBOURS_MAX), np.float32)
    rows[a[kept], place[kept]], weights[a[kept], place[kept]] = b[kept], weight[kept]
    return rows, weights
