"""Loads a bundle into onnxruntime as a model that scores blocks, or rejects it; no other worker module imports it."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from contract.bundle import Bundle
from contract.errors import BadBundle
from contract.features.declaration import GROUPS, Block, FeatureSet
from contract.graphs import GRAPHS
from contract.hashing import item_hash

GOLDEN_TOLERANCE: Final = 1e-4  # processors differ by less, a wrong weight by far more
FADING_MAX: Final = 10.0  # beyond it only the latest item has weight
# A folder that cannot exist: weights in separate files, which no digest covers, are not found.
NO_EXTERNAL_DATA: Final = "/dev/null/none"
Scores = dict[str, npt.NDArray[np.float32]]
NO_SCORES: Final[dict[str, tuple[float, ...]]] = {}  # never written to
Arrays = Mapping[str, npt.NDArray[Any]]


class Model:
    """A loaded bundle. Raises `BadBundle` if it needs other features or does not reproduce its golden outputs.

    Blocks have the columns of `features`; the model selects the columns it was trained on.
    """

    def __init__(self, bundle: Bundle, features: FeatureSet) -> None:
        self.manifest = bundle.manifest
        self.version = bundle.version
        self._columns = select_columns(bundle, features)
        self._sessions = {name: open_graph(bundle, name) for name in GRAPHS if f"{name}.onnx" in bundle.files}
        sessions = self._sessions.items()
        self._inputs = {name: {node.name for node in session.get_inputs()} for name, session in sessions}
        self._outputs = {name: [node.name for node in session.get_outputs()] for name, session in sessions}
        self.tasks = frozenset(output for outputs in self._outputs.values() for output in outputs) - {"item_part"}
        self._check_golden(bundle)
        self._check_fit(features)
        self.neighbours = read_neighbours(bundle)

    def has_graph(self, graph: str) -> bool:
        return graph in self._sessions

    def run(self, graph: str, blocks: Mapping[str, Block], **extra: npt.NDArray[Any]) -> Scores:
        """The outputs of a graph for blocks by group (all columns) and further inputs by name."""
        inputs: dict[str, npt.NDArray[Any]] = dict(extra)
        for group, block in blocks.items():
            numbers, ids = self._columns[group]
            inputs[f"{group}.numbers"] = np.ascontiguousarray(block.numbers[:, numbers])
            inputs[f"{group}.ids"] = np.ascontiguousarray(block.ids[:, ids])
        return self._run(graph, inputs)

    def item_part(self, items: Block) -> npt.NDArray[np.float32]:
        """The item side of the first layer (M, H), computed once per item instead of once per candidate."""
        return self.run("items", {"item": items})["item_part"]

    def _run(self, graph: str, inputs: Arrays) -> Scores:
        names = self._inputs[graph]
        outputs = self._sessions[graph].run(None, {name: array for name, array in inputs.items() if name in names})
        return dict(zip(self._outputs[graph], outputs, strict=True))

    def _check_golden(self, bundle: Bundle) -> None:
        golden = load_arrays(bundle, "golden.npz")
        for graph in self._sessions:
            prefix = f"{graph}/in/"
            inputs = {name.split("/")[2]: array for name, array in golden.items() if name.startswith(prefix)}
            if not inputs:
                raise BadBundle(f"Bundle {self.version} should have golden inputs for {graph}.onnx. Found none.")
            with reject_on_error(f"{graph}.onnx should run on its golden inputs"):
                outputs = self._run(graph, inputs)
            for output, actual in outputs.items():
                expected = golden.get(f"{graph}/out/{output}", np.empty(0))
                is_close = expected.shape == actual.shape and np.allclose(
                    expected, actual, GOLDEN_TOLERANCE, GOLDEN_TOLERANCE
                )
                if not is_close:
                    raise BadBundle(f"{graph}.onnx should reproduce its golden `{output}`. Found other values.")

    def _check_fit(self, features: FeatureSet) -> None:
        """Check that every graph scores an empty row in the columns that the worker encodes."""
        unknown = {group: features.empty_block(group, 1) for group in GROUPS}
        row = np.zeros(1, np.int64)
        for graph in self._sessions:
            with reject_on_error(f"{graph}.onnx should run on the features that the bundle names"):
                part = self.item_part(unknown["item"]) if GRAPHS[graph].is_paired else row
                outputs = self.run(graph, unknown, item_part=part, user=row, search=row)
            for output in GRAPHS[graph].outputs:
                if output not in outputs:
                    raise BadBundle(f"{graph}.onnx should answer `{output}`. Found {sorted(outputs)}.")


def to_rows(scores: Arrays, row_count: int) -> list[dict[str, float]]:
    """The finite scores of each row by task."""
    if not scores:
        return [{} for _ in range(row_count)]
    scores_by_row = [
        dict(zip(scores, row, strict=True))
        for row in zip(*(column.tolist() for column in scores.values()), strict=True)
    ]
    if all(np.isfinite(values).all() for values in scores.values()):
        return scores_by_row
    return [{task: value for task, value in row_scores.items() if math.isfinite(value)} for row_scores in scores_by_row]


def to_logged_scores(scores_by_row: Sequence[Mapping[str, float]]) -> list[dict[str, tuple[float, ...]]]:
    """The scores of each row as scored rows log them, one number for each task. Rows without scores share a dict."""
    return [{task: (value,) for task, value in row.items()} if row else NO_SCORES for row in scores_by_row]


class NeighbourTable(NamedTuple):
    """Hashes of M items (M,), row numbers of their neighbours (M, K) or -1, weights (M, K), and P popular rows (P,).

    The neighbours of a user's k-th latest item are weighted by k ** -fading.
    """

    hashes: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    popular: npt.NDArray[np.int32]
    fading: float


def read_neighbours(bundle: Bundle) -> NeighbourTable:
    arrays = load_arrays(bundle, "neighbours.npz")
    with reject_on_error(
        "neighbours.npz should hold items, their neighbours with weights and their fading, and popular ones"
    ):
        hashes = np.array([item_hash(item.decode()) for item in arrays["items"].tolist()], np.uint64)
        rows, popular = arrays["neighbours"].astype(np.int32), arrays["popular"].astype(np.int32)
        weights = np.nan_to_num(arrays["weights"].astype(np.float32), posinf=0.0, neginf=0.0)
        fading = float(arrays["fading"])
    if rows.ndim != 2 or len(rows) != len(hashes) or weights.shape != rows.shape:
        raise BadBundle(f"Each of {len(hashes)} items should have a row of neighbours. Found {rows.shape}.")
    for numbers, minimum in ((rows, -1), (popular, 0)):
        if numbers.size and not (numbers.min() >= minimum and numbers.max() < len(hashes)):
            raise BadBundle(f"Neighbours should be among the {len(hashes)} items. Found number {int(numbers.max())}.")
    if not 0 <= fading <= FADING_MAX:
        raise BadBundle(f"The fading of neighbours should be from 0 to {FADING_MAX}. Found {fading}.")
    return NeighbourTable(hashes, rows, weights, popular, fading)


def load_arrays(bundle: Bundle, name: str) -> dict[str, npt.NDArray[Any]]:
    with reject_on_error(f"Bundle {bundle.version} should hold readable arrays in {name}"):
        archive = np.load(io.BytesIO(bundle.files[name]), allow_pickle=False)
        return {key: archive[key] for key in archive.files}


def open_graph(bundle: Bundle, name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NO_EXTERNAL_DATA)
    options.log_severity_level = 3
    with reject_on_error(f"{name}.onnx should be a graph that onnxruntime runs"):
        return ort.InferenceSession(bundle.files[f"{name}.onnx"], options, providers=["CPUExecutionProvider"])


@contextmanager
def reject_on_error(expectation: str) -> Iterator[None]:
    """Raises `BadBundle` for any error of the block: onnxruntime and zip raise many classes for a broken bundle."""
    try:
        yield
    except Exception as error:
        raise BadBundle(f"{expectation}. Found {error!r}.") from error


def select_columns(bundle: Bundle, features: FeatureSet) -> dict[str, tuple[list[int], list[int]]]:
    """For each group, the columns of numbers and ids that the bundle needs, in its order."""
    needed = bundle.manifest.features
    for name, digest in needed.items():
        if features.digests.get(name) != digest:
            problem = "another definition" if name in features.digests else "none of that name"
            raise BadBundle(f"Bundle {bundle.version} needs feature `{name}` as it was in training. Found {problem}.")
    if tabular := [f.name for f in features.features if f.name in needed and f.column is not None]:
        raise BadBundle(f"Bundle {bundle.version} should need features of events. Found table columns: {tabular}.")
    selected = {}
    for group in GROUPS:
        column_by_name = {feature.name: n for n, feature in enumerate(features.numbers(group))}
        vectors = {span.feature.name: range(span.start, span.start + span.width) for span in features.vectors(group)}
        spans = {span.feature.name: range(span.start, span.start + span.width) for span in features.spans(group)}
        numbers = [column_by_name[name] for name in needed if name in column_by_name]
        numbers += [n for name in needed if name in vectors for n in vectors[name]]
        selected[group] = numbers, [n for name in needed if name in spans for n in spans[name]]
    return selected
