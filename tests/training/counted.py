"""A learner whose learning can be counted, a topic that can be told, and bundles without graphs, which take seconds."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from contract.bundle import Manifest, current_version, publish
from contract.settings import Settings
from export.bundling import Exported
from model.checkpoint import Checkpoint, describe, path_of, read_checkpoint, write_checkpoint
from tests.model.small import TASKS, make_network
from tests.training.made import PLAN
from training import publishing
from training.commands import follow
from training.feed import Fed, Feed
from training.follow import Update

FILES = {"items.onnx": b"x" * 100, "golden.npz": b"y"}
SETTINGS = Settings(tasks=TASKS)
AT_ONCE = replace(PLAN, records_max=4)
POISON = b"!"


def version_of(made_ms: int) -> str:
    return f"20260101-000000-{made_ms:03d}-00000000"


def count(checkpoint: Checkpoint) -> int:
    """How many examples went into a checkpoint of `learned`, each as often as it did."""
    return int(checkpoint.weights["learned"])


def learned(checkpoint: Checkpoint, fed: Fed, plan: object, delays: object = None) -> Update:
    """Learning that counts; poison among what is fed makes the gate refuse it."""
    if not fed.values:
        return Update(0, {})
    made = 1 + fed.positions["f/0"]
    about = replace(
        checkpoint.about,
        version=version_of(made),
        parent=checkpoint.about.version,
        created_ms=made,
        positions=fed.positions,
    )
    made_of = Checkpoint(about=about, weights={"learned": torch.tensor(count(checkpoint) + len(fed.values))})
    if POISON in fed.values:
        return Update(len(fed.values), {}, refused=["`click` should not be poisoned. Found poison."], aside=made_of)
    return Update(len(fed.values), {}, checkpoint=made_of)


def export(checkpoint: Checkpoint, bundles: Path, thresholds: object) -> Exported:
    about = checkpoint.about
    manifest = Manifest(
        version=about.version,
        parent=about.parent,
        created_ms=about.created_ms,
        features={},
        tasks=(),
        positions=about.positions,
    )
    return Exported(publish(bundles, manifest, FILES), {})


class Log(Feed):
    """A topic of one partition."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self.values = list(values)

    def read(self, positions: object, records_max: int = 1_000) -> Fed:
        start = dict(positions).get("f/0", 0)  # type: ignore[call-overload]
        values = self.values[start : start + records_max]
        return Fed(values, {"f/0": start + len(values)}, more=start + len(values) < len(self.values))


def begun(bundles: Path) -> Path:
    """A folder of bundles in which the first model serves."""
    about = describe(make_network(), parent=None, created_ms=1, evaluation={}, positions={})
    base = Checkpoint(about=replace(about, version=version_of(1)), weights={"learned": torch.tensor(0)})
    write_checkpoint(bundles, base)
    export(base, bundles, {})
    return bundles


def serving(bundles: Path) -> Checkpoint:
    return read_checkpoint(path_of(bundles, current_version(bundles) or ""))


def countable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put these in the place of learning and of exporting."""
    monkeypatch.setattr(publishing, "export", export)
    monkeypatch.setattr(follow, "update", learned)
