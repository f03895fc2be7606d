"""Scores the rows of a table with a bundle, as a worker would: onnxruntime, no torch.

A row is a user, an order or a pair of a user with an item: graphs of pairs get each row as a pair of its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from contract.arrays import Integers, Predictions
from contract.bundle import Bundle
from contract.errors import BadBundle, BadData
from contract.features.declaration import Block, FeatureSet
from contract.graphs import GRAPHS, ITEMS, RECOMMEND, Graph
from export.ort import open_session, run
from export.verification import check_features
from training.data.parquet import DIGEST_KEY, has_feature_blocks, read_block
from training.data.tabular import build_block
from training.scoring.table_reader import ReadingReport, prepare_columns

IDENTITY = ("example_id", "event_id", "user_id", "item_id", "ts_ms")


class BundleScorer:
    """The graphs of a bundle that have tasks. Raises `BadBundle` for a bundle of other features."""

    def __init__(self, bundle: Bundle, features: FeatureSet) -> None:
        self.report = ReadingReport()
        self._features = features
        self._known = check_features(bundle, features)
        self._manifest = bundle.manifest
        self._sessions = {
            name: open_session(f"{name}.onnx", bundle.files[f"{name}.onnx"])
            for name in GRAPHS
            if f"{name}.onnx" in bundle.files
        }
        self._rows = 0

    def score(self, table: pa.Table) -> pa.Table:
        """The identity columns of these rows, or their numbers, and a column for each task."""
        blocks = self._read_blocks(table)
        columns = {name: table.column(name) for name in IDENTITY if name in table.column_names}
        if not columns:
            columns["row"] = pa.array(range(self._rows, self._rows + len(table)), pa.int64())
        self._rows += len(table)
        for name in self._sessions:
            if name != "items":
                columns |= self._score_graph(GRAPHS[name], blocks, len(table))
        return pa.table(columns)

    def score_pairs(self, blocks: Mapping[str, Block], items: Block, user: Integers) -> Predictions:
        """The scores (P,) of items (P rows) for the row `user` (P,) of the users' blocks, by task of `recommend`.

        Blocks have the columns of all features. Raises `BadBundle` for a bundle without the graph.
        """
        if not {ITEMS.name, RECOMMEND.name} <= self._sessions.keys():
            raise BadBundle(f"Bundle {self._manifest.version} should have the graph {RECOMMEND.name}. Found none.")
        known = {
            group: select_columns(block, group, self._features, self._known)
            for group, block in {**blocks, "item": items}.items()
        }
        inputs = {
            f"{group}.{part}": getattr(block, part) for group, block in known.items() for part in ("numbers", "ids")
        }
        item_part = self._run(ITEMS, {name: inputs[name] for name in ("item.numbers", "item.ids")})["item_part"]
        return self._run(RECOMMEND, {**inputs, "item_part": item_part, RECOMMEND.pair_input: user})

    def _read_blocks(self, table: pa.Table) -> dict[str, Block]:
        groups = dict.fromkeys(feature.group for feature in self._known.features)
        if has_feature_blocks(table):
            digest = (table.schema.metadata or {}).get(DIGEST_KEY, b"").decode()
            if digest != self._features.digest:
                raise BadData(f"The file should have the features {self._features.digest}. Found {digest or 'none'}.")
            return {
                group: select_columns(read_block(table, group, self._features), group, self._features, self._known)
                for group in groups
            }
        names = {feature.column for feature in self._known.features} - {None}
        if not names & set(table.column_names):
            raise BadData(f"The file should have columns of {sorted(map(str, names))}. Found {table.column_names}.")
        prepared = prepare_columns(table, self._known, self.report)
        return {group: build_block(prepared, group, self._known) for group in groups}

    def _score_graph(self, graph: Graph, blocks: Mapping[str, Block], rows: int) -> dict[str, Any]:
        inputs = dict[str, Any]()
        for group in graph.groups:
            if group in blocks:
                inputs |= {f"{group}.numbers": blocks[group].numbers, f"{group}.ids": blocks[group].ids}
        if graph.is_paired:
            items = {f"item.{part}": inputs[f"item.{part}"] for part in ("numbers", "ids")}
            inputs["item_part"] = self._run(ITEMS, items)["item_part"]
            inputs[graph.pair_input] = np.arange(rows)
        columns = dict[str, Any]()
        for task, scores in self._run(graph, inputs).items():
            columns |= self._to_columns(task, scores)
        return columns

    def _run(self, graph: Graph, inputs: Mapping[str, Any]) -> Predictions:
        try:
            return run(self._sessions[graph.name], inputs)
        except Exception as error:  # onnxruntime's classes have no common base
            raise BadBundle(f"{graph.name}.onnx should run on the given rows. Found: {error}") from error

    def _to_columns(self, task: str, scores: Any) -> dict[str, Any]:
        """A number, or the likeliest class with its probability."""
        if scores.ndim == 1:
            return {task: pa.array(scores)}
        classes = np.array(self._manifest.classes[task], np.object_)
        return {task: pa.array(classes[scores.argmax(1)], pa.string()), f"{task}.probability": pa.array(scores.max(1))}


def select_columns(block: Block, group: str, features: FeatureSet, known: FeatureSet) -> Block:
    """The columns of the known features, out of those of all features."""
    selected = known.empty_block(group, len(block.ids))
    names = [feature.name for feature in features.numbers(group)]
    for index, feature in enumerate(known.numbers(group)):
        selected.numbers[:, index] = block.numbers[:, names.index(feature.name)]
    for kind, source, target in (("vectors", block.numbers, selected.numbers), ("spans", block.ids, selected.ids)):
        spans = {span.feature.name: span for span in getattr(features, kind)(group)}
        for span in getattr(known, kind)(group):
            begin = spans[span.feature.name].start
            target[:, span.start : span.start + span.width] = source[:, begin : begin + span.width]
    return selected
