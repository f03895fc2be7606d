"""Checks of the next-item part of a bundle, without torch; a bundle may have none."""

from typing import Final

import numpy as np

from contract.bundle import Bundle
from contract.errors import BadBundle
from contract.retrieval.features import FEATURES
from export.ort import Arrays

GRAPH_INPUTS: Final = {"sequence": ("rows", "actions", "ages"), "ranker": ("features",)}
GRAPH_OUTPUTS: Final = {"sequence": "user", "ranker": "score"}
REQUIRED: Final = (*(f"{graph}.onnx" for graph in GRAPH_INPUTS), "vectors.npz")
OPTIONAL: Final = "other_neighbours.npz"
UNIT_TOLERANCE: Final = 1e-3


def has_next_item(bundle: Bundle) -> bool:
    """Whether the bundle has the part; raises `BadBundle` if it has some of its files only."""
    there = [name for name in (*REQUIRED, OPTIONAL) if name in bundle.files]
    if there and (missing := [name for name in REQUIRED if name not in there]):
        raise BadBundle(f"A next-item part should have {', '.join(REQUIRED)}. Found no {', '.join(missing)}.")
    return bool(there)


def check_vectors(vectors: Arrays, neighbours: Arrays) -> None:
    """Raises `BadBundle` unless vectors.npz has a unit vector and counts for each item of neighbours.npz."""
    if missing := {"items", "vectors", "counts", "recent_counts"} - vectors.keys():
        raise BadBundle(f"vectors.npz should have four arrays. Found no {', '.join(sorted(missing))}.")
    items, values = vectors["items"], vectors["vectors"]
    if not np.array_equal(items, neighbours["items"]):
        raise BadBundle("vectors.npz should have the items of neighbours.npz, in the same order. Found others.")
    if values.ndim != 2 or not len(values) == len(vectors["counts"]) == len(vectors["recent_counts"]) == len(items):
        raise BadBundle(f"Each of {len(items)} items should have a vector and counts. Found {values.shape}.")
    lengths = np.linalg.norm(values, axis=1)
    if not np.all(np.abs(lengths - 1) <= UNIT_TOLERANCE):
        raise BadBundle("Item vectors should be finite and of unit length. Found others.")
    for name in ("counts", "recent_counts"):
        if not (np.isfinite(vectors[name]).all() and (vectors[name] >= 0).all()):
            raise BadBundle(f"vectors.npz should have finite {name} of at least 0. Found others.")


def check_inputs(graph: str, names: list[str], outputs: list[str], columns: object) -> None:
    """Raises `BadBundle` for other inputs, outputs, or features than the contract's."""
    if sorted(names) != sorted(GRAPH_INPUTS[graph]) or outputs != [GRAPH_OUTPUTS[graph]]:
        raise BadBundle(
            f"{graph}.onnx should take {', '.join(GRAPH_INPUTS[graph])} and answer {GRAPH_OUTPUTS[graph]}. "
            f"Found {', '.join(names)} and {', '.join(outputs)}."
        )
    if graph == "ranker" and columns != len(FEATURES):
        raise BadBundle(f"ranker.onnx should take {len(FEATURES)} features. Found {columns}.")
