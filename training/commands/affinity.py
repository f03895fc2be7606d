"""`python -m training affinity`: which tasks' gradients agree, as a matrix, a heat map and JSON."""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.settings.reading import Settings
from training.analysis.task_affinity import Matrix, TaskAffinity, measure_affinity
from training.commands.fit import read_configs
from training.data.parquet import read_examples
from training.erasure.arguments import add_erasures_argument, read_erasures
from training.report.console import print_json, print_lines
from training.report.pages import encode_json, find_output_errors, render_template, write_pages
from training.report.plots import render_svg
from training.report.progress import format_values
from training.trainer.fit import Losses


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="examples as Parquet")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="the folder of the report")
    parser.add_argument("--epochs", type=int, help="passes over the data, instead of the setting")
    parser.add_argument("--seed", type=int, help="the seed, instead of the setting")
    add_erasures_argument(parser)


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Train on a Parquet file of examples and report how the tasks' gradients agree; no model is kept."""
    started_s = time.monotonic()
    if errors := find_output_errors(args.out):
        raise BadConfig(errors)
    model_config, config = read_configs(settings, features, {"epochs": args.epochs, "seed": args.seed})
    torch.set_num_threads(config.threads)
    examples = read_examples(args.data, features, settings.tasks, erasures=read_erasures(args, settings))
    affinity = measure_affinity(examples, model_config, config, print_epoch)
    subtitle = f"{args.data.name}, seed {config.seed}, {model_config.architecture}"
    pages = write_pages(args.out, render_pages(affinity, subtitle))
    print_lines(*affinity.left_out.values(), *format_pairs(affinity), *(f"See {page}" for page in pages))
    print_json(
        tasks=affinity.tasks,
        mean=affinity.mean,
        looks=affinity.looks,
        pages=[str(page) for page in pages],
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def print_epoch(number: int, losses: Losses) -> None:
    print_lines(f"epoch {number}  losses  {format_values(losses, 4)}")


def format_pairs(affinity: TaskAffinity) -> list[str]:
    """Each pair of tasks with shared parameters, the most conflicting first."""
    return [f"{task} and {other}: {value:+.3f}" for value, task, other in affinity.pairs()]


def render_pages(affinity: TaskAffinity, subtitle: str) -> dict[str, bytes]:
    """The report's files by name."""
    plots = [partial(plot_heatmap, values=affinity.mean, tasks=affinity.tasks), partial(plot_epochs, affinity=affinity)]
    page = render_template("affinity.html", affinity=affinity, subtitle=subtitle, picture=render_svg(plots, 2, 3.8))
    return {"affinity.json": encode_json(affinity), "affinity.html": page.encode()}


def plot_heatmap(axes: Axes, values: Matrix, tasks: Sequence[str]) -> None:
    """The matrix in colours: red for tasks in conflict, blue for tasks that agree."""
    cells = np.array([[np.nan if value is None else value for value in row] for row in values], float)
    axes.imshow(cells, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_xticks(range(len(tasks)), tasks, rotation=45, ha="right")
    axes.set_yticks(range(len(tasks)), tasks)
    for row, column in np.argwhere(~np.isnan(cells)):
        value = cells[row, column]
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="w" if abs(value) > 0.6 else "k")


def plot_epochs(axes: Axes, affinity: TaskAffinity) -> None:
    """The cosine of each pair of tasks by epoch."""
    for _, task, other in affinity.pairs():
        a, b = affinity.tasks.index(task), affinity.tasks.index(other)
        values = [np.nan if (value := epoch[a][b]) is None else value for epoch in affinity.epochs]
        axes.plot(range(1, len(values) + 1), values, marker=".", linewidth=1, label=f"{task}, {other}")
    axes.axhline(0, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="epoch", ylabel="cosine")
    if affinity.pairs():
        axes.legend(frameon=False, fontsize=6.5)
