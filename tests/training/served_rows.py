"""Rows as a network served them: examples with its scores and random labels."""

from pathlib import Path

import torch
from msgspec.structs import replace

from contract.bundle import Manifest, current_version, publish
from contract.messages import Example
from contract.settings.monitor import MonitorConfig
from contract.settings.worker import FeedbackSettings
from model.checkpoint import Checkpoint, make_metadata, write_checkpoint
from model.network import Network
from tests.model.small import TASKS
from tests.training.examples import make_rows
from training.monitor.live_metrics import LiveMetrics
from training.monitor.rollback_test import predict_rows

FEEDBACK = FeedbackSettings(fraud_window_s=86_400, purchase_window_s=86_400)
MONITOR_CONFIG = MonitorConfig(rows_min=200, window_s=1e9, block=100, block_s=0)
LATER_MS = 1_900_000_000_000  # after every label delay
NAMES = {task.name for task in TASKS if task.kind != "multiclass"}


def serve_rows(network: Network, version: str, rows: int, seed: int) -> list[Example]:
    """Rows of many users, with the network's scores of each."""
    unserved = make_rows(rows, seed, f"s{seed}-")
    scores = [dict[str, float]() for _ in unserved]
    for task in (task for task in network.tasks if task.name in NAMES):
        indexes = [n for n, row in enumerate(unserved) if task.graph in list_labelled_graphs(row)]
        for n, value in zip(indexes, predict_rows(network, task, [unserved[n] for n in indexes]).tolist(), strict=True):
            scores[n][task.name] = value
    return [
        replace(row, user_id=f"u{n % 211}", model_version=version, served=row_scores)
        for n, (row, row_scores) in enumerate(zip(unserved, scores, strict=True))
    ]


def list_labelled_graphs(row: Example) -> set[str]:
    return {task.graph for task in TASKS if task.name in row.labels}


def observe_rows(rows: list[Example], config: MonitorConfig = MONITOR_CONFIG) -> LiveMetrics:
    """Live metrics that have observed the rows, at a time when all labels are final."""
    live = LiveMetrics(tasks=TASKS, feedback=FEEDBACK, config=config)
    for row in rows:
        live.observe(row)
    live.now_ms = LATER_MS
    return live


def make_checkpoint(network: Network, created_ms: int, parent: str | None = None) -> Checkpoint:
    metadata = make_metadata(network, parent=parent, created_ms=created_ms, evaluation={}, positions={})
    return Checkpoint(metadata=metadata, weights=network.state_dict())


def publish_checkpoint(bundles: Path, checkpoint: Checkpoint) -> str:
    """Publish a checkpoint with a bundle of one dummy file, and return its version, which serves from now on."""
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
    """The network with noise of this scale on its towers: a large scale is a harmful update."""
    network, rng = checkpoint.build_network(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "towers" in name:
                weight.add_(scale * torch.randn(weight.shape, generator=rng))
    return network.eval()
