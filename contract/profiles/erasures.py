"""Erasures: which users to erase, and up to which event time.

An erasure covers the user's events whose `ts_ms` is at or before its own. So what a fold skips depends only on the
events and the erasures: not on which process folds, when, or in which order partitions are read. Of several erasures of
one user the latest time counts, so their order does not matter either, and none is ever revoked.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.events.model import Erasure, Event, UserEvent
from contract.hashing import hash_id


class ErasedIds(NamedTuple):
    """Erased users as links name them: hashes of their entities, ascending, and the last erased second of each."""

    idents: npt.NDArray[np.uint64]
    until_s: npt.NDArray[np.int64]


NO_ERASED_IDS: Final = ErasedIds(np.zeros(0, np.uint64), np.zeros(0, np.int64))


class Erasures:
    """The erasures that are known so far."""

    def __init__(self, erasures: Iterable[Erasure] = ()) -> None:
        self.until_ms: dict[str, int] = {}  # by entity, `user:ID`
        self.changes = 0  # the number of erasures that covered anything new
        self._erased_ids = NO_ERASED_IDS
        for erasure in erasures:
            self.add(erasure)

    def __len__(self) -> int:
        return len(self.until_ms)

    def add(self, erasure: Erasure) -> bool:
        """Add one; returns whether it covers anything new."""
        user = f"user:{erasure.user_id}"
        if erasure.ts_ms <= self.until_ms.get(user, -1):
            return False
        self.until_ms[user] = erasure.ts_ms
        self.changes += 1
        self._erased_ids = NO_ERASED_IDS
        return True

    def covers(self, user_id: str, ts_ms: int) -> bool:
        """Whether an event of this user at `ts_ms` is erased."""
        return bool(self.until_ms) and ts_ms <= self.until_ms.get(f"user:{user_id}", -1)

    def covers_event(self, event: Event) -> bool:
        """Whether an event is erased; events without a user never are."""
        return isinstance(event, UserEvent) and self.covers(event.user_id, event.ts_ms)

    def to_erased_ids(self) -> ErasedIds:
        """All erasures as a fold searches them. Links have seconds, so the whole last second counts as erased."""
        if len(self._erased_ids.idents) < len(self.until_ms):
            idents = np.array([hash_id(user) for user in self.until_ms], np.uint64)
            order = np.argsort(idents)
            until_s = np.array(list(self.until_ms.values()), np.int64) // 1000
            self._erased_ids = ErasedIds(idents[order], until_s[order])
        return self._erased_ids


class NoErasures(Erasures):
    """The constant without erasures, for folds that erase nothing."""

    def add(self, erasure: Erasure) -> bool:
        raise TypeError("Erasures should be added to an `Erasures` of one's own. Found the constant `NO_ERASURES`.")


NO_ERASURES: Final = NoErasures()
