"""Users' histories as retrieval reads them: the latest events of each user, newest first."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

ACTIONS: Final = ("", "click", "cart", "order")  # by the code of an action
CLICK: Final = ACTIONS.index("click")


class Histories(NamedTuple):
    """Of U users: hashes of items (U, L), newest first, 0 for none; codes of actions (U, L); times (U, L), in s."""

    items: npt.NDArray[np.uint64]
    actions: npt.NDArray[np.uint8]
    seen_s: npt.NDArray[np.uint32]

    def prepend(self, recent: npt.NDArray[np.uint64], ts_ms: npt.NDArray[np.int64]) -> "Histories":
        """The histories with the recent items (U, R) that are newer than all of them, seen at `ts_ms` (U,)."""
        newer = from_recent(recent, ts_ms)
        if not self.items.shape[1]:
            return newer
        known = recent == self.items[:, :1]
        counts = np.where(known.any(1), known.argmax(1), recent.shape[1])
        keep = np.concatenate(
            [np.arange(recent.shape[1]) < counts[:, None], np.ones(self.items.shape, np.bool_)], axis=1
        )
        order = np.argsort(~keep, axis=1, kind="stable")[:, : self.items.shape[1]]
        return Histories(
            *(
                np.take_along_axis(np.concatenate([new, old], axis=1), order, 1)
                for new, old in zip(newer, self, strict=True)
            )
        )


class UserHistories(Protocol):
    """Keeps the histories of all users."""

    def read(self, users: Sequence[str]) -> Histories:
        """The histories of these users; raises `Unavailable`."""


def from_recent(recent: npt.NDArray[np.uint64], ts_ms: npt.NDArray[np.int64]) -> Histories:
    """Histories of the recent items (U, R) of profiles, as clicks at the time of the latest event (U,)."""
    is_item = recent != 0
    seen_s = np.where(is_item, ts_ms[:, None] // 1000, 0)
    return Histories(recent, (is_item * CLICK).astype(np.uint8), seen_s.astype(np.uint32))
