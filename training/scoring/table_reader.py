"""Reads a Parquet or CSV file batch by batch, and brings its columns into the types that features need.

What a feature cannot use becomes unknown and is counted: a missing column, a value of another type. CSV columns are
read as text, since a type that is inferred from the first rows may not fit the later ones.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from contract.errors import BadData
from contract.features.declaration import Feature, FeatureSet

BATCH_ROWS: Final = 65_536


@dataclass(slots=True)
class ReadingReport:
    """What was not as the features need it: columns that the file lacks, and values of another type by column."""

    missing: set[str] = field(default_factory=set)
    unreadable: Counter[str] = field(default_factory=Counter)

    def format_sentences(self) -> list[str]:
        sentences = list[str]()
        if self.missing:
            names = ", ".join(f"`{name}`" for name in sorted(self.missing))
            sentences.append(
                f"The file should have the columns of all features. Found no {names}: unknown in all rows."
            )
        return sentences + [
            f"`{name}` should hold values of its feature's kind. Found others in {count} rows: unknown there."
            for name, count in sorted(self.unreadable.items())
        ]


def is_csv(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith((".csv", ".tsv"))


def iterate_tables(path: Path) -> Iterator[pa.Table]:
    """The rows of a file, `BATCH_ROWS` at a time; raises `BadData` for a file of another kind."""
    try:
        if is_csv(path):
            yield from iterate_csv(path)
            return
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(metadata)
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"{path} should be Parquet or CSV. Found: {error}") from error


def iterate_csv(path: Path) -> Iterator[pa.Table]:
    delimiter = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    parsing = csv.ParseOptions(delimiter=delimiter)
    with csv.open_csv(path, parse_options=parsing) as reader:
        names = reader.schema.names
    converting = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True)
    with csv.open_csv(path, parse_options=parsing, convert_options=converting) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def prepare_columns(table: pa.Table, features: FeatureSet, report: ReadingReport) -> pa.Table:
    """The columns of the features that have one, each in the type that `training.data.tabular` reads."""
    columns = dict[str, Any]()
    for feature in features.features:
        if (name := feature.column) is None:
            continue
        if name not in table.column_names:
            report.missing.add(name)
            columns[name] = pa.nulls(len(table), TYPES[feature.kind])
        else:
            columns[name] = convert_column(table.column(name), feature, report)
    return pa.table(columns)


def convert_column(column: pa.ChunkedArray, feature: Feature, report: ReadingReport) -> Any:
    """A column in the type of its feature; values that cannot be converted are null and counted."""
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if feature.kind == "number":
        with_numbers = try_cast(column)
        if with_numbers is not None:
            return with_numbers
    elif feature.kind in ("category", "text") and not is_list:
        return column
    read_value = READERS[feature.kind]
    values = column.to_pylist()
    read = [None if value is None else read_value(value, feature) for value in values]
    unreadable = sum(before is not None and after is None for before, after in zip(values, read, strict=True))
    if unreadable:
        report.unreadable[feature.source.removeprefix("column.")] += unreadable
    return pa.array(read, TYPES[feature.kind])


def try_cast(column: pa.ChunkedArray) -> Any:
    """The column as numbers, or None where some value is none."""
    try:
        return pc.cast(column, pa.float64())
    except pa.ArrowException:
        return None


def read_number(value: Any, feature: Feature) -> float | None:
    try:
        return float(value.strip() if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None


def read_label(value: Any, feature: Feature) -> str | None:
    return None if isinstance(value, list | dict) else str(value)


def read_sequence(value: Any, feature: Feature) -> list[str] | None:
    values = read_list(value)
    return None if values is None else [str(item) for item in values if item is not None]


def read_vector(value: Any, feature: Feature) -> list[float] | None:
    values = read_list(value)
    if values is None or len(values) != feature.size:
        return None
    numbers = [read_number(item, feature) for item in values]
    return None if None in numbers else [number for number in numbers if number is not None]


def read_list(value: Any) -> list[Any] | None:
    """A list, also as JSON text, as in CSV files; None for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, list) else None


TYPES: Final = {
    "number": pa.float64(),
    "category": pa.string(),
    "text": pa.string(),
    "sequence": pa.list_(pa.string()),
    "vector": pa.list_(pa.float64()),
}
READERS: Final[dict[str, Callable[[Any, Feature], Any]]] = {
    "number": read_number,
    "category": read_label,
    "text": read_label,
    "sequence": read_sequence,
    "vector": read_vector,
}
