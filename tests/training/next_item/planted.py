"""A shop in which each item is followed by its own next one, most of the time."""

from functools import cache

import numpy as np
import torch

from training.next_item.fit import NextItemOptions, NextItemResult, fit_next_item
from training.next_item.histories import History

ITEMS, USERS, STEPS = 60, 400, 8
FOLLOWED_SHARE = 0.8
OPTIONS = NextItemOptions(epochs=2)


def plant_history(followed_share: float = FOLLOWED_SHARE, users: int = USERS, seed: int = 0) -> History:
    rng = np.random.default_rng(seed)
    successor, rows = rng.permutation(ITEMS), list[tuple[int, int, int]]()
    for user in range(users):
        item, ts_ms = int(rng.integers(ITEMS)), int(rng.integers(10**9))
        for _ in range(STEPS):
            rows.append((user, ts_ms, item))
            item = int(successor[item]) if rng.random() < followed_share else int(rng.integers(ITEMS))
            ts_ms += int(rng.integers(1, 10**6))
    user_number, times, item_number = np.array(sorted(rows), np.int64).reshape(-1, 3).T
    names = np.array([f"i{item:03d}".encode() for item in range(ITEMS)], np.bytes_)
    return History(user_number, item_number, times, np.ones(len(rows), np.int8), names)


@cache
def fit_planted() -> NextItemResult:
    torch.set_num_threads(1)
    return fit_next_item(plant_history(), OPTIONS)
