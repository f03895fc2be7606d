"""Files of a shop's events as documents, one by one: JSON Lines, CSV, Parquet, and folders of these."""

import codecs
import csv
import gzip
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.errors import BadConfig, BadData
from contract.events.model import KINDS
from contract.events.values import DamagedText
from training.history.documents import Document, UnclearRow, group_rows
from training.history.report import TO_UTF8

PARQUET_ROWS: Final = 10_000  # read at a time
MAP_PREFIX: Final = "map."
SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
ROW_SUFFIXES: Final = (".csv", ".tsv", ".parquet")
PACKED: Final = ".gz"
SEPARATORS: Final = ",;\t|"
CELL_CHARS_MAX: Final = 16 * 1024 * 1024
# How a file begins that is not in UTF-8; those of UTF-32 begin like one of UTF-16.
ENCODINGS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UNREADABLE_TIME: Final = "a time that no calendar has"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, and the kind of its events or the `map` that finds it; with neither, each line names its kind.

    `group_by`: the column whose value the rows of one record share; empty where each row is a record.
    """

    path: Path
    kind: str | None = None
    map: str = ""
    group_by: str = ""

    @property
    def content(self) -> str:
        """What the file holds, in a word; empty if each line says it."""
        return self.kind or (f"map.{self.map}" if self.map else "")

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def group(self, rows: Iterator[Document]) -> Iterator[Document]:
        """The rows as documents: as they are, or those that belong together as one; raises `BadData`."""
        if not self.group_by:
            return rows
        return group_rows(rows, self.group_by, "rows" if self.map else "lines", self.path)


def parse_inputs(words: Sequence[str], maps: Collection[str] = ()) -> list[InputFile]:
    """The files named by `KIND=PATH`, `map.NAME=PATH` or `PATH`, folders in the order of names.

    `map.NAME:COLUMN=PATH` and `orders:COLUMN=PATH` are of rows that belong together. Raises `BadConfig` with all
    mistakes.
    """
    files, errors = list[InputFile](), list[str]()
    for word in words:
        head, separator, tail = word.partition("=")
        head, colon, group_by = head.partition(":")
        kind = head if separator and head in KINDS else None
        map_name = head.removeprefix(MAP_PREFIX) if separator and head.startswith(MAP_PREFIX) else ""
        path = Path(tail) if kind or map_name else Path(word)
        if map_name and map_name not in maps:
            errors.append(f"{word} should name a map of the settings: {', '.join(maps) or 'there is none'}.")
        if colon and (kind or map_name) and not (group_by and (map_name or kind == "orders")):
            errors.append(
                f"{word} should name the column of rows that are one order, as orders:COLUMN or map.NAME:COLUMN."
            )
        paths = sorted(p for p in path.rglob("*") if find_suffix(p) in SUFFIXES) if path.is_dir() else [path]
        if not all(p.is_file() for p in paths) or not paths:
            errors.append(f"{word} should be [KIND=]PATH of a file or of a folder with {', '.join(SUFFIXES)}.")
        if not (kind or map_name) and any(find_suffix(p) in ROW_SUFFIXES for p in paths):
            errors.append(
                f"{word} should say which kind of events its rows are, as in orders={path}, or which map reads them, "
                f"as in map.NAME={path}. Kinds are {', '.join(KINDS)}."
            )
        is_grouped = bool(group_by and (kind or map_name))
        if is_grouped and any(find_suffix(p) not in ROW_SUFFIXES for p in paths):
            errors.append(f"{word} should be CSV or Parquet: lines of JSON are records of their own.")
        files += [InputFile(p, kind, map_name, group_by if is_grouped else "") for p in paths]
    if errors:
        raise BadConfig(errors)
    return files


def find_suffix(path: Path) -> str:
    """What kind of file it is, packed or not."""
    return Path(path.name.removesuffix(PACKED)).suffix


def read_documents(file: InputFile) -> Iterator[Document]:
    """The documents of a file, in its order; raises `BadData` for a file that cannot be read."""
    suffix = find_suffix(file.path)
    try:
        match suffix:
            case ".csv" | ".tsv":
                yield from file.group(read_csv(file.path, file.group_by))
            case ".parquet":
                yield from file.group(read_parquet(file.path, file.group_by))
            case _:
                yield from read_lines(file.path)
    except (OSError, EOFError, UnicodeError, zlib.error, csv.Error, pa.ArrowException) as error:
        if isinstance(error, UnicodeError) and (place := find_other_bytes(file.path)):
            raise BadData(f"{file.path} should be UTF-8. Found {place}: convert it by {TO_UTF8}.") from error
        raise BadData(f"{file.path} should be a readable {suffix} file. Found: {error}") from error


def find_other_bytes(path: Path) -> str:
    """The first byte of a file, and its line, that is not UTF-8; empty for a file that says another encoding."""
    if find_encoding(path) != "utf-8-sig":
        return ""
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"byte 0x{line[error.start]:02x} in line {number}"
    return ""


def open_bytes(path: Path) -> BinaryIO:
    """A file, unpacked if its name says that it is packed."""
    return cast(BinaryIO, gzip.open(path)) if path.name.endswith(PACKED) else path.open("rb")


def find_encoding(path: Path) -> str:
    """The encoding by a file's first bytes: UTF-8 unless they say another one."""
    with open_bytes(path) as file:
        first = file.read(4)
    return next((encoding for mark, encoding in ENCODINGS if first.startswith(mark)), "utf-8-sig")


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, in UTF-8 whatever the file's encoding."""
    encoding = find_encoding(path)
    if encoding == "utf-8-sig":  # whether each line is UTF-8 is found where it is decoded
        with open_bytes(path) as file:
            yield from (line.strip() for line in file)
        return
    with io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="\n") as text:
        yield from (line.strip().encode() for line in text)


