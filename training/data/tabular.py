"""Examples from a plain table, one row each: external data, or a shop's own extract.

the column of each feature `column.NAME`     NAME; a sequence or a vector is a list; null: unknown
label.TASK                                   read as the label of an event; null: unknown
example_id, user_id, event_id, item_id       text, optional; by default the row's number
ts_ms, revision                              int64, optional; by default 0, so that the split is random
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.arrays import Array, Integers
from contract.errors import BadData
from contract.features.columns import encode_text
from contract.features.declaration import GROUPS, Block, Feature, FeatureSet
from contract.hashing import hash_id
from contract.profiles.record import RING_SIZE
from contract.tasks import Task
from training.data.examples import COLUMNS, INTEGER_COLUMNS, NO_PLACE, Examples, build_examples, to_array
from training.data.identity import read_ids, read_times_ms
from training.data.labels import Classes


def examples_from_table(
    table: pa.Table, features: FeatureSet, tasks: Sequence[Task], classes: Classes | None = None
) -> Examples:
    """The examples of a plain table; raises `BadData` for missing columns and for values that do not fit a feature."""
    columns = {name: read_identity(table, name) for name in COLUMNS}
    blocks = {group: build_block(table, group, features) for group in GROUPS}
    labels: Mapping[str, list[Any]] = {
        task.name: read_column(table, f"label.{task.name}").to_pylist() for task in tasks
    }
    known_ms = {task.name: np.zeros(len(table), np.int64) for task in tasks}
    return build_examples(features, tasks, blocks, columns, labels, known_ms, classes=classes)


def read_identity(table: pa.Table, name: str) -> Array:
    """One of the `COLUMNS` of examples; if it is missing, row numbers as text, zeros for numbers.

    No row has a place on a list: a column of that name is any shop's own.
    """
    if name == "place":
        return np.full(len(table), NO_PLACE, np.int64)
    if name in table.column_names:
        column = table.column(name)
        if name in INTEGER_COLUMNS:
            return to_array(pc.fill_null(read_times_ms(column, name), 0).to_pylist(), name)
        return to_array(read_ids(column), name)
    if name in INTEGER_COLUMNS:
        return to_array([0] * len(table), name)
    return to_array([f"{row}" for row in range(len(table))], name)


def read_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise BadData(f"The table should have a column `{name}`. Found {table.column_names}.")
    return table.column(name)


def build_block(table: pa.Table, group: str, features: FeatureSet) -> Block:
    """The block of a group; features without a column stay unknown."""
    block = features.empty_block(group, len(table))
    for index, feature in enumerate(features.numbers(group)):
        if feature.column is not None:
            block.numbers[:, index] = parse_numbers(read_column(table, feature.column), feature)
    for span in features.vectors(group):
        if span.feature.column is not None:
            vectors = parse_vectors(read_column(table, span.feature.column), span.feature)
            block.numbers[:, span.start : span.start + span.width] = vectors
    for span in features.spans(group):
        if span.feature.column is not None:
            ids = encode_ids(read_column(table, span.feature.column), span.feature)
            block.ids[:, span.start : span.start + span.width] = ids
    return block


def parse_numbers(column: pa.ChunkedArray, feature: Feature) -> Array:
    """A column's numbers, float32 (N,), NaN for null."""
    try:
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64).astype(np.float32)
    except pa.ArrowException as error:
        raise BadData(f"`{feature.column}` should hold numbers for `{feature.name}`. Found: {error}") from error


def parse_vectors(column: pa.ChunkedArray, feature: Feature) -> Array:
    """A column's vectors, float32 (N, size), NaN for null; raises `BadData` for another length."""
    vectors = np.full((len(column), feature.size), np.nan, np.float32)
    for row, value in enumerate(column.to_pylist()):
        if value is None:
            continue
        if not isinstance(value, list) or len(value) != feature.size:
            raise BadData(f"`{feature.column}` should hold lists of {feature.size} numbers. Found {value!r:.80}.")
        vectors[row] = np.array(value, np.float32)
    return vectors


def encode_ids(column: pa.ChunkedArray, feature: Feature) -> Integers:
    """The ids (N, width) of a category, a text or a sequence; each distinct value is hashed once."""
    if feature.kind == "sequence":
        return encode_sequences(column, feature)
    coded = column.combine_chunks().dictionary_encode()
    values = [str(value) for value in coded.dictionary.to_pylist()]
    if feature.kind == "text":
        table = np.array([(0,) * feature.width, *map(encode_text, values)], np.int64)
    else:
        table = np.array([[0], *([hash_id(f"{feature.column}={value}")] for value in values)], np.int64)
    rows: Integers = np.asarray(pc.fill_null(coded.indices, -1)).astype(np.int64) + 1
    return table[rows]


def encode_sequences(column: pa.ChunkedArray, feature: Feature) -> Integers:
    """The ids (N, width) of lists; longer lists keep their last items."""
    sequences = np.zeros((len(column), feature.width), np.int64)
    for row, value in enumerate(column.to_pylist()):
        if value is not None and not isinstance(value, list):
            raise BadData(f"`{feature.column}` should hold lists for `{feature.name}`. Found {value!r:.80}.")
        ids = [hash_id(f"{feature.column}={item}") for item in (value or ())[-RING_SIZE:] if item is not None]
        sequences[row, : len(ids)] = ids
    return sequences
