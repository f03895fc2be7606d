"""Verifies that a bundle may serve: everything that a worker checks, and more. Torch is not needed.

A bundle that passes is complete; its graphs are self-contained and finite, have the version, tasks and features of the
manifest, read features that are declared here in the same way, and reproduce torch's golden outputs. A valid bundle may
be for `training score` alone: `check_served` tells whether workers serve it.
"""

import io
import math
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import onnxruntime as ort

from contract.bundle import Bundle, Manifest
from contract.errors import BadBundle
from contract.features.declaration import FeatureSet
from contract.graphs import GRAPHS, find_missing_tasks
from export.next_item_checks import GRAPH_INPUTS, OPTIONAL, REQUIRED, check_inputs, check_vectors, has_next_item
from export.onnx_checks import read_metadata, read_proto
from export.ort import Arrays, max_difference, open_session, run

GOLDEN_TOLERANCE: Final = 1e-4  # as in the worker: processors differ by less, a wrong weight by far more
DATA_FILES: Final = ("golden.npz", "neighbours.npz")
TOGETHER: Final = "together.npz"  # where baskets are known


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """The difference of each graph from its golden outputs, and the number of features."""

    differences: dict[str, float]
    features: int


def verify(bundle: Bundle, features: FeatureSet) -> VerificationReport:
    """Check a bundle whose digests were verified; `features`: those declared here. Raises `BadBundle`."""
    graphs = check_files(bundle)
    known = check_features(bundle, features)
    golden, differences = load_arrays(bundle, "golden.npz"), dict[str, float]()
    neighbours = load_arrays(bundle, "neighbours.npz")
    check_neighbours(neighbours)
    if TOGETHER in bundle.files:
        no_more: Arrays = {"fading": np.zeros(()), "popular": np.zeros(0, np.int32)}
        check_neighbours(no_more | load_arrays(bundle, TOGETHER), TOGETHER)
    for graph in graphs:
        check_metadata(bundle, graph)
        session = open_session(f"{graph}.onnx", bundle.files[f"{graph}.onnx"])
        check_columns(graph, session, known)
        differences[graph] = check_golden(graph, session, golden)
    if has_next_item(bundle):
        differences |= verify_next_item(bundle, neighbours, golden)
    return VerificationReport(differences, len(bundle.manifest.features))


def verify_next_item(bundle: Bundle, neighbours: Arrays, golden: Arrays) -> dict[str, float]:
    """Check the next-item part; returns the difference of each graph from its golden outputs. Raises `BadBundle`."""
    check_vectors(load_arrays(bundle, "vectors.npz"), neighbours)
    if OPTIONAL in bundle.files:
        arrays = load_arrays(bundle, OPTIONAL)
        check_neighbours(arrays | {name: neighbours[name] for name in ("items", "popular")}, OPTIONAL)
    differences = dict[str, float]()
    for graph in GRAPH_INPUTS:
        content = bundle.files[f"{graph}.onnx"]
        if (version := read_metadata(read_proto(f"{graph}.onnx", content)).get("version")) != bundle.version:
            raise BadBundle(f"{graph}.onnx should have the `version` of the manifest. Found {version}.")
        session = open_session(f"{graph}.onnx", content)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        check_inputs(graph, [node.name for node in inputs], [node.name for node in outputs], inputs[0].shape[-1])
        differences[graph] = check_golden(graph, session, golden)
    return differences


def check_files(bundle: Bundle) -> list[str]:
    """The graphs; raises `BadBundle` unless there is one for each task, and all other required files."""
    tasks = {task.graph for task in bundle.manifest.tasks}
    required = [*(f"{graph}.onnx" for graph in GRAPHS if graph in tasks), *DATA_FILES]
    if any(GRAPHS[graph].is_paired for graph in tasks):
        required.append("items.onnx")
    if missing := [name for name in required if name not in bundle.files]:
        raise BadBundle(f"Bundle {bundle.version} should have {', '.join(required)}. Found no {', '.join(missing)}.")
    known = {*(f"{graph}.onnx" for graph in GRAPHS), *DATA_FILES, TOGETHER, *REQUIRED, OPTIONAL}
    if foreign := [name for name in bundle.files if name not in known]:
        raise BadBundle(f"Bundle {bundle.version} should have files that are known. Found {', '.join(foreign)}.")
    return [graph for graph in GRAPHS if f"{graph}.onnx" in bundle.files]


