"""Rows as a network served them: examples with what it said, and with labels that its parent or chance decides."""

from pathlib import Path

import torch
from msgspec.structs import replace

from contract.bundle import Manifest, current_version, publish
from contract.messages import Example
from contract.settings import FeedbackSettings, MonitorConfig
from model.checkpoint import Checkpoint, make_metadata, write_checkpoint
from model.network import Network
from tests.model.small import TASKS
from tests.training.examples import make_rows
from training.monitor.live_metrics import LiveMetrics
from training.monitor.rollback_test import predict_rows

FEEDBACK = FeedbackSettings(fraud_window_s=86_400, purchase_window_s=86_400)
MONITOR_CONFIG = MonitorConfig(rows_min=200, window_s=1e9, block=100, block_s=0)
LATER_MS = 1_900_000_000_000  # when whatever waits is over
NAMES = {task.name for task in TASKS if task.kind != "multiclass"}


def serve_rows(network: Network, version: str, rows: int, seed: int) -> list[Example]:
    """Rows of many people, with what the network said of each."""
    rows_made = make_rows(rows, seed, f"s{seed}-")
    scores = [dict[str, float]() for _ in rows_made]
    for task in (task for task in network.tasks if task.name in NAMES):
        indexes = [n for n, row in enumerate(rows_made) if task.graph in labelled_graphs(row)]
        for n, value in zip(
            indexes, predict_rows(network, task, [rows_made[n] for n in indexes]).tolist(), strict=True
        ):
            scores[n][task.name] = value
    return [
        replace(row, user_id=f"u{n % 211}", model_version=version, served=row_scores)
        for n, (row, row_scores) in enumerate(zip(rows_made, scores, strict=True))
    ]


def labelled_graphs(row: Example) -> set[str]:
    return {task.graph for task in TASKS if task.name in row.labels}


def observe_rows(rows: list[Example], config: MonitorConfig = MONITOR_CONFIG) -> LiveMetrics:
    """What is known of rows when all their labels are final."""
    live = LiveMetrics(tasks=TASKS, feedback=FEEDBACK, config=config)
    for row in rows:
        live.observe(row)
    live.now_ms = LATER_MS
    return live


def make_checkpoint(network: Network, created_ms: int, parent: str | None = None) -> Checkpoint:
    about = make_metadata(network, parent=parent, created_ms=created_ms, evaluation={}, positions={})
    return Checkpoint(metadata=about, weights=network.state_dict())


def publish_checkpoint(bundles: Path, checkpoint: Checkpoint) -> str:
    """The version of a checkpoint that serves now; its bundle has a file, and no graphs that nobody here would run."""
    write_checkpoint(bundles, checkpoint)
    manifest = Manifest(
        version=checkpoint.metadata.version,
        parent=current_version(bundles),
        created_ms=checkpoint.metadata.created_ms,
        features={},
        tasks=checkpoint.metadata.tasks,
        thresholds={"fraud": {"review": 0.5}},
    )
    return publish(bundles, manifest, {"decide.onnx": b"a graph"}).version


def perturb(checkpoint: Checkpoint, scale: float, seed: int = 1) -> Network:
    """The network with noise on its last layers, as a harmful update leaves it, or with next to none."""
    network, rng = checkpoint.build_network(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "towers" in name:
                weight.add_(scale * torch.randn(weight.shape, generator=rng))
    return network.eval()
