"""`python -m training affinity`: which tasks agree while they learn, as a matrix, a heat map and JSON."""

import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np
import torch
from matplotlib.axes import Axes

from contract.errors import BadConfig
from contract.features import FeatureSet
from contract.settings import Settings
from training.affinity import Affinity, Matrix, measure_affinity
from training.commands.fit import declared
from training.commands.telling import listed
from training.fit import Losses
from training.pages import filled, mistakes_of, write_pages
from training.plots import drawn
from training.report import print_json, say
from training.table import read_examples


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Learn from a Parquet file of examples and tell how the tasks' gradients agree; no model is kept."""
    begun = time.monotonic()
    if errors := mistakes_of(args.out):
        raise BadConfig(errors)
    given = {"epochs": args.epochs, "seed": args.seed}
    shape, plan = declared(settings, features, {name: value for name, value in given.items() if value is not None})
    torch.set_num_threads(plan.threads)
    examples = read_examples(args.data, features, settings.tasks)
    found = measure_affinity(examples, shape, plan, show_epoch)
    pages = write_pages(args.out, pages_of(found, f"{args.data.name}, seed {plan.seed}, {shape.architecture}"))
    say(*found.left_out.values(), *sentences(found), *(f"See {page}" for page in pages))
    print_json(
        tasks=found.tasks,
        mean=found.mean,
        looks=found.looks,
        pages=[str(page) for page in pages],
        seconds=round(time.monotonic() - begun, 2),
    )
    return 0


def show_epoch(number: int, losses: Losses) -> None:
    say(f"epoch {number}  losses  {listed(losses, 4)}")


def sentences(found: Affinity) -> list[str]:
    """Each two tasks that share something, those in conflict first."""
    return [f"{one} and {other}: {value:+.3f}" for value, one, other in found.pairs()]


def pages_of(found: Affinity, of: str) -> dict[str, bytes]:
    """The page's files by name."""
    plots = [partial(heat, values=found.mean, tasks=found.tasks), partial(over_epochs, of=found)]
    page = filled("affinity.html", found=found, of=of, picture=drawn(plots, 2, 3.8))
    return {
        "affinity.json": msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n",
        "affinity.html": page.encode(),
    }


def heat(axes: Axes, values: Matrix, tasks: Sequence[str]) -> None:
    """The matrix in colours: red where tasks are in conflict, blue where they agree."""
    drawn = np.array([[np.nan if value is None else value for value in row] for row in values], float)
    axes.imshow(drawn, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_xticks(range(len(tasks)), tasks, rotation=45, ha="right")
    axes.set_yticks(range(len(tasks)), tasks)
    for row, column in np.argwhere(~np.isnan(drawn)):
        value = drawn[row, column]
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="w" if abs(value) > 0.6 else "k")


def over_epochs(axes: Axes, of: Affinity) -> None:
    """The cosine of each two tasks, epoch by epoch."""
    for _, one, other in of.pairs():
        a, b = of.tasks.index(one), of.tasks.index(other)
        values = [np.nan if (value := epoch[a][b]) is None else value for epoch in of.epochs]
        axes.plot(range(1, len(values) + 1), values, marker=".", linewidth=1, label=f"{one}, {other}")
    axes.axhline(0, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="epoch", ylabel="cosine")
    if of.pairs():
        axes.legend(frameon=False, fontsize=6.5)
