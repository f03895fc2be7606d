"""Rows as a network served them: examples with what it said, and with labels that its parent or chance decides."""

from pathlib import Path

import torch
from msgspec.structs import replace

from contract.bundle import Manifest, current_version, publish
from contract.rows import Example
from contract.settings import Feedback
from model.checkpoint import Checkpoint, describe, write_checkpoint
from model.network import Network
from tests.model.small import TASKS
from tests.training.made import make_rows
from training.live import Live
from training.verdict import said_now
from training.watching import Watching

FEEDBACK = Feedback(fraud_window_s=86_400, purchase_window_s=86_400)
WATCHING = Watching(rows_min=200, window_s=1e9, block=100, block_s=0)
LATER_MS = 1_900_000_000_000  # when whatever waits is over
NAMES = {task.name for task in TASKS if task.kind != "multiclass"}


def served(network: Network, version: str, rows: int, seed: int) -> list[Example]:
    """Rows of many people, with what the network said of each."""
    made = make_rows(rows, seed, f"s{seed}-")
    said = [dict[str, float]() for _ in made]
    for task in (task for task in network.tasks if task.name in NAMES):
        at = [n for n, row in enumerate(made) if task.graph in graphs_of(row)]
        for n, value in zip(at, said_now(network, task, [made[n] for n in at]).tolist(), strict=True):
            said[n][task.name] = value
    return [
        replace(row, user_id=f"u{n % 211}", model_version=version, served=of)
        for n, (row, of) in enumerate(zip(made, said, strict=True))
    ]


def graphs_of(row: Example) -> set[str]:
    return {task.graph for task in TASKS if task.name in row.labels}


def lived(rows: list[Example], watching: Watching = WATCHING) -> Live:
    """What is known of rows when all their labels are final."""
    live = Live(tasks=TASKS, feedback=FEEDBACK, watching=watching)
    for row in rows:
        live.take(row)
    live.now_ms = LATER_MS
    return live


def checkpoint_of(network: Network, created_ms: int, parent: str | None = None) -> Checkpoint:
    about = describe(network, parent=parent, created_ms=created_ms, evaluation={}, positions={})
    return Checkpoint(about=about, weights=network.state_dict())


def published(bundles: Path, checkpoint: Checkpoint) -> str:
    """The version of a checkpoint that serves now; its bundle has a file, and no graphs that nobody here would run."""
    write_checkpoint(bundles, checkpoint)
    manifest = Manifest(
        version=checkpoint.about.version,
        parent=current_version(bundles),
        created_ms=checkpoint.about.created_ms,
        features={},
        tasks=checkpoint.about.tasks,
        thresholds={"fraud": {"review": 0.5}},
    )
    return publish(bundles, manifest, {"decide.onnx": b"a graph"}).version


def shaken(checkpoint: Checkpoint, by: float, seed: int = 1) -> Network:
    """The network with noise on its last layers, as a harmful update leaves it, or with next to none."""
    network, chance = checkpoint.network(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "towers" in name:
                weight.add_(by * torch.randn(weight.shape, generator=chance))
    return network.eval()
