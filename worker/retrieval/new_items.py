"""Vectors of items that are newer than the bundle: what items of the same category, brand and seller have in common.

An item's vector is the average of the mean vectors of its groups. It is shorter than 1, the more so the less the items
of a group have in common: its product with a user's vector is the similarity that is to be expected of such an item,
so that new items of a vague group do not push known ones out.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from contract.compilation import jit
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.retrieval.bundle_items import BundleItems
from worker.rules.caps import GROUPED

Vectors = npt.NDArray[np.float32]
GROWTH: Final = 1.01  # of the items that means are taken over, before they are taken again


class NewItemVectors:
    """Estimates vectors of the catalogue's items that a bundle lacks, from its own `vectors` (M, d)."""

    def __init__(self, vectors: Vectors, catalogue: Catalogue) -> None:
        self._vectors, self._catalogue = vectors, catalogue
        self._means: list[Vectors] = []  # by group: of each of its codes, zeros where no item says anything
        self._means_count = 0  # items that they are taken over

    def estimate(self, items: BundleItems) -> tuple[ItemNumbers, Vectors]:
        """The new items (N,) about which anything is known, and their vectors (N, d)."""
        numbers = items.find_new()
        numbers = numbers[self._catalogue.is_listed[numbers]]
        if not len(numbers) or not self._update_means(items):
            return np.zeros(0, np.int64), self._vectors[:0]
        vectors = np.zeros((len(numbers), self._vectors.shape[1]), np.float32)
        groups = np.zeros(len(numbers), np.float32)
        for column, means in zip(GROUPED, self._means, strict=True):
            codes = getattr(self._catalogue, column)[numbers]
            group_means = means[np.where(codes < len(means), codes, 0)]
            vectors += group_means
            groups += group_means.any(1)
        is_known = groups > 0
        return numbers[is_known], vectors[is_known] / groups[is_known, None]

    def _update_means(self, items: BundleItems) -> bool:
        """Take the means over the items that are in bundle and catalogue, where there are more; whether there are any.

        Codes that came since have no mean yet.
        """
        rows, numbers = items.find_present()
        if len(rows) > self._means_count * GROWTH:
            self._means_count = len(rows)
            self._means = [
                average_by_code(getattr(self._catalogue, column)[numbers], rows, self._vectors) for column in GROUPED
            ]
        return self._means_count > 0


def average_by_code(codes: npt.NDArray[np.int32], rows: npt.NDArray[np.int64], vectors: Vectors) -> Vectors:
    """The mean (C, d) of the vectors of the items of each code; zeros for code 0, which is no word."""
    sums, counts = sum_by_code(codes, rows, vectors, int(codes.max(initial=0)) + 1)
    sums[0] = 0
    means: Vectors = sums / np.maximum(counts, 1)[:, None]
    return means


@jit
def sum_by_code(codes, rows, vectors, count):  # type: ignore[no-untyped-def]
    """The sums (count, d) of vectors[rows[n]] by codes[n], and the number of items of each code (count,)."""
    sums = np.zeros((count, vectors.shape[1]), np.float32)
    counts = np.zeros(count, np.float32)
    for n in range(len(codes)):
        counts[codes[n]] += 1
        for d in range(vectors.shape[1]):
            sums[codes[n], d] += vectors[rows[n], d]
    return sums, counts
