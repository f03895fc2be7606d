"""Which items are hidden from users because of what they bought or saw."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.profiles.histories import ORDER, LatestItems
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.rules.item_selection import Mask

NOTHING: Final[ItemNumbers] = np.zeros(0, np.int64)


class Hide(NamedTuple):
    """Items of a user's history up to `window_ms` ago, of those in `mask`; `is_by_category`: and all of their kind."""

    after: str
    window_ms: float
    is_by_category: bool
    mask: Mask | None


class Hidden(NamedTuple):
    """What is hidden from each of U users: items by catalogue number, and categories by code."""

    items: list[ItemNumbers]
    categories: list[ItemNumbers]

    @classmethod
    def of_items(cls, items: list[ItemNumbers]) -> "Hidden":
        return cls(items, [NOTHING] * len(items))

    def join(self, other: "Hidden") -> "Hidden":
        """What either hides from the same users."""
        return Hidden(
            [np.union1d(a, b) for a, b in zip(self.items, other.items, strict=True)],
            [np.union1d(a, b) for a, b in zip(self.categories, other.categories, strict=True)],
        )


def find_hidden(
    hides: Sequence[Hide],
    latest: LatestItems,
    now_ms: npt.NDArray[np.int64],
    purchases: Sequence[Mapping[str, int]],
    catalogue: Catalogue,
) -> Hidden:
    """What these rules hide from U users with these histories at `now_ms` (U,), in event time.

    `purchases`: items that each user bought, with the time (ms), which their history may lack so far.
    """
    users = len(latest.items)
    owner, numbers, ages_ms, is_bought = collect_seen(latest, now_ms, purchases, catalogue)
    items, categories = [np.zeros((0, 2), np.int64)], [np.zeros((0, 2), np.int64)]
    for hide in hides:
        is_hidden = (ages_ms <= hide.window_ms) & (hide.window_ms > 0)
        if hide.after == "bought":
            is_hidden &= is_bought
        if hide.mask is not None:
            is_hidden &= hide.mask[numbers]
        pairs = np.column_stack([owner, numbers])[is_hidden]
        if hide.is_by_category:
            category = catalogue.category[pairs[:, 1]].astype(np.int64)
            categories.append(np.column_stack([pairs[:, 0], category])[category > 0])
            pairs = pairs[category == 0]
        items.append(pairs)
    return Hidden(split_by_user(np.concatenate(items), users), split_by_user(np.concatenate(categories), users))


def collect_seen(
    latest: LatestItems,
    now_ms: npt.NDArray[np.int64],
    purchases: Sequence[Mapping[str, int]],
    catalogue: Catalogue,
) -> tuple[ItemNumbers, ItemNumbers, npt.NDArray[np.int64], Mask]:
    """The known items that users saw or bought: user, catalogue number, age in ms, and whether they were bought."""
    numbers = catalogue.find_hashes(latest.items)
    is_known = (latest.items != 0) & (numbers >= 0)
    owner, place = np.nonzero(is_known)
    bought = [(user, item, ts_ms) for user, own in enumerate(purchases) for item, ts_ms in own.items()]
    bought_owner = np.array([user for user, _, _ in bought], np.int64)
    bought_numbers = catalogue.find([item for _, item, _ in bought])
    ages_ms = now_ms[owner] - latest.seen_s[owner, place].astype(np.int64) * 1000
    bought_ages_ms = now_ms[bought_owner] - np.array([ts_ms for _, _, ts_ms in bought], np.int64)
    is_item = bought_numbers >= 0
    return (
        np.concatenate([owner, bought_owner[is_item]]),
        np.concatenate([numbers[is_known], bought_numbers[is_item]]),
        np.concatenate([ages_ms, bought_ages_ms[is_item]]),
        np.concatenate([latest.actions[is_known] == ORDER, np.ones(int(is_item.sum()), np.bool_)]),
    )


def split_by_user(pairs: ItemNumbers, users: int) -> list[ItemNumbers]:
    """The second of pairs (N, 2) of a user and a number, for each of the users, each once."""
    pairs = np.unique(pairs, axis=0)
    bounds = np.searchsorted(pairs[:, 0], np.arange(1, users))
    return np.split(pairs[:, 1], bounds) if users else []
