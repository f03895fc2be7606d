"""Which of the lists that all users share a worker writes, so that several workers do not all write them.

Each list belongs to a partition of the clicks by the hash of its key; the owner of the partition writes it. When the
partition moves, so do its lists, and no list is without a worker that is in the group.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.hashing import hash_texts


class ItemShare(NamedTuple):
    """The partitions of the clicks that a worker has, and their number in all."""

    owned: frozenset[int]
    partitions: int

    def find_own(self, keys: Sequence[str]) -> npt.NDArray[np.bool_]:
        """(N) Whether the worker writes the lists of these keys."""
        return self.contains(hash_texts(keys))

    def contains(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """`find_own` for the hashes of keys (N)."""
        owner = hashes % np.uint64(max(self.partitions, 1))
        return np.isin(owner, np.array(sorted(self.owned), np.uint64))


WHOLE: Final = ItemShare(frozenset({0}), 1)  # of the only worker