def read_csv(path: Path, needed: str = "") -> Iterator[Document]:
    """Rows by the names in the first line. Empty cells are absent, cells that begin with a bracket are JSON.

    Cells are separated by what the first line has most of: commas, semicolons, tabs or bars. `needed`: a column that
    has to be there.
    """
    csv.field_size_limit(CELL_CHARS_MAX)
    with io.TextIOWrapper(open_bytes(path), encoding=find_encoding(path), newline="") as text:
        header = text.readline()
        separator = max(SEPARATORS, key=header.count)
        names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        if repeated := sorted(name for name, count in Counter(names).items() if count > 1 and name):
            raise BadData(f"{path} should name each column once. Found {', '.join(repeated)} more than once.")
        check_column(path, names, needed)
        has_spaces = f"{separator} " in header
        rows = csv.reader(text, delimiter=separator, skipinitialspace=has_spaces, strict=True)
        try:
            for row in rows:
                cells = zip(names, row, strict=False)
                is_clear = len(row) <= len(names)
                yield (
                    {name: parse_cell(cell) for name, cell in cells if name and cell}
                    if is_clear
                    else UnclearRow(len(row), len(names))
                )
        except csv.Error as error:
            raise BadData(f"{path} should be CSV. Found in line {rows.line_num + 1}: {error}") from error


def check_column(path: Path, names: Sequence[str], needed: str) -> None:
    """Raise `BadData` where a column is needed and not there."""
    if needed and needed not in names:
        raise BadData(f"{path} should have a column named {needed}. Found {', '.join(filter(None, names)) or 'none'}.")


def parse_cell(cell: str) -> Any:
    if cell[0] in "[{":
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def read_parquet(path: Path, needed: str = "") -> Iterator[Document]:
    """Rows by the names of columns; `needed`: one that has to be there."""
    with pq.ParquetFile(path) as table:
        names = table.schema_arrow.names
        if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
            raise BadData(f"{path} should name each column once. Found {', '.join(repeated)} more than once.")
        check_column(path, names, needed)
        for batch in table.iter_batches(batch_size=PARQUET_ROWS):
            for cells in zip(*map(read_column, batch.columns), strict=True):
                row = zip(names, cells, strict=True)
                yield {name: plain for name, value in row if (plain := to_plain(value)) is not None}


def read_column(column: pa.Array) -> list[Any]:
    """The values of a column; of times that Python does not have, the milliseconds, or a text that says so."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = pc.cast(column, pa.timestamp("us", column.type.tz), safe=False)
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        values = [read_cell(cell) for cell in column]
    return values


def read_cell(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return UNREADABLE_TIME


def read_bytes(value: bytes) -> str | DamagedText:
    try:
        return value.decode()
    except UnicodeDecodeError:  # two ids with U+FFFD for such bytes would be one
        return DamagedText()


def to_plain(value: Any) -> Any:
    """A value as JSON has it: times as ISO 8601 (those without a zone as UTC), decimals as numbers, NaN as none.

    A map is an object, and bytes are the text that they hold in UTF-8, or a `DamagedText`.
    """
    match value:
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        case date():
            return datetime(value.year, value.month, value.day, tzinfo=UTC).isoformat()
        case float():
            return value if math.isfinite(value) else None
        case Decimal():  # ids of databases are decimals without a fraction, beyond the precision of a float
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return read_bytes(value)
        case dict():
            return {name: to_plain(field) for name, field in value.items() if field is not None}
        case [*entries] if entries and all(isinstance(entry, tuple) for entry in entries):
            return {str(name): to_plain(field) for name, field in entries if field is not None}
        case list():
            return [to_plain(entry) for entry in value]
        case _:
            return value
