"""`python -m training describe`: what examples are like, as a table, a page and JSON."""

import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from rich.console import Console
from rich.table import Table

from contract.errors import BadConfig
from contract.features import FeatureSet
from contract.settings import Settings
from training.description import Column, Description, Label, describe
from training.pages import figure, filled, mistakes_of, write_pages
from training.plots import drawn
from training.report import CONSOLE, print_json, say
from training.table import read_examples

DAY_TICKS: Final = 4
WIDTH: Final = 160  # of the tables in a file


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Describe a Parquet file of examples; nothing is learned."""
    begun = time.monotonic()
    if errors := mistakes_of(args.out):
        raise BadConfig(errors)
    found = describe(args.data, read_examples(args.data, features, settings.tasks))
    pages = write_pages(args.out, pages_of(found))
    console = CONSOLE if CONSOLE.is_terminal else Console(stderr=True, width=WIDTH)
    console.print(columns_table(found.columns), labels_table(found.labels))
    say(*found.odd, *(f"See {page}" for page in pages))
    print_json(
        examples=found.examples,
        left_out=found.file_rows - found.examples,
        odd=len(found.odd),
        pages=[str(page) for page in pages],
        seconds=round(time.monotonic() - begun, 2),
    )
    return 0


def columns_table(columns: Sequence[Column]) -> Table:
    """A row for each feature."""
    heads = ("group", "feature", "kind", "rows", "missing", "distinct", "median", "outliers", "look at")
    table = Table(*heads, title="Features", title_justify="left")
    for one in columns:
        shares = [f"{one.missing:.1%}", f"{one.distinct:,}", figure(one.median)]
        outliers = "–" if one.outliers is None else f"{one.outliers:.2%}"
        table.add_row(one.group, one.name, one.kind, f"{one.rows:,}", *shares, outliers, ", ".join(one.oddities))
    return table


def labels_table(labels: Sequence[Label]) -> Table:
    """A row for each task."""
    table = Table("task", "kind", "rows", "mean", "first", "last", "known after", "look at", title="Labels")
    for one in labels:
        said = (one.classes and f"{len(one.classes)} classes") or figure(one.mean)
        wait = "–" if one.known_after_s is None else f"{one.known_after_s:,.0f} s"
        odd = ", ".join(one.oddities)
        table.add_row(one.task, one.kind, f"{one.rows:,}", said, one.first or "–", one.last or "–", wait, odd)
    return table


def pages_of(found: Description) -> dict[str, bytes]:
    """The page's files by name."""
    groups = dict.fromkeys(column.group for column in found.columns)
    plots = {group: [one for one in found.columns if one.group == group] for group in groups}
    pictures = {group: drawn([partial(bars, of=one) for one in of], 5, 1.9) for group, of in plots.items()}
    over_time = [partial(by_day, of=label) for label in found.labels if len(label.days) > 1]
    return {
        "description.json": msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n",
        "description.html": filled(
            "description.html", found=found, pictures=pictures, labels=drawn(over_time, 3, 2.2) if over_time else ""
        ).encode(),
    }


def bars(axes: Axes, of: Column) -> None:
    """How the values of a feature are spread; counts on a logarithmic scale, for rare ones are what goes wrong."""
    axes.set_title(of.name, fontsize=7.5)
    if not any(of.bars):
        axes.text(0.5, 0.5, "nothing to draw", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    edges = np.arange(len(of.bars) + 1.0)
    if of.clip_low is not None and of.clip_high is not None:
        edges = np.linspace(of.clip_low, max(of.clip_high, of.clip_low + 1e-9), len(of.bars) + 1)
    axes.set_yscale("log")
    axes.stairs(of.bars, edges, fill=True, baseline=0.5, color="C0" if of.kind == "number" else "C2")
    axes.set_ylim(bottom=0.5)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.xaxis.set_major_locator(MaxNLocator(3) if of.kind == "number" else NullLocator())
    axes.tick_params(labelsize=6)


def by_day(axes: Axes, of: Label) -> None:
    """Labels a day, and their mean."""
    days, rows = list(of.days), [count for count, _ in of.days.values()]
    means = [float("nan") if mean is None else mean for _, mean in of.days.values()]
    axes.bar(range(len(days)), rows, color="0.85")
    axes.set_title(f"{of.task}: labels a day" + ("" if of.classes else ", and their mean"), fontsize=8)
    ticks = np.unique(np.linspace(0, len(days) - 1, DAY_TICKS).astype(int))
    axes.set_xticks(ticks, [days[at] for at in ticks], fontsize=6)
    if not of.classes:
        beside = axes.twinx()
        beside.plot(range(len(days)), means, marker=".", linewidth=1)
        beside.set_ylim(bottom=0)
