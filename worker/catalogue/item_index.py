"""An index from an item's 64-bit hash to its number, in 12 bytes an item.

Profiles store items by these hashes. A dictionary of a million item ids would take ten times the memory.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

ItemNumbers = npt.NDArray[np.int64]
RECENT_MAX: Final = 65_536  # new items between two merges: merging each by itself would be quadratic


class ItemIndex:
    """Sorted hashes with their numbers, and the latest ones in a dictionary until they are merged."""

    def __init__(self) -> None:
        self._hashes = np.zeros(0, np.uint64)
        self._numbers = np.zeros(0, np.int32)
        self._recent: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._hashes) + len(self._recent)

    def add(self, key: int) -> int:
        """The number of this hash: the next one if it is new."""
        number = self.get(key)
        if number < 0:
            number = self._recent[key] = len(self._hashes) + len(self._recent)
            if len(self._recent) >= RECENT_MAX:
                self._merge()
        return number

    def get(self, key: int) -> int:
        """The number of this hash, or -1."""
        if (number := self._recent.get(key)) is not None:
            return number
        position = int(self._hashes.searchsorted(np.uint64(key)))
        if position == len(self._hashes) or int(self._hashes[position]) != key:
            return -1
        return int(self._numbers[position])

    def find(self, keys: npt.NDArray[Any]) -> ItemNumbers:
        """The number of each hash, in the same shape, or -1."""
        if self._recent:
            self._merge()
        wanted = keys.astype(np.uint64, copy=False)
        if not len(self._hashes):
            return np.full(wanted.shape, -1, np.int64)
        positions = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return np.where(self._hashes[positions] == wanted, self._numbers[positions], -1).astype(np.int64)

    def _merge(self) -> None:
        hashes = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        order = np.argsort(hashes)
        numbers = np.fromiter(self._recent.values(), np.int32, len(self._recent))[order]
        positions = np.searchsorted(self._hashes, hashes[order])
        self._hashes = np.insert(self._hashes, positions, hashes[order])
        self._numbers = np.insert(self._numbers, positions, numbers)
        self._recent.clear()
