"""Examples as Parquet files, one row each, readable by any tool.

    example_id, event_id, user_id, item_id   text
    revision, ts_ms                          int64; the newest revision of an id counts
    place                                    int64, of an item on its list, from 0; -1 or no column: unknown
    GROUP.numbers, GROUP.ids                 lists in the order of features.toml; an empty list: unknown
    label.TASK                               read as the label of an event; null: unknown
    known_ms.TASK                            when the label became known

The file's metadata holds the digest of the features, so that columns of other features are never misread. A file
without GROUP columns is a plain table, see `training.data.tabular`.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.arrays import Array, Mask
from contract.bundle import write_durably
from contract.errors import BadData
from contract.features.declaration import GROUPS, Block, FeatureSet
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.tasks import Task
from training.data.erased_rows import drop_erased
from training.data.examples import COLUMNS, Examples, build_examples, is_empty, to_array
from training.data.labels import Classes, has_label
from training.data.tabular import examples_from_table

DIGEST_KEY: Final = b"shopstream.features"


def read_examples(
    source: Path | bytes,
    features: FeatureSet,
    tasks: Sequence[Task],
    classes: Classes | None = None,
    erasures: Erasures = NO_ERASURES,
) -> Examples:
    """The examples of a Parquet file or of its bytes; raises `BadData` for any other content."""
    name = source.name if isinstance(source, Path) else "the table"
    return parse_examples(name, drop_erased(read_table(source), erasures), features, tasks, classes)


def read_files(
    paths: Sequence[Path],
    features: FeatureSet,
    tasks: Sequence[Task],
    classes: Classes | None = None,
    erasures: Erasures = NO_ERASURES,
) -> Examples:
    """The examples of several files as one set; a label without a column in a file is unknown there."""
    tables = [drop_erased(read_table(path), erasures) for path in paths]
    names = [path.name for path in paths]
    check_same_features(names, tables, features)
    return parse_examples(" + ".join(names), merge_tables(names, tables), features, tasks, classes)


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and the *.parquet files in the folders; raises `BadData` for a folder without any."""
    files = list[Path]()
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        contained = sorted(path.rglob("*.parquet"))
        if not contained:
            raise BadData(f"{path} should hold *.parquet files. Found none.")
        files += contained
    return files


def count_rows(path: Path) -> int:
    """The rows of a Parquet file, by its metadata."""
    return int(open_parquet(path).metadata.num_rows)


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file with only its metadata read; raises `BadData` for any other file."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"{path} should be Parquet. Found: {error}") from error


def merge_tables(names: Sequence[str], tables: Sequence[Any]) -> Any:
    """The tables of the named files as one; raises `BadData` for a column of incompatible types."""
    try:
        merged = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise BadData(f"{list(names)} should have columns of the same types. Found: {error}") from error
    return merged.replace_schema_metadata(tables[0].schema.metadata)


def parse_examples(
    name: str, table: Any, features: FeatureSet, tasks: Sequence[Task], classes: Classes | None
) -> Examples:
    """The examples of a table; raises `BadData` if there are none."""
    examples = parse_table(name, table, features, tasks, classes)
    if not len(examples):
        raise BadData(f"{name} should hold examples with a label of {[t.name for t in tasks]}. Found none.")
    return examples


def parse_table(
    name: str, table: Any, features: FeatureSet, tasks: Sequence[Task], classes: Classes | None
) -> Examples:
    """The examples of a table with feature blocks, or of a plain table."""
    if any(feature.column is not None for feature in features.features) and not has_feature_blocks(table):
        return examples_from_table(table, features, tasks, classes)
    check_columns(name, table, features)
    blocks = {group: read_block(table, group, features) for group in GROUPS}
    columns = {column: to_array(read_optional(table, column), column) for column in COLUMNS}
    labels = {task.name: read_optional(table, f"label.{task.name}") for task in tasks}
    known_ms = {
        task.name: np.array([ms or 0 for ms in read_optional(table, f"known_ms.{task.name}")], np.int64)
        for task in tasks
    }
    return build_examples(features, tasks, blocks, columns, labels, known_ms, classes=classes)


