"""Where the items of a bundle are in the catalogue, and the row of an item by the hash in a history.

Items that are newer than the bundle may follow as further rows.
"""

import numpy as np
import numpy.typing as npt

from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers

Hashes = npt.NDArray[np.uint64]


class BundleItems:
    """Rows of a bundle's tables and numbers of the catalogue as it was when this was made: `items_known` items.

    Rows are found by hash too: items of a history that are no longer in the catalogue still say what a user likes.
    """

    def __init__(self, hashes: Hashes, catalogue: Catalogue) -> None:
        self.items_known = len(catalogue)
        self._order = np.argsort(hashes)
        self._sorted = hashes[self._order]
        # (M + 1,), or longer with new items; the last one is that of no row
        self.number = catalogue.find_hashes(np.append(hashes, np.uint64(0))).astype(np.int32)
        self._row = np.full(self.items_known + 1, -1, np.int32)  # the last one is for unknown items
        present = np.flatnonzero(self.number >= 0)
        self._row[self.number[present]] = present

    def find_present(self) -> tuple[npt.NDArray[np.int64], ItemNumbers]:
        """The rows of the bundle whose items the catalogue has, and the numbers of these items."""
        number = self.number[: len(self._sorted)]
        rows = np.flatnonzero(number >= 0)
        return rows, number[rows].astype(np.int64)

    def find_new(self) -> ItemNumbers:
        """The items of the catalogue that the bundle lacks."""
        row = self._row[:-1]
        return np.flatnonzero((row < 0) | (row >= len(self._sorted)))

    def replace_new(self, numbers: ItemNumbers) -> None:
        """Let these items, which the bundle lacks, follow its own as further rows, in place of former ones."""
        bundle_rows = len(self._sorted)
        self._row[:-1][self._row[:-1] >= bundle_rows] = -1
        self._row[numbers] = np.arange(bundle_rows, bundle_rows + len(numbers))
        self.number = np.concatenate([self.number[:bundle_rows], numbers.astype(np.int32), self.number[-1:]])

    def find_rows(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        """The row in the bundle of each hash, in the same shape; -1 for an item that it lacks, or no item."""
        if not len(self._sorted):
            return np.full(hashes.shape, -1, np.int64)
        positions = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[positions] == hashes, self._order[positions], -1)

    def rows_of(self, numbers: ItemNumbers) -> npt.NDArray[np.int32]:
        """The row of each catalogue number, in the same shape; -1 for an item without one, or no item."""
        is_known = (numbers >= 0) & (numbers < self.items_known)
        rows: npt.NDArray[np.int32] = self._row[np.where(is_known, numbers, self.items_known)]
        return rows
