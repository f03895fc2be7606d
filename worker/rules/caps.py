"""How many items of a group a list may have: the caps of rules, which are strict, and those of the settings."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.rules.item_selection import Mask

GROUPED: Final = ("category", "seller", "brand")  # columns of the catalogue that caps and likeness go by


class Cap(NamedTuple):
    """At most `maximum` items of each group `per`, or of the items of `mask` together; see `arrangement` for strict."""

    name: str
    maximum: int
    per: str | None
    mask: Mask | None = None
    is_strict: bool = True


def list_soft_caps(category_max: int, seller_max: int) -> list[Cap]:
    """The caps of the settings, which a list exceeds where it would be shorter otherwise; 0 is no cap."""
    caps = [
        Cap("lists.category_max", category_max, "category", is_strict=False),
        Cap("lists.seller_max", seller_max, "seller", is_strict=False),
    ]
    return [cap for cap in caps if cap.maximum]


def gather_caps(
    caps: Sequence[Cap], numbers: ItemNumbers, catalogue: Catalogue
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], Mask]:
    """The group of each item in each cap (C, P), 0 for none; the maxima (C,); and whether caps are strict (C,)."""
    groups = np.zeros((len(caps), len(numbers)), np.int32)
    for c, cap in enumerate(caps):
        groups[c] = getattr(catalogue, cap.per)[numbers] if cap.per else 1
        if cap.mask is not None:
            groups[c] *= cap.mask[numbers]
    maxima = np.array([cap.maximum for cap in caps], np.int64)
    return groups, maxima, np.array([cap.is_strict for cap in caps], np.bool_)


def thin_by_caps(pool: ItemNumbers, pins: ItemNumbers, caps: Sequence[Cap], catalogue: Catalogue) -> ItemNumbers:
    """The first items of the pool of each group, as many as the pins of the group leave of its cap."""
    for cap in caps:
        groups, _, _ = gather_caps([cap], np.concatenate([pins, pool]), catalogue)
        counts = Counter[int]()
        is_kept = np.zeros(groups.shape[1], np.bool_)
        for n, group in enumerate(groups[0].tolist()):
            counts[group] += 1
            is_kept[n] = group == 0 or counts[group] <= cap.maximum
        pool = pool[is_kept[len(pins) :]]
    return pool