def has_feature_blocks(table: Any) -> bool:
    """Whether a table has features as GROUP columns."""
    return any(f"{group}.{part}" in table.column_names for group in GROUPS for part in ("numbers", "ids"))


def read_table(source: Path | bytes) -> Any:
    try:
        return pq.read_table(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"{source if isinstance(source, Path) else 'It'} should be Parquet. Found: {error}") from error


def check_columns(name: str, table: Any, features: FeatureSet) -> None:
    """Raises `BadData` for missing columns and for another feature set."""
    if missing := [column for column in COLUMNS if column not in (*table.column_names, "place")]:
        raise BadData(f"{name} should have the columns {missing}. Found {table.column_names}.")
    digest = (table.schema.metadata or {}).get(DIGEST_KEY, b"").decode()
    if digest != features.digest:
        raise BadData(f"{name} should have the features {features.digest}. Found {digest or 'no digest'}.")


def check_same_features(names: Sequence[str], tables: Sequence[Any], features: FeatureSet) -> None:
    """Raises `BadData` where some files have feature blocks and others have another feature set or plain columns."""
    if any(has_feature_blocks(table) for table in tables):
        for name, table in zip(names, tables, strict=True):
            check_columns(name, table, features)


def read_optional(table: Any, column: str) -> list[Any]:
    values: list[Any] = table.column(column).to_pylist() if column in table.column_names else [None] * len(table)
    return values


def read_block(table: Any, group: str, features: FeatureSet) -> Block:
    block = features.empty_block(group, len(table))
    for part, array in (("numbers", block.numbers), ("ids", block.ids)):
        fill_rows(array, table, f"{group}.{part}")
    return block


def fill_rows(array: Array, table: Any, column: str) -> None:
    """Copy a column's lists into the rows of `array` (N, width); a row with an empty list is left unchanged."""
    if column not in table.column_names:
        return
    lists, width = table.column(column).combine_chunks(), array.shape[1]
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    if set(np.unique(lengths).tolist()) - {0, width}:
        raise BadData(f"Lists of {column} should have {width} values. Found {sorted(set(lengths.tolist()))}.")
    if width:
        values = lists.flatten().cast(pa.from_numpy_dtype(array.dtype)).to_numpy(zero_copy_only=False)
        array[lengths == width] = values.reshape(-1, width)


def write_examples(path: Path, examples: Examples) -> None:
    """Write a Parquet file, atomically."""
    write_atomically(path, to_parquet(examples))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}.part")
    try:
        write_durably(partial_path, content)
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)


def to_parquet(examples: Examples, extra_columns: Mapping[str, Array] = MappingProxyType({})) -> bytes:
    """The bytes of a Parquet file of examples, with `extra_columns` (N,) added."""
    columns: dict[str, Any] = {name: getattr(examples, name) for name in COLUMNS}
    for group, block in examples.blocks.items():
        present = ~is_empty(block)
        columns |= {
            f"{group}.numbers": to_list_column(block.numbers, present),
            f"{group}.ids": to_list_column(block.ids, present),
        }
    for task in examples.tasks:
        columns[f"label.{task.name}"] = to_label_column(examples, task)
        columns[f"known_ms.{task.name}"] = examples.known_ms[task.name]
    return encode_table(
        pa.table(columns | dict(extra_columns)).replace_schema_metadata({DIGEST_KEY: examples.features.digest.encode()})
    )


def encode_table(table: Any) -> bytes:
    """The bytes of a Parquet file of a table."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def to_label_column(examples: Examples, task: Task) -> Any:
    values = examples.labels[task.name]
    if task.kind == "multiclass":
        names: Mapping[int, str] = dict(enumerate(examples.classes[task.name]))
        return pa.array([names.get(value) for value in values.tolist()], pa.string())
    return pa.array(values.astype(np.float64), mask=~has_label(values))


def to_list_column(array: Array, present: Mask) -> Any:
    """A column of lists: the present rows of `array`, and empty lists for the others."""
    lengths = np.where(present, array.shape[1], 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(array[present].ravel()))
