"""Examples as Parquet: one row each, whatever tool it is that reads or writes the file.

    example_id, event_id, user_id, item_id   text
    revision, ts_ms                          int64; of one id the newest revision counts
    GROUP.numbers, GROUP.ids                 lists in the order of features.toml; an empty list: nothing is known
    label.TASK                               a number, or the name of a class; null: unknown
    known_ms.TASK                            when the label became known

The file's metadata names the digest of the features, so that columns of other features are never misread. A file
without any GROUP column is a plain table, see `training.data.tabular`.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from contract.bundle import write_durably
from contract.errors import BadData
from contract.features.declaration import GROUPS, Block, FeatureSet
from contract.tasks import Task
from training.data.examples import COLUMNS, Examples, build_examples, is_empty, to_array
from training.data.labels import Classes, has_label
from training.data.tabular import examples_from_table

DIGEST_KEY: Final = b"shopstream.features"


def read_examples(
    source: Path | bytes, features: FeatureSet, tasks: Sequence[Task], classes: Classes | None = None
) -> Examples:
    """The examples of a Parquet file or its bytes; raises `BadData` for whatever is not a file of such examples."""
    name = source.name if isinstance(source, Path) else "the table"
    return parse_examples(name, read_table(source), features, tasks, classes)


def read_files(
    paths: Sequence[Path], features: FeatureSet, tasks: Sequence[Task], classes: Classes | None = None
) -> Examples:
    """The examples of several files as one set, labels that a file has no column for being unknown there."""
    tables = [read_table(path) for path in paths]
    names = [path.name for path in paths]
    check_same_features(names, tables, features)
    return parse_examples(" + ".join(names), merge_tables(names, tables), features, tasks, classes)


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and those that are named *.parquet in the folders; raises `BadData` for a folder without any."""
    files = list[Path]()
    for path in paths:
        if path.is_dir() and not (contained := sorted(path.rglob("*.parquet"))):
            raise BadData(f"{path} should hold files that are named *.parquet. Found none.")
        files += contained if path.is_dir() else [path]
    return files


def count_rows(path: Path) -> int:
    """How many rows a Parquet file says that it has."""
    return int(open_parquet(path).metadata.num_rows)


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file, of which nothing but the end is read yet; raises `BadData` for any other."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"{path} should be Parquet. Found: {error}") from error


def merge_tables(names: Sequence[str], tables: Sequence[Any]) -> Any:
    """Tables of the files of these names as one; raises `BadData` where a column is of different kinds."""
    try:
        merged = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise BadData(f"{list(names)} should go together. Found: {error}") from error
    return merged.replace_schema_metadata(tables[0].schema.metadata)


def parse_examples(
    name: str, table: Any, features: FeatureSet, tasks: Sequence[Task], classes: Classes | None
) -> Examples:
    """The examples of a table; raises `BadData` where there are none."""
    examples = parse_table(name, table, features, tasks, classes)
    if not len(examples):
        raise BadData(f"{name} should hold examples with a label of {[t.name for t in tasks]}. Found none.")
    return examples


def parse_table(
    name: str, table: Any, features: FeatureSet, tasks: Sequence[Task], classes: Classes | None
) -> Examples:
    """The examples of a table, whichever of the two forms it has."""
    if any(feature.column is not None for feature in features.features) and not has_feature_blocks(table):
        return examples_from_table(table, features, tasks, classes)
    check_columns(name, table, features)
    blocks = {group: read_block(table, group, features) for group in GROUPS}
    columns = {column: to_array(table.column(column).to_pylist(), column) for column in COLUMNS}
    labels = {task.name: read_optional(table, f"label.{task.name}") for task in tasks}
    known_ms = {
        task.name: np.array([ms or 0 for ms in read_optional(table, f"known_ms.{task.name}")], np.int64)
        for task in tasks
    }
    return build_examples(features, tasks, blocks, columns, labels, known_ms, classes=classes)


def has_feature_blocks(table: Any) -> bool:
    """Whether the features are there as blocks."""
    return any(f"{group}.{part}" in table.column_names for group in GROUPS for part in ("numbers", "ids"))


def read_table(source: Path | bytes) -> Any:
    try:
        return pq.read_table(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"{source if isinstance(source, Path) else 'It'} should be Parquet. Found: {error}") from error


def check_columns(name: str, table: Any, features: FeatureSet) -> None:
    """Raises `BadData` for columns that are missing, or of other features."""
    if missing := [column for column in COLUMNS if column not in table.column_names]:
        raise BadData(f"{name} should have the columns {missing}. Found {table.column_names}.")
    digest = (table.schema.metadata or {}).get(DIGEST_KEY, b"").decode()
    if digest != features.digest:
        raise BadData(f"{name} should have the features {features.digest}. Found {digest or 'no digest'}.")


def check_same_features(names: Sequence[str], tables: Sequence[Any], features: FeatureSet) -> None:
    """Raises `BadData` where some files hold features as served, and others hold other features or plain columns."""
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


def fill_rows(array: npt.NDArray[Any], table: Any, column: str) -> None:
    """Put a column's lists into the rows of `array` (N, width); a row whose list is empty keeps what it has."""
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
    """Write a Parquet file, all or nothing."""
    write_atomically(path, to_parquet(examples))


def write_atomically(path: Path, content: bytes) -> None:
    """Make a file appear with all of its bytes, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}.part")
    try:
        write_durably(partial_path, content)
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)


def to_parquet(examples: Examples, extra_columns: Mapping[str, npt.NDArray[Any]] = MappingProxyType({})) -> bytes:
    """The bytes of a Parquet file of examples, with `more` columns (N,) beside theirs."""
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
    table = pa.table(columns | dict(extra_columns)).replace_schema_metadata(
        {DIGEST_KEY: examples.features.digest.encode()}
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def to_label_column(examples: Examples, task: Task) -> Any:
    values = examples.labels[task.name]
    if task.kind == "multiclass":
        names: Mapping[int, str] = dict(enumerate(examples.classes[task.name]))
        return pa.array([names.get(value) for value in values.tolist()], pa.string())
    return pa.array(values.astype(np.float64), mask=~has_label(values))


def to_list_column(array: npt.NDArray[Any], present: npt.NDArray[np.bool_]) -> Any:
    """A column of lists: the rows of `array` that are present, empty ones for the others."""
    lengths = np.where(present, array.shape[1], 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(array[present].ravel()))
