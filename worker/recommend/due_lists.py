"""Which lists by category are due: those that changed, and each one once in a cycle, because Redis may have lost it."""

from typing import Final

import numpy as np
import numpy.typing as npt

from worker.catalogue.item_index import ItemNumbers

REWRITE_CYCLE: Final = 60  # calls in which every list is written once, changed or not, because Redis may have lost it


class DueLists:
    """Compares lists (C, length), -1 after the last item, with those of the last call: few of thousands change."""

    def __init__(self, length: int) -> None:
        self._written: ItemNumbers = np.zeros((0, length), np.int64)
        self._turn = 0

    def find(self, lists: ItemNumbers, *, all_changed: bool = False) -> tuple[ItemNumbers, npt.NDArray[np.bool_]]:
        """The rows that are due, and which rows (C,) were not empty before: an empty list is deleted only over one.

        `all_changed`: whether what is written with the items may differ, so that every row is due.
        """
        changed, was_filled = np.ones(len(lists), np.bool_), np.zeros(len(lists), np.bool_)
        known = min(len(lists), len(self._written))
        if not all_changed:
            changed[:known] = (lists[:known] != self._written[:known]).any(1)
        was_filled[:known] = (self._written[:known] >= 0).any(1)
        return np.flatnonzero(changed | (np.arange(len(lists)) % REWRITE_CYCLE == self._turn)), was_filled

    def record(self, lists: ItemNumbers) -> None:
        """These lists were written as far as they were due; without this call they stay due."""
        self._written = lists
        self._turn = (self._turn + 1) % REWRITE_CYCLE


def join_tables(top: ItemNumbers, in_category: ItemNumbers, length: int) -> ItemNumbers:
    """Lists by category code (C, length), -1 after the last; row 0 (no category) is the one of all items."""
    lists = np.full((len(in_category), length), -1, np.int64)
    width = min(length, in_category.shape[1])
    lists[:, :width] = in_category[:, :width]
    lists[0] = -1
    lists[0, : len(top[:length])] = top[:length]
    return lists
