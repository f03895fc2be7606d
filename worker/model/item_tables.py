"""Tables of items in a bundle: their neighbours with weights, and their vectors with counts of interactions."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.bundle import Bundle
from contract.errors import BadBundle
from contract.hashing import item_hash
from worker.model.bundle_parts import Arrays, load_arrays, reject_on_error

FADING_MAX: Final = 10.0  # beyond it only the latest item has weight
UNIT_TOLERANCE: Final = 1e-3  # of the squared length of a vector


class NeighbourTable(NamedTuple):
    """Hashes of M items (M,), row numbers of their neighbours (M, K) or -1, weights (M, K), and P popular rows (P,).

    The neighbours of a user's k-th latest item are weighted by k ** -fading.
    """

    hashes: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    popular: npt.NDArray[np.int32]
    fading: float


class VectorTable(NamedTuple):
    """Of M items: hashes (M,), vectors (M, d) of unit length, and counts of interactions (M,), in all and of late."""

    hashes: npt.NDArray[np.uint64]
    vectors: npt.NDArray[np.float32]
    counts: npt.NDArray[np.float32]
    recent_counts: npt.NDArray[np.float32]


def read_neighbours(bundle: Bundle) -> NeighbourTable:
    arrays = load_arrays(bundle, "neighbours.npz")
    with reject_on_error(
        "neighbours.npz should hold items, their neighbours with weights and their fading, and popular ones"
    ):
        hashes, popular = hash_items(arrays["items"]), arrays["popular"].astype(np.int32)
    if popular.size and not (popular.min() >= 0 and popular.max() < len(hashes)):
        raise BadBundle(f"Popular items should be among the {len(hashes)} items. Found number {int(popular.max())}.")
    return make_table("neighbours.npz", arrays, hashes, popular)


def read_other_neighbours(bundle: Bundle, neighbours: NeighbourTable) -> NeighbourTable | None:
    """The second source of neighbours, of the same items; None where the bundle has none."""
    if "other_neighbours.npz" not in bundle.files:
        return None
    arrays = load_arrays(bundle, "other_neighbours.npz")
    return make_table("other_neighbours.npz", arrays, neighbours.hashes, neighbours.popular)


def read_together(bundle: Bundle) -> NeighbourTable | None:
    """Items that are bought together, with the strength of each pair; None where the bundle has none."""
    if "together.npz" not in bundle.files:
        return None
    arrays = load_arrays(bundle, "together.npz")
    with reject_on_error("together.npz should hold items, those bought together with each, and their weights"):
        hashes = hash_items(arrays["items"])
        arrays["fading"] = np.zeros(())
    return make_table("together.npz", arrays, hashes, np.zeros(0, np.int32))


def make_table(
    name: str, arrays: Arrays, hashes: npt.NDArray[np.uint64], popular: npt.NDArray[np.int32]
) -> NeighbourTable:
    """A checked table; raises `BadBundle`."""
    with reject_on_error(f"{name} should hold neighbours of items with weights and their fading"):
        rows = arrays["neighbours"].astype(np.int32)
        weights = np.nan_to_num(arrays["weights"].astype(np.float32), posinf=0.0, neginf=0.0)
        fading = float(arrays["fading"])
    if rows.ndim != 2 or len(rows) != len(hashes) or weights.shape != rows.shape:
        raise BadBundle(f"Each of {len(hashes)} items should have a row of neighbours. Found {rows.shape}.")
    if rows.size and not (rows.min() >= -1 and rows.max() < len(hashes)):
        raise BadBundle(f"Neighbours should be among the {len(hashes)} items. Found number {int(rows.max())}.")
    if not 0 <= fading <= FADING_MAX:
        raise BadBundle(f"The fading of neighbours should be from 0 to {FADING_MAX}. Found {fading}.")
    return NeighbourTable(hashes, rows, weights, popular, fading)


def read_vectors(bundle: Bundle) -> VectorTable:
    """Raises `BadBundle` unless every item has a finite vector of unit length and counts."""
    arrays = load_arrays(bundle, "vectors.npz")
    with reject_on_error("vectors.npz should hold items, their vectors, and their counts"):
        hashes = hash_items(arrays["items"])
        vectors, counts, recent_counts = (
            np.ascontiguousarray(arrays[name], np.float32) for name in ("vectors", "counts", "recent_counts")
        )
    if vectors.ndim != 2 or len(vectors) != len(hashes) or not vectors.shape[1]:
        raise BadBundle(f"Each of {len(hashes)} items should have a vector. Found {vectors.shape}.")
    if counts.shape != hashes.shape or recent_counts.shape != hashes.shape:
        raise BadBundle(
            f"Each of {len(hashes)} items should have both counts. Found {counts.shape}, {recent_counts.shape}."
        )
    for name, values in (("vector", vectors), ("count", counts[:, None]), ("recent count", recent_counts[:, None])):
        finite = np.asarray(np.isfinite(values).all(1), np.bool_)
        if not finite.all():
            raise BadBundle(f"The {name} of every item should be finite. Found others: {name_first(arrays, ~finite)}.")
    if counts.min(initial=0) < 0 or recent_counts.min(initial=0) < 0:
        raise BadBundle(f"Counts should not be negative. Found {min(counts.min(), recent_counts.min())}.")
    squared_length = np.asarray(np.einsum("md,md->m", vectors, vectors), np.float32)
    is_unit = np.asarray(np.isclose(squared_length, 1, 0, UNIT_TOLERANCE), np.bool_)
    if not is_unit.all():
        raise BadBundle(
            f"The vector of every item should have unit length. Found others: {name_first(arrays, ~is_unit)}."
        )
    return VectorTable(hashes, vectors, counts, recent_counts)


def hash_items(items: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    return np.array([item_hash(item.decode()) for item in items.tolist()], np.uint64)


def name_first(arrays: Arrays, mask: npt.NDArray[np.bool_]) -> str:
    """How many items are marked, and the first one."""
    return f"{int(mask.sum())}, first {arrays['items'][mask][0].decode()}"
