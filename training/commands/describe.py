"""`python -m training describe`: a profile of examples as tables, a page and JSON."""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from rich.console import Console
from rich.table import Table

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.folders import check_writable
from contract.settings.reading import Settings
from training.analysis.data_profile import ColumnSummary, DatasetSummary, LabelSummary, summarize_examples
from training.analysis.feature_pruning import drop_tables, select_features
from training.data.parquet import read_examples, write_atomically
from training.erasure.arguments import add_erasures_argument, read_erasures
from training.report.console import CONSOLE, format_number, print_json, print_lines
from training.report.pages import encode_json, find_output_errors, render_template, write_pages
from training.report.plots import render_svg

DAY_TICKS: Final = 4
TABLE_WIDTH: Final = 160  # where the output is not a terminal


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="examples as Parquet")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="the folder of the report")
    parser.add_argument("--write", type=Path, help="a file to write the features to, without those that say nothing")
    add_erasures_argument(parser)


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Describe a Parquet file of examples; nothing is trained."""
    started_s = time.monotonic()
    if errors := find_output_errors(args.out):
        raise BadConfig(errors)
    if args.write:
        check_writable(args.write.parent, "--write")
    summary = summarize_examples(
        args.data, read_examples(args.data, features, settings.tasks, erasures=read_erasures(args, settings))
    )
    pages = write_pages(args.out, render_pages(summary))
    console = CONSOLE if CONSOLE.is_terminal else Console(stderr=True, width=TABLE_WIDTH)
    console.print(build_columns_table(summary.columns), build_labels_table(summary.labels))
    dropped = write_pruned(args.write, features, summary, settings) if args.write else []
    print_lines(*summary.odd, *(f"See {page}" for page in pages))
    if args.write:
        print_lines(
            f"{args.write} declares the features without the {len(dropped)} that say nothing. "
            "With `features` set to it, replay the history again, then fit: examples hold the features of their file."
        )
    print_json(
        examples=summary.examples,
        left_out=summary.file_rows - summary.examples,
        odd=len(summary.odd),
        pages=[str(page) for page in pages],
        dropped=dropped,
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def write_pruned(path: Path, features: FeatureSet, summary: DatasetSummary, settings: Settings) -> list[str]:
    """Write the file of features without those that say nothing; returns their names."""
    names = select_features(features, summary.columns, settings)
    write_atomically(path, drop_tables(settings.features.read_text(), names).encode())
    return names


def build_columns_table(columns: Sequence[ColumnSummary]) -> Table:
    """A row for each feature."""
    headers = ("group", "feature", "kind", "rows", "missing", "distinct", "median", "outliers", "findings")
    table = Table(*headers, title="Features", title_justify="left")
    for column in columns:
        table.add_row(
            column.group,
            column.name,
            column.kind,
            f"{column.rows:,}",
            f"{column.missing:.1%}",
            f"{column.distinct:,}",
            format_number(column.median),
            "–" if column.outliers is None else f"{column.outliers:.2%}",
            ", ".join(column.oddities),
        )
    return table


def build_labels_table(labels: Sequence[LabelSummary]) -> Table:
    """A row for each task."""
    table = Table("task", "kind", "rows", "mean", "first", "last", "known after", "findings", title="Labels")
    for label in labels:
        table.add_row(
            label.task,
            label.kind,
            f"{label.rows:,}",
            f"{len(label.classes)} classes" if label.classes else format_number(label.mean),
            label.first or "–",
            label.last or "–",
            "–" if label.known_after_s is None else f"{label.known_after_s:,.0f} s",
            ", ".join(label.oddities),
        )
    return table


def render_pages(summary: DatasetSummary) -> dict[str, bytes]:
    """The report's files by name."""
    groups = dict.fromkeys(column.group for column in summary.columns)
    pictures = dict[str, str]()
    for group in groups:
        columns = [column for column in summary.columns if column.group == group]
        pictures[group] = render_svg([partial(plot_histogram, column=column) for column in columns], 5, 1.9)
    over_time = [partial(plot_labels_by_day, label=label) for label in summary.labels if len(label.days) > 1]
    label_plots = render_svg(over_time, 3, 2.2) if over_time else ""
    page = render_template("description.html", summary=summary, pictures=pictures, label_plots=label_plots)
    return {"description.json": encode_json(summary), "description.html": page.encode()}


def plot_histogram(axes: Axes, column: ColumnSummary) -> None:
    """The distribution of a feature; counts on a logarithmic scale, because rare values are the suspicious ones."""
    axes.set_title(column.name, fontsize=7.5)
    if not any(column.bars):
        axes.text(0.5, 0.5, "nothing to draw", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    edges = np.arange(len(column.bars) + 1.0)
    if column.clip_low is not None and column.clip_high is not None:
        edges = np.linspace(column.clip_low, max(column.clip_high, column.clip_low + 1e-9), len(column.bars) + 1)
    axes.set_yscale("log")
    axes.stairs(column.bars, edges, fill=True, baseline=0.5, color="C0" if column.kind == "number" else "C2")
    axes.set_ylim(bottom=0.5)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.xaxis.set_major_locator(MaxNLocator(3) if column.kind == "number" else NullLocator())
    axes.tick_params(labelsize=6)


def plot_labels_by_day(axes: Axes, label: LabelSummary) -> None:
    """The labels of each day, and their mean."""
    days = list(label.days)
    rows = [count for count, _ in label.days.values()]
    means = [float("nan") if mean is None else mean for _, mean in label.days.values()]
    axes.bar(range(len(days)), rows, color="0.85")
    axes.set_title(f"{label.task}: labels by day" + ("" if label.classes else ", and their mean"), fontsize=8)
    ticks = np.unique(np.linspace(0, len(days) - 1, DAY_TICKS).astype(int))
    axes.set_xticks(ticks, [days[tick] for tick in ticks], fontsize=6)
    if not label.classes:
        right_axes = axes.twinx()
        right_axes.plot(range(len(days)), means, marker=".", linewidth=1)
        right_axes.set_ylim(bottom=0)
