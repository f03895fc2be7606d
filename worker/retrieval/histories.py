"""Histories for lists: the latest items of users in Redis, and before them what a batch has brought since."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contract.profiles.guest_items import KnownItems
from contract.profiles.histories import CLICK, LatestItems


def from_recent(recent: npt.NDArray[np.uint64], ts_ms: npt.NDArray[np.int64]) -> LatestItems:
    """The recent items (U, R) of profiles as a history: clicks at the time of the user's latest event (U,)."""
    is_item = recent != 0
    seen_s = np.where(is_item, ts_ms[:, None] // 1000, 0)
    return LatestItems(recent, (is_item * CLICK).astype(np.uint8), seen_s.astype(np.uint32))


def prepend_recent(known: KnownItems, recent: npt.NDArray[np.uint64], ts_ms: npt.NDArray[np.int64]) -> LatestItems:
    """Histories (U, L) with the recent items (U, R) that are newer than the newest known, seen at `ts_ms` (U,)."""
    newer, histories = from_recent(recent, ts_ms), known.latest
    width = histories.items.shape[1]
    if not width:
        return newer
    is_known = recent == known.newest[:, None]
    counts = np.where(is_known.any(1), is_known.argmax(1), recent.shape[1])
    is_newer = (np.arange(recent.shape[1]) < counts[:, None]) & (recent != 0)
    is_kept = np.concatenate([is_newer, np.ones(histories.items.shape, np.bool_)], axis=1)
    order = np.argsort(~is_kept, axis=1, kind="stable")[:, :width]
    return LatestItems(
        np.take_along_axis(np.concatenate([newer.items, histories.items], axis=1), order, 1),
        np.take_along_axis(np.concatenate([newer.actions, histories.actions], axis=1), order, 1),
        np.take_along_axis(np.concatenate([newer.seen_s, histories.seen_s], axis=1), order, 1),
    )


class BatchHistories(NamedTuple):
    """The histories of users before a batch, and the row of each user."""

    row_by_user: Mapping[str, int]
    known: KnownItems

    def take(self, users: Sequence[str]) -> KnownItems:
        """The histories of some of the users, in this order."""
        rows = np.array([self.row_by_user[user] for user in users], np.int64)
        latest = self.known.latest
        taken = LatestItems(latest.items[rows], latest.actions[rows], latest.seen_s[rows])
        return KnownItems(taken, self.known.newest[rows])