def check_features(bundle: Bundle, features: FeatureSet) -> FeatureSet:
    """The features that the bundle needs, out of those declared here; raises `BadBundle` for others."""
    needed = bundle.manifest.features
    for name, digest in needed.items():
        if features.digests.get(name) != digest:
            problem = "another meaning" if name in features.digests else "none of that name"
            raise BadBundle(f"Feature `{name}` should be declared as it was in training. Found {problem}.")
    return FeatureSet([feature for feature in features.features if feature.name in needed])


def check_served(manifest: Manifest, features: FeatureSet) -> None:
    """Raises `BadBundle` if every worker refuses the bundle.

    That is where a feature is a column of a table, which no event has, or a graph lacks a task that workers require.
    """
    needed = manifest.features
    if columns := [f.name for f in features.features if f.name in needed and f.column is not None]:
        raise BadBundle(
            f"Bundle {manifest.version} should need features of events alone to be served by workers. "
            f"Found columns of a table: {', '.join(columns)}."
        )
    if mistakes := [*find_missing_tasks(manifest.tasks)]:
        raise BadBundle(" ".join(mistakes))


def check_metadata(bundle: Bundle, graph: str) -> None:
    """Raises `BadBundle` for a graph with custom operators, or with other metadata than the manifest's."""
    manifest, name = bundle.manifest, f"{graph}.onnx"
    model = read_proto(name, bundle.files[name])
    answers = [output.name for output in model.graph.output]
    tasks = ["item_part"] if graph == "items" else [task.name for task in manifest.tasks if task.graph == graph]
    if sorted(answers) != sorted(tasks):
        raise BadBundle(f"{name} should answer {tasks}. Found {answers}.")
    actual = read_metadata(model)
    expected = {"version": manifest.version, "tasks": ",".join(answers), "features": to_json(manifest.features)}
    for key, value in expected.items():
        if actual.get(key) != value:
            raise BadBundle(f"{name} should have the `{key}` of the manifest. Found {actual.get(key, 'nothing')[:80]}.")


def to_json(features: dict[str, str]) -> str:
    return msgspec.json.encode(features).decode()


def check_columns(graph: str, session: ort.InferenceSession, features: FeatureSet) -> None:
    """Raises `BadBundle` for a block that is wider or narrower than the features of its group."""
    for entry in session.get_inputs():
        group, _, part = entry.name.partition(".")
        if part and (wide := features.widths(group)[("numbers", "ids").index(part)]) != entry.shape[1]:
            raise BadBundle(f"{graph}.onnx should take {wide} columns as {entry.name}. Found {entry.shape[1]}.")


def check_golden(graph: str, session: ort.InferenceSession, golden: Arrays) -> float:
    """The difference from the golden outputs; raises `BadBundle` if it is too large, or an output is missing."""
    inputs = {name.split("/")[2]: array for name, array in golden.items() if name.startswith(f"{graph}/in/")}
    try:
        answers = run(session, inputs)
    except Exception as error:  # onnxruntime's classes have no common base
        raise BadBundle(f"{graph}.onnx should run on its golden inputs. Found: {error}") from error
    worst = 0.0
    for output, actual in answers.items():
        distance = max_difference(golden.get(f"{graph}/out/{output}", np.empty(0)), actual)
        if math.isnan(distance) or distance > GOLDEN_TOLERANCE:
            raise BadBundle(
                f"{graph}.onnx should reproduce its golden `{output}` to {GOLDEN_TOLERANCE:g}. "
                f"Found {distance:.1e} between them."
            )
        worst = max(worst, distance)
    return worst


def check_neighbours(arrays: Arrays, name: str = "neighbours.npz") -> None:
    """Raises `BadBundle` unless each item has a row of neighbours and weights, and all numbers are of items."""
    if missing := {"items", "neighbours", "weights", "fading", "popular"} - arrays.keys():
        raise BadBundle(f"{name} should have all of its arrays. Found no {', '.join(sorted(missing))}.")
    items, rows, weights = len(arrays["items"]), arrays["neighbours"], arrays["weights"]
    if rows.ndim != 2 or len(rows) != items or weights.shape != rows.shape:
        raise BadBundle(
            f"Each of {items} items should have a row of neighbours and weights. Found {rows.shape}, {weights.shape}."
        )
    for numbers, least in ((rows, -1), (arrays["popular"], 0)):
        if invalid := numbers[(numbers < least) | (numbers >= items)].tolist():
            raise BadBundle(f"Neighbours should be among the {items} items. Found number {invalid[0]}.")


def load_arrays(bundle: Bundle, name: str) -> Arrays:
    try:
        with np.load(io.BytesIO(bundle.files[name]), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except Exception as error:  # zipfile and NumPy raise errors of many classes
        raise BadBundle(f"{name} should hold readable arrays. Found: {error}") from error
