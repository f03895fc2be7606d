"""Loads a bundle as a model that scores blocks, or rejects it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.bundle import Bundle
from contract.errors import BadBundle
from contract.features.declaration import GROUPS, Block, FeatureSet
from contract.graphs import GRAPHS
from worker.model.bundle_parts import Arrays, GraphSession, load_arrays, reject_on_error
from worker.model.item_tables import read_neighbours, read_together
from worker.model.next_item_model import read_next_item_model

Scores = dict[str, npt.NDArray[np.float32]]
NO_SCORES: Final[dict[str, tuple[float, ...]]] = {}  # never written to


class Model:
    """A loaded bundle. Raises `BadBundle` if it needs other features or does not reproduce its golden outputs.

    Blocks have the columns of `features`; the model selects the columns it was trained on.
    """

    def __init__(self, bundle: Bundle, features: FeatureSet) -> None:
        self.manifest = bundle.manifest
        self.version = bundle.version
        self._columns = select_columns(bundle, features)
        self._graphs = {name: GraphSession(bundle, name) for name in GRAPHS if f"{name}.onnx" in bundle.files}
        self.tasks = frozenset(output for graph in self._graphs.values() for output in graph.outputs) - {"item_part"}
        golden = load_arrays(bundle, "golden.npz")
        for graph in self._graphs.values():
            graph.check_golden(golden, self.version)
        self._check_fit(features)
        self.neighbours = read_neighbours(bundle)
        self.together = read_together(bundle)
        self.next_item = read_next_item_model(bundle, self.neighbours, golden)

    def has_graph(self, graph: str) -> bool:
        return graph in self._graphs

    def run(self, graph: str, blocks: Mapping[str, Block], **extra: npt.NDArray[Any]) -> Scores:
        """The outputs of a graph for blocks by group (all columns) and further inputs by name."""
        inputs: dict[str, npt.NDArray[Any]] = dict(extra)
        for group, block in blocks.items():
            numbers, ids = self._columns[group]
            inputs[f"{group}.numbers"] = np.ascontiguousarray(block.numbers[:, numbers])
            inputs[f"{group}.ids"] = np.ascontiguousarray(block.ids[:, ids])
        return self._graphs[graph].run(inputs)

    def item_part(self, items: Block) -> npt.NDArray[np.float32]:
        """The item side of the first layer (M, H), computed once per item instead of once per candidate."""
        return self.run("items", {"item": items})["item_part"]

    def _check_fit(self, features: FeatureSet) -> None:
        """Check that every graph scores an empty row in the columns that the worker encodes."""
        unknown = {group: features.empty_block(group, 1) for group in GROUPS}
        row = np.zeros(1, np.int64)
        for graph in self._graphs:
            with reject_on_error(f"{graph}.onnx should run on the features that the bundle names"):
                part = self.item_part(unknown["item"]) if GRAPHS[graph].is_paired else row
                outputs = self.run(graph, unknown, item_part=part, user=row, search=row)
            for output in GRAPHS[graph].outputs:
                if output not in outputs:
                    raise BadBundle(f"{graph}.onnx should answer `{output}`. Found {sorted(outputs)}.")


def to_rows(scores: Arrays, row_count: int) -> list[dict[str, float]]:
    """The finite scores of each row by task."""
    scores_by_row: list[dict[str, float]] = [{} for _ in range(row_count)]
    for task, column in scores.items():  # a third of the time of a dict made of each row
        for row_scores, value in zip(scores_by_row, column.tolist(), strict=True):
            row_scores[task] = value
    if all(np.isfinite(values).all() for values in scores.values()):
        return scores_by_row
    return [{task: value for task, value in row_scores.items() if math.isfinite(value)} for row_scores in scores_by_row]


def to_logged_scores(scores_by_row: Sequence[Mapping[str, float]]) -> list[dict[str, tuple[float, ...]]]:
    """The scores of each row as scored rows log them, one number for each task. Rows without scores share a dict."""
    return [{task: (value,) for task, value in row.items()} if row else NO_SCORES for row in scores_by_row]


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
