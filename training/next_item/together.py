"""Items that are bought together, from baskets: the orders of one user at one time.

The strength of a pair is its cosine, the root of lift times support (Tan, Kumar and Srivastava 2002): a share of both
items' baskets, so an item that is in most baskets is strong with none of them. A pair counts from three baskets on, and
if it is in more of them than chance would put it in (lift, Brin et al. 1997) by three standard deviations.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from contract.arrays import Integers
from export.neighbours import WeightedPairs, select_closest
from model.sequence.next_item import encode_texts
from training.next_item.histories import History

ORDER: Final = 3  # the action
SUPPORT_MIN: Final = 3  # baskets
DEVIATIONS_MIN: Final = 3.0
TOGETHER_MAX: Final = 40  # items that are kept of each
BASKET_MAX: Final = 100  # items of a basket; what exceeds it is no choice of things that go together


def find_together(history: History) -> dict[str, Tensor]:
    """The table of items bought together as tensors, for a checkpoint; empty if there is no pair that counts."""
    basket, item = find_baskets(history)
    pairs = weigh_pairs(basket, item, len(history.names))
    if not len(pairs.a):
        return {}
    rows, weights = select_closest(pairs, len(history.names), TOGETHER_MAX)
    known = np.flatnonzero(rows[:, 0] >= 0)  # each other item of a pair is one, too
    place = np.full(len(history.names) + 1, -1, np.int32)
    place[known] = np.arange(len(known))
    width = int((rows[known] >= 0).sum(1).max())
    return {
        "items": encode_texts(history.names[known]),
        "rows": torch.from_numpy(place[rows[known, :width]]),
        "weights": torch.from_numpy(weights[known, :width]),
    }


def find_baskets(history: History) -> tuple[Integers, Integers]:
    """The baskets and their distinct items (N,), sorted; none without times, which tell what was bought together."""
    if not history.has_times or not len(history):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    orders = history.select(history.action == ORDER)
    is_new = np.append(True, (np.diff(orders.user) != 0) | (np.diff(orders.ts_ms) != 0))[: len(orders)]
    code = np.unique((np.cumsum(is_new) - 1) * len(history.names) + orders.item)
    basket, item = np.divmod(code, len(history.names))
    sizes = np.bincount(basket)
    kept = sizes[basket] <= BASKET_MAX
    return basket[kept], item[kept]


def weigh_pairs(basket: Integers, item: Integers, items: int) -> WeightedPairs:
    """The pairs that count, in both directions, with their strengths."""
    codes = [np.zeros(0, np.int64)]
    for lag in range(1, int(np.bincount(basket).max(initial=0)) if len(basket) else 0):
        same = basket[:-lag] == basket[lag:]
        codes.append(item[:-lag][same] * items + item[lag:][same])  # items of a basket ascend
    code, together = np.unique(np.concatenate(codes), return_counts=True)
    a, b = np.divmod(code, max(items, 1))
    count = np.bincount(item, minlength=items)
    expected = count[a] * count[b] / max(len(np.unique(basket)), 1)
    counts = (together >= SUPPORT_MIN) & (together - expected >= DEVIATIONS_MIN * np.sqrt(expected))
    a, b, strength = a[counts], b[counts], (together / np.sqrt(count[a] * count[b]))[counts]
    return WeightedPairs(np.append(a, b), np.append(b, a), np.append(strength, strength), 0.0)
