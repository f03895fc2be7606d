"""The next-item part of a bundle: the vector of a user's history, the vectors of items, the ranker of candidates."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.bundle import Bundle
from contract.errors import BadBundle
from contract.retrieval.features import FEATURES
from worker.model.bundle_parts import Arrays, GraphSession, reject_on_error
from worker.model.item_tables import NeighbourTable, VectorTable, read_other_neighbours, read_vectors
from worker.model.vector_index import VectorIndex, build_index
from worker.ops import metrics

GRAPHS: Final = ("sequence", "ranker")
FILES: Final = (*(f"{name}.onnx" for name in GRAPHS), "vectors.npz")
USERS_PER_RUN: Final = 64  # whose attention stays in the processor's cache
LENGTH_MAX: Final = 64  # latest events of a history that are read, unless the graph has a fixed length


class NextItemModel:
    """Encodes histories and ranks candidates. `other_neighbours`: a second source of neighbours, None for none.

    `index`: of the vectors, None until one is built.
    """

    def __init__(
        self,
        *,
        sequence: GraphSession,
        ranker: GraphSession,
        vectors: VectorTable,
        other_neighbours: NeighbourTable | None,
    ) -> None:
        self._sequence, self._ranker = sequence, ranker
        self.vectors, self.other_neighbours = vectors, other_neighbours
        self.index: VectorIndex | None = None
        length = sequence.inputs["rows"][1]
        self._fixed_length = length if isinstance(length, int) else None
        self.history_max = self._fixed_length or LENGTH_MAX

    def encode(
        self, rows: npt.NDArray[np.int64], actions: npt.NDArray[np.int64], ages: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """The vector (U, d) of each history (U, L), newest first; zeros for one without a known item.

        `rows`: of `vectors`, -1 for an item that it lacks, which is left out. `ages`: days.
        """
        known, lengths = pack_left(rows >= 0)
        rows, actions = np.take_along_axis(rows + 1, known, 1), np.take_along_axis(actions, known, 1)
        ages = np.take_along_axis(ages, known, 1)
        users = np.zeros((len(rows), self.vectors.vectors.shape[1]), np.float32)
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        for begin in range(0, len(order), USERS_PER_RUN):
            chosen = order[begin : begin + USERS_PER_RUN]
            users[chosen] = self._encode_chunk(rows[chosen], actions[chosen], ages[chosen], int(lengths[chosen[-1]]))
        is_finite = np.isfinite(users).all(1)
        users[~is_finite] = 0
        metrics.NON_FINITE_VECTORS.inc(int((~is_finite).sum()))
        return users

    def index_vectors(self) -> None:
        """Build the index, for seconds: 18 of CPU for a million items. Without one the search is exact."""
        self.index = build_index(self.vectors.vectors)

    def rank(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The score of each candidate (P,) from its features (P, F)."""
        return self._ranker.run({"features": features})["score"]

    def check_fit(self) -> None:
        """Raises `BadBundle` unless both graphs take what a worker has, and answer in the widths of the vectors."""
        wide = self.vectors.vectors.shape[1]
        with reject_on_error("sequence.onnx should run on a history"):
            history = np.zeros((1, self.history_max), np.int64)
            user = self._encode_chunk(history, history, history.astype(np.float32), 1)
        if user.shape != (1, wide):
            raise BadBundle(f"sequence.onnx should answer vectors of {wide} numbers. Found {user.shape}.")
        with reject_on_error(f"ranker.onnx should run on {len(FEATURES)} features"):
            score = self.rank(np.zeros((2, len(FEATURES)), np.float32))
        if score.shape != (2,):
            raise BadBundle(f"ranker.onnx should answer one score for each candidate. Found {score.shape} for two.")

    def _encode_chunk(
        self, rows: npt.NDArray[np.int64], actions: npt.NDArray[np.int64], ages: npt.NDArray[np.float32], length: int
    ) -> npt.NDArray[Any]:
        wide = self._fixed_length or min(length, LENGTH_MAX)
        inputs: dict[str, npt.NDArray[Any]] = {"rows": rows, "actions": actions, "ages": ages}
        padding = (0, 0), (0, max(wide - rows.shape[1], 0))
        return self._sequence.run({name: np.pad(array[:, :wide], padding) for name, array in inputs.items()})["user"]


def read_next_item_model(bundle: Bundle, neighbours: NeighbourTable, golden: Arrays) -> NextItemModel | None:
    """None for a bundle without this part; raises `BadBundle` for half of it, or what does not fit together."""
    present = [name for name in FILES if name in bundle.files]
    if not present:
        return None
    if missing := [name for name in FILES if name not in present]:
        raise BadBundle(
            f"Bundle {bundle.version} should have all of {', '.join(FILES)}, or none. Found no {missing[0]}."
        )
    vectors = read_vectors(bundle)
    if not np.array_equal(vectors.hashes, neighbours.hashes):
        raise BadBundle("vectors.npz should have the items of neighbours.npz, in the same order. Found others.")
    graphs = {name: GraphSession(bundle, name) for name in GRAPHS}
    for name, inputs, output in (("sequence", ("rows", "actions", "ages"), "user"), ("ranker", ("features",), "score")):
        graph = graphs[name]
        if {*inputs} - graph.inputs.keys() or output not in graph.outputs:
            raise BadBundle(
                f"{name}.onnx should take {', '.join(inputs)} and answer {output}. "
                f"Found {sorted(graph.inputs)} and {graph.outputs}."
            )
        graph.check_golden(golden, bundle.version)
    model = NextItemModel(**graphs, vectors=vectors, other_neighbours=read_other_neighbours(bundle, neighbours))
    model.check_fit()
    return model


def pack_left(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The columns of each row (U, L) with the marked ones first, in their order, and how many are marked (U,)."""
    return np.argsort(~mask, axis=1, kind="stable"), mask.sum(1)
