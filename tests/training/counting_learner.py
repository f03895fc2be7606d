"""A learner that counts examples, an in-memory feedback topic, and bundles without graphs, which take seconds."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from contract.bundle import Manifest, current_version, publish
from contract.settings.reading import Settings
from export.exporter import ExportResult
from model.checkpoint import Checkpoint, checkpoint_path, make_metadata, read_checkpoint, write_checkpoint
from tests.model.small import TASKS, make_network
from tests.training.examples import PLAN
from training.commands import follow
from training.feedback.feedback_reader import FeedbackBatch, FeedbackReader
from training.online import publication
from training.online.update import UpdateResult

FILES = {"items.onnx": b"x" * 100, "golden.npz": b"y"}
SETTINGS = Settings(tasks=TASKS)
SMALL_BATCH_CONFIG = PLAN.model_copy(update={"records_max": 4})
POISON = b"!"


def make_version(created_ms: int) -> str:
    return f"20260101-000000-{created_ms:03d}-00000000"


def count_learned(checkpoint: Checkpoint) -> int:
    """How many examples a checkpoint of `count_update` was trained on, repetitions included."""
    return int(checkpoint.weights["learned"])


def count_update(
    checkpoint: Checkpoint, feedback: FeedbackBatch, config: object, delays: object = None
) -> UpdateResult:
    """An update that counts its examples; with poison among them it is rejected."""
    if not feedback.values:
        return UpdateResult(0, {})
    created_ms = 1 + feedback.positions["f/0"]
    metadata = replace(
        checkpoint.metadata,
        version=make_version(created_ms),
        parent=checkpoint.metadata.version,
        created_ms=created_ms,
        positions=feedback.positions,
    )
    updated = Checkpoint(
        metadata=metadata, weights={"learned": torch.tensor(count_learned(checkpoint) + len(feedback.values))}
    )
    if POISON in feedback.values:
        return UpdateResult(
            len(feedback.values),
            {},
            rejections=["`click` should not be poisoned. Found poison."],
            rejected_checkpoint=updated,
        )
    return UpdateResult(len(feedback.values), {}, checkpoint=updated)


def export_without_graphs(checkpoint: Checkpoint, bundles: Path, thresholds: object) -> ExportResult:
    metadata = checkpoint.metadata
    manifest = Manifest(
        version=metadata.version,
        parent=metadata.parent,
        created_ms=metadata.created_ms,
        features={},
        tasks=(),
        positions=metadata.positions,
    )
    return ExportResult(publish(bundles, manifest, FILES), {})


class InMemoryFeed(FeedbackReader):
    """A feedback topic with one partition."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self.values = list(values)

    def read(self, positions: object, records_max: int = 1_000) -> FeedbackBatch:
        start = dict(positions).get("f/0", 0)  # type: ignore[call-overload]
        values = self.values[start : start + records_max]
        return FeedbackBatch(values, {"f/0": start + len(values)}, has_more=start + len(values) < len(self.values))


def begin_learner(bundles: Path) -> Path:
    """The folder of bundles, in which a first model serves."""
    metadata = make_metadata(make_network(), parent=None, created_ms=1, evaluation={}, positions={})
    base = Checkpoint(metadata=replace(metadata, version=make_version(1)), weights={"learned": torch.tensor(0)})
    write_checkpoint(bundles, base)
    export_without_graphs(base, bundles, {})
    return bundles


def read_serving(bundles: Path) -> Checkpoint:
    return read_checkpoint(checkpoint_path(bundles, current_version(bundles) or ""))


def patch_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace training and export by `count_update` and `export_without_graphs`."""
    monkeypatch.setattr(publication, "export", export_without_graphs)
    monkeypatch.setattr(follow, "update", count_update)
