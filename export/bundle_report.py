"""Prints the contents of a bundle, whose digests are checked."""

import io
from datetime import UTC, datetime

import numpy as np
from rich.console import Console
from rich.table import Table

from contract.bundle import Bundle, Manifest, read_bundle
from contract.object_folder import Folder
from export.ort import open_session


def print_bundle(bundles: Folder, version: str) -> None:
    """Print a bundle; raises `BadBundle`."""
    bundle = read_bundle(bundles, version)
    manifest, console = bundle.manifest, Console()
    created = datetime.fromtimestamp(manifest.created_ms / 1000, UTC)
    console.print(
        f"[bold]{manifest.version}[/bold] created {created:%Y-%m-%d %H:%M:%S} UTC, parent {manifest.parent or 'none'}"
    )
    console.print(f"{len(manifest.features)} features; trained on {format_positions(manifest)}")
    console.print(make_tasks_table(manifest), make_graphs_table(bundle))
    with np.load(io.BytesIO(bundle.files["neighbours.npz"]), allow_pickle=False) as arrays:
        linked = int((arrays["neighbours"] >= 0).any(1).sum())
        console.print(f"{linked} of {len(arrays['items'])} items have neighbours; {len(arrays['popular'])} are popular")


def format_positions(manifest: Manifest) -> str:
    ranges = [f"{partition} up to {offset}" for partition, offset in sorted(manifest.positions.items())]
    return ", ".join(ranges) or "history only"


def make_tasks_table(manifest: Manifest) -> Table:
    table = Table("task", "kind", "groups", "graph", "thresholds", "on held-out examples")
    for task in manifest.tasks:
        figures = manifest.evaluation.get(task.name, {})
        shown = ", ".join(f"{name} {format_figure(value)}" for name, value in figures.items())
        least = ", ".join(f"{action} {value:g}" for action, value in manifest.thresholds.get(task.name, {}).items())
        table.add_row(task.name, task.kind, " ".join(task.groups), task.graph, least, shown)
    return table


def format_figure(value: float) -> str:
    """Counts in full, anything else to four digits."""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"


def make_graphs_table(bundle: Bundle) -> Table:
    table = Table("graph", "bytes", "inputs", "outputs")
    for name, content in sorted(bundle.files.items()):
        if name.endswith(".onnx"):
            session = open_session(name, content)
            sides = (
                [f"{value.name} ({', '.join(map(str, value.shape))})" for value in values]
                for values in (session.get_inputs(), session.get_outputs())
            )
            table.add_row(name, f"{len(content):,}", *("\n".join(side) for side in sides))
    return table
