"""Masked links: what a ring has in place of the id of an erased user.

A fold has to recognise the user's next event up to the erasure, or another batch size would give other bytes; so
something of the id has to stay. It is its first 20 bits: in a shop with ten million users about ten have the same.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from contract.compilation import jit_in_place
from contract.profiles.erasures import ErasedIds

# Ids of links are hashes of 63 bits; the highest bit marks a masked one.
MASKED: Final = np.uint64(1 << 63)
IDENT_BITS: Final = np.uint64((1 << 63) - 1)
MASK_KEEPS: Final = np.uint64((1 << 63) - (1 << 43))


@jit_in_place
def mask_ident(ident):  # type: ignore[no-untyped-def]
    """The masked id; the first bits also keep its rank among ids that were seen in the same second."""
    return (ident & MASK_KEEPS) | MASKED


def mask_erased_links(slices: npt.NDArray[np.void], erased: ErasedIds) -> npt.NDArray[np.bool_]:
    """Mask the links of erased users in S slices, in place; returns which slices have changed (S).

    The bytes are those of a fold that knew the erasures from the beginning.
    """
    ids, seen_s = slices["links"]["id"], slices["links"]["seen_s"]  # (S, 2, RING)
    if not len(erased.idents):
        return np.zeros(len(slices), np.bool_)
    position = np.minimum(np.searchsorted(erased.idents, ids), len(erased.idents) - 1)
    is_hit = (erased.idents[position] == ids) & (seen_s <= erased.until_s[position])
    ids[is_hit] = (ids[is_hit] & MASK_KEEPS) | MASKED
    changed: npt.NDArray[np.bool_] = is_hit.any(axis=(1, 2))
    return changed
