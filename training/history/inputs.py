"""Files of a shop's events as documents, one by one: JSON Lines, CSV, Parquet, and folders of these."""

import csv
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import BadConfig, BadData
from contract.events.model import KINDS

PARQUET_ROWS: Final = 10_000  # read at a time
MAP_PREFIX: Final = "map."
SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
Document: TypeAlias = bytes | dict[str, Any]  # the bytes of one line of JSON, or the cells of one row by column


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, and the kind of its events or the `map` that finds it; with neither, each line names its kind."""

    path: Path
    kind: str | None = None
    map: str = ""

    @property
    def content(self) -> str:
        """What the file holds, in a word; empty if each line says it."""
        return self.kind or (f"map.{self.map}" if self.map else "")

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def parse_inputs(words: Sequence[str], maps: Collection[str] = ()) -> list[InputFile]:
    """The files named by `KIND=PATH`, `map.NAME=PATH` or `PATH`, folders in the order of names.

    Raises `BadConfig` with all mistakes.
    """
    files, errors = list[InputFile](), list[str]()
    for word in words:
        head, separator, tail = word.partition("=")
        kind = head if separator and head in KINDS else None
        map_name = head.removeprefix(MAP_PREFIX) if separator and head.startswith(MAP_PREFIX) else ""
        path = Path(tail) if kind or map_name else Path(word)
        if map_name and map_name not in maps:
            errors.append(f"{word} should name a map of the settings: {', '.join(maps) or 'there is none'}.")
        paths = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
        if not all(p.is_file() for p in paths) or not paths:
            errors.append(f"{word} should be [KIND=]PATH of a file or of a folder with {', '.join(SUFFIXES)}.")
        if not (kind or map_name) and any(p.suffix in (".csv", ".parquet") for p in paths):
            errors.append(
                f"{word} should say which kind of events its rows are, as in orders={path}, or which map reads them, "
                f"as in map.NAME={path}. Kinds are {', '.join(KINDS)}."
            )
        files += [InputFile(p, kind, map_name) for p in paths]
    if errors:
        raise BadConfig(errors)
    return files


def read_documents(file: InputFile) -> Iterator[Document]:
    """The documents of a file, in its order; raises `BadData` for a file that cannot be read."""
    try:
        match file.path.suffix:
            case ".csv":
                yield from read_csv(file.path)
            case ".parquet":
                yield from read_parquet(file.path)
            case _:
                with file.path.open("rb") as lines:
                    yield from (line.strip() for line in lines)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise BadData(f"{file.path} should be a readable {file.path.suffix} file. Found: {error}") from error


def read_csv(path: Path) -> Iterator[Document]:
    """Rows by the names in the first line. Empty cells are absent, cells that begin with a bracket are JSON."""
    with path.open(newline="", encoding="utf-8-sig") as text:
        for row in csv.DictReader(text):
            yield {name: parse_cell(cell) for name, cell in row.items() if cell and isinstance(name, str)}


def parse_cell(cell: str) -> Any:
    if cell[0] in "[{":
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def read_parquet(path: Path) -> Iterator[Document]:
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=PARQUET_ROWS):
            for row in batch.to_pylist():
                yield {name: plain for name, value in row.items() if (plain := to_plain(value)) is not None}


def to_plain(value: Any) -> Any:
    """A value as JSON has it: times as ISO 8601 (those without a zone as UTC), decimals as numbers, NaN as none."""
    match value:
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        case date():
            return datetime(value.year, value.month, value.day, tzinfo=UTC).isoformat()
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return float(value)
        case dict():
            return {name: to_plain(field) for name, field in value.items() if field is not None}
        case list():
            return [to_plain(entry) for entry in value]
        case _:
            return value
