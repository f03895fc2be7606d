"""`python -m training score`: scores a Parquet or CSV file with a bundle, batch by batch."""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from contract.bundle import read_bundle
from contract.errors import BadConfig, BadData
from contract.features.declaration import FeatureSet
from contract.object_folder import open_folder
from contract.settings.reading import Settings
from export.releases import locate_bundle
from training.report.console import print_json, print_lines
from training.scoring.bundle_scorer import BundleScorer
from training.scoring.table_reader import is_csv, iterate_tables

CURRENT: Final = "current"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help=f"a version or a folder, or `{CURRENT}`: the serving bundle")
    parser.add_argument("data", type=Path, metavar="FILE", help="a plain table or examples, as Parquet or CSV")
    parser.add_argument("--out", type=Path, help="the file of scores, .parquet or .csv; else FILE.scores next to it")
    parser.add_argument("--bundles", help="the folder of bundles or its URL, instead of the setting")


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Score every row of the file; the output appears when it is complete."""
    started_s, out = time.monotonic(), args.out or name_output(args.data)
    check_output(args.data, out)
    name = None if args.bundle == CURRENT else args.bundle
    folder, version = locate_bundle(open_folder(args.bundles or settings.bundle_store or settings.bundles), name)
    scorer = BundleScorer(read_bundle(folder, version), features)
    rows = 0
    with open_writer(out) as write:
        for table in iterate_tables(args.data):
            if len(table):
                write(scorer.score(table))
                rows += len(table)
        if not rows:
            raise BadData(f"{args.data} should hold rows. Found none.")
    print_lines(*scorer.report.format_sentences(), f"See {out}")
    print_json(
        version=version,
        rows=rows,
        out=str(out),
        missing=sorted(scorer.report.missing),
        unreadable=dict(scorer.report.unreadable),
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def name_output(data: Path) -> Path:
    """The file of scores next to the data, in the same format."""
    if is_csv(data):
        return data.with_name(f"{data.name.split('.')[0]}.scores.csv")
    return data.with_name(f"{data.stem}.scores.parquet")


def check_output(data: Path, out: Path) -> None:
    """Raises `BadConfig` for an output that is no table, has no folder, or is the data itself."""
    errors = list[str]()
    if out.suffix not in (".csv", ".parquet"):
        errors.append(f"`--out` should end in .csv or .parquet. Found {out}.")
    if not out.parent.is_dir():
        errors.append(f"`--out` should be in a folder that exists. Found {out.parent}.")
    if out.exists() and data.exists() and out.samefile(data):
        errors.append(f"`--out` should be another file than the data. Found {out}.")
    if errors:
        raise BadConfig(errors)


@contextmanager
def open_writer(out: Path) -> Iterator[Any]:
    """A function that appends a table; the file appears if nothing failed. Raises `BadData` on a full disk."""
    partial, writers = out.with_name(f".{out.name}.part"), list[Any]()

    def write(table: pa.Table) -> None:
        if not writers:
            create = csv.CSVWriter if is_csv(out) else pq.ParquetWriter
            writers.append(create(partial, table.schema))
        writers[0].write_table(table)

    try:
        yield write
        for writer in writers:
            writer.close()
        if writers:
            partial.replace(out)
    except OSError as error:
        raise BadData(f"{out} should be written whole. Found: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
