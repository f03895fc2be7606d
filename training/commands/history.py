"""`python -m training history`: a shop's files as one sorted history, with a report of what was found in them."""

import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from contract.features.declaration import FeatureSet
from contract.mapping.topic_map import TopicMap
from contract.settings.mapping import read_maps
from contract.settings.reading import Settings
from training.history.decoding import DocumentDecoder
from training.history.inputs import parse_inputs
from training.history.normalisation import write_history
from training.history.report import format_report
from training.report.console import CONSOLE, print_json, print_lines


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="[KIND[:COLUMN]=]PATH",
        help="files or folders of JSON Lines, CSV or Parquet; map.NAME= instead of KIND= for records that this map "
        'reads; with neither: lines of {"kind": ..., "event": ...}; with COLUMN, consecutive rows with one value in it '
        "are one order",
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; it should not exist yet")
    parser.add_argument("--until", type=parse_time, metavar="TIME", help="leave out events at or after this time")


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Write the history and print its report; records that are no events are no failure."""
    maps = {table.name: TopicMap([table], settings.intake.folded_placeholders) for table in read_maps(settings.map)}
    files = parse_inputs(args.inputs, maps)
    now_ms = time.time_ns() // 1_000_000
    decoder = DocumentDecoder(now_ms=now_ms, intake=settings.intake, tasks=settings.tasks, maps=maps)
    with ProgressBar() as bar:
        manifest, report = write_history(args.out, files, decoder=decoder, until_ms=args.until, on_progress=bar.update)
    print_lines(*format_report(report))
    print_json(
        history=str(args.out),
        digest=manifest.digest,
        records=report.records,
        events=report.events,
        kinds=dict(report.kinds),
        refused=report.count_refused(),
        skipped=sum(finding.records for finding in report.skipped.values()),
        ignored=dict(report.ignored),
        doubtful=dict(report.doubtful),
        duplicates=report.duplicates.total(),
        conflicts=report.conflicts.records,
        out_of_order=report.out_of_order.total(),
        unmet={name: finding.records for name, finding in report.unmet.items()},
        first_ms=manifest.first_ms,
        last_ms=manifest.last_ms,
        seconds=report.seconds,
    )
    return 0


def parse_time(text: str) -> int:
    """A time in epoch milliseconds; without a zone it is UTC."""
    try:
        when = datetime.fromisoformat(text)
        return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
    except ValueError as error:
        raise ArgumentTypeError(f"A time should be written as 2026-11-25T20:00. Found {text}.") from error


class ProgressBar:
    """One bar for each step, on a terminal only."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=CONSOLE, transient=True)
        self._tasks = dict[str, int]()

    def __enter__(self) -> Self:
        if CONSOLE.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, step: str, done: int, whole: int) -> None:
        if step not in self._tasks:
            self._tasks[step] = self._bar.add_task(step, total=whole)
        self._bar.update(self._tasks[step], completed=done)  # type: ignore[arg-type]
