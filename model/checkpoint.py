"""A checkpoint: a trained network with all that is needed to export it or to go on learning, in one file.

    BUNDLES/checkpoints/VERSION.pt    About as JSON, weights, the optimizer's state, examples kept to learn from again,
                                      and who took what; as Parquet, for `training` and `export` to read

What later versions of this program added (`waiting`, `met`) is empty in a file of an earlier one.

Reading runs no code from the file: tensors, numbers and text alone are accepted.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

from contract.bundle import replace_durably
from contract.errors import BadBundle
from contract.features.declaration import Feature, FeatureSet
from contract.tasks import Task
from model.config import ModelConfig
from model.feature_statistics import FeatureStatistics
from model.network import Network


class CheckpointMetadata(Struct, frozen=True, kw_only=True):
    """What a checkpoint is: enough to build its network, and how it came about."""

    version: str
    parent: str | None
    created_ms: int
    features: tuple[Feature, ...]
    tasks: tuple[Task, ...]
    shape: ModelConfig
    statistics: FeatureStatistics
    evaluation: dict[str, dict[str, float]] = {}
    positions: dict[str, int] = {}  # "topic/partition" -> the first offset that was not learned from

    def schema(self) -> tuple[FeatureSet, tuple[Task, ...], dict[str, tuple[str, ...]]]:
        """The features, tasks and classes of the model, as readers of examples take them."""
        return FeatureSet(self.features), self.tasks, self.statistics.classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """`optimizer`: its state_dict. `sample`, `interactions`: Parquet, empty for none.

    `waiting`: examples that have judged this network and are to be learned from first, as Parquet. `met`: by embedding
    table, how often and when ids were met since the first update: (n, 3) int64, an id, its count, its last time.
    """

    metadata: CheckpointMetadata
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    replay_buffer: bytes = b""
    interactions: bytes = b""
    pending_examples: bytes = b""
    id_counts: Mapping[str, Tensor] = field(default_factory=dict)

    def build_network(self) -> Network:
        """The network as it was, in evaluation mode; raises `BadBundle` for weights that are not of its shape."""
        metadata = self.metadata
        features = FeatureSet(metadata.features)
        network = Network(
            features=features, tasks=metadata.tasks, config=metadata.shape, statistics=metadata.statistics
        )
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise BadBundle(f"The weights of {metadata.version} should fit its network. Found: {error}") from error
        return network.eval()


def make_metadata(
    network: Network,
    *,
    parent: str | None,
    created_ms: int,
    evaluation: dict[str, dict[str, float]],
    positions: Mapping[str, int],
) -> CheckpointMetadata:
    """What to say of a network that is kept now."""
    return CheckpointMetadata(
        version=make_version(network.state_dict(), created_ms),
        parent=parent,
        created_ms=created_ms,
        features=network.features.features,
        tasks=network.tasks,
        shape=network.config,
        statistics=network.statistics,
        evaluation=evaluation,
        positions=dict(positions),
    )


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """Equal for equal weights, on every machine."""
    sha256 = hashlib.sha256()
    for name in sorted(weights):
        sha256.update(name.encode() + weights[name].cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()


def make_version(weights: Mapping[str, Tensor], created_ms: int) -> str:
    """A name that sorts by time and tells weights apart: 20260131-101112-345-1f2e3d4c."""
    created = datetime.fromtimestamp(created_ms // 1000, UTC)
    return f"{created:%Y%m%d-%H%M%S}-{created_ms % 1000:03d}-{hash_weights(weights)[:8]}"


def checkpoint_path(bundles: Path, version: str) -> Path:
    return bundles / "checkpoints" / f"{version}.pt"


def find_latest(bundles: Path) -> Path:
    """The newest checkpoint; raises `BadBundle` when there is none."""
    paths = sorted((bundles / "checkpoints").glob("*.pt"))
    if not paths:
        raise BadBundle(f"{bundles / 'checkpoints'} should hold a checkpoint. Found none; `training fit` makes one.")
    return paths[-1]


def write_checkpoint(bundles: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint under its version, all or nothing; raises `BadBundle` where the disk has no room for it."""
    path, content = checkpoint_path(bundles, checkpoint.metadata.version), io.BytesIO()
    state = {
        "about": msgspec.json.encode(checkpoint.metadata).decode(),
        "weights": dict(checkpoint.weights),
        "optimizer": dict(checkpoint.optimizer),
        "sample": bytes_to_tensor(checkpoint.replay_buffer),
        "interactions": bytes_to_tensor(checkpoint.interactions),
        "waiting": bytes_to_tensor(checkpoint.pending_examples),
        "met": dict(checkpoint.id_counts),
    }
    torch.save(state, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(path, content.getvalue())
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`; raises `BadBundle` when it is not a whole one of this version."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(
            metadata=msgspec.json.decode(state["about"], type=CheckpointMetadata),
            weights=state["weights"],
            optimizer=state["optimizer"],
            replay_buffer=state["sample"].numpy().tobytes(),
            interactions=state["interactions"].numpy().tobytes(),
            pending_examples=state["waiting"].numpy().tobytes() if "waiting" in state else b"",
            id_counts=state.get("met", {}),
        )
    except (
        OSError,
        RuntimeError,
        EOFError,
        UnpicklingError,
        KeyError,
        TypeError,
        ValueError,
        msgspec.MsgspecError,
    ) as error:
        raise BadBundle(f"{path} should be a checkpoint. Found: {type(error).__name__}: {error}") from error


def bytes_to_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
