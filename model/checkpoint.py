"""A checkpoint: a trained network in one file, with all that is needed to export it or to continue training.

    BUNDLES/checkpoints/VERSION.pt    `CheckpointMetadata` as JSON, weights, optimizer state, next-item part; replay
                                      buffer, pending examples and interactions as Parquet

Fields that later versions added (`waiting`, `met`, `next_item`, `together`) are empty when a file of an earlier version
is read; position biases are 0.

Reading executes no code from the file: only tensors, numbers and text are accepted.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

from contract.bundle import replace_durably
from contract.errors import BadBundle
from contract.features.declaration import Feature, FeatureSet
from contract.settings.model import ModelConfig
from contract.settings.section import decode_section, encode_section
from contract.tasks import Task
from model.feature_statistics import FeatureStatistics
from model.network import Network


class LearnedUntil(Struct, frozen=True, kw_only=True):
    """The latest event and the latest label of a task that a fit trained on, in ms."""

    ts_ms: int
    known_ms: int


class CheckpointMetadata(Struct, frozen=True, kw_only=True):
    """What is needed to build the network of a checkpoint, and its origin."""

    version: str
    parent: str | None
    created_ms: int
    features: tuple[Feature, ...]
    tasks: tuple[Task, ...]
    shape: ModelConfig
    statistics: FeatureStatistics
    evaluation: dict[str, dict[str, float]] = {}
    positions: dict[str, int] = {}  # "topic/partition" -> the first offset that was not used for training
    profile_share: float | None = None  # see `contract.bundle.Manifest`
    learned: dict[str, LearnedUntil] = {}  # task -> what the fit has learned, which updates leave out

    def schema(self) -> tuple[FeatureSet, tuple[Task, ...], dict[str, tuple[str, ...]]]:
        """The features, tasks and classes of the model, as readers of examples take them."""
        return FeatureSet(self.features), self.tasks, self.statistics.classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """`optimizer`: its state_dict. `replay_buffer`, `interactions`, `pending_examples`: Parquet, empty for none.

    `pending_examples`: held out from this network's update, to be learned first by the next one. `id_counts`: by
    embedding table, the ids seen since the first update: (n, 3) int64 of id, count and last time. `next_item`: the
    tensors of `model.sequence.next_item`, empty without that part. `together`: items bought together (`items`, `rows`,
    `weights`), empty for none.
    """

    metadata: CheckpointMetadata
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    replay_buffer: bytes = b""
    interactions: bytes = b""
    pending_examples: bytes = b""
    id_counts: Mapping[str, Tensor] = field(default_factory=dict)
    next_item: Mapping[str, Tensor] = field(default_factory=dict)
    together: Mapping[str, Tensor] = field(default_factory=dict)

    def build_network(self) -> Network:
        """The network in evaluation mode; raises `BadBundle` for weights of another shape."""
        metadata = self.metadata
        features = FeatureSet(metadata.features)
        network = Network(
            features=features, tasks=metadata.tasks, config=metadata.shape, statistics=metadata.statistics
        )
        try:
            biases = {f"positions.{name}": value for name, value in network.positions.state_dict().items()}
            network.load_state_dict(biases | dict(self.weights))
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
    learned: Mapping[str, LearnedUntil] = MappingProxyType({}),
    profile_share: float | None = None,
) -> CheckpointMetadata:
    """The metadata of a network that is saved now."""
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
        learned=dict(learned),
        profile_share=profile_share,
    )


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """A digest that is equal for equal weights on every machine."""
    sha256 = hashlib.sha256()
    for name in sorted(weights):
        sha256.update(name.encode() + weights[name].cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()


def make_version(weights: Mapping[str, Tensor], created_ms: int) -> str:
    """A name that sorts by time and identifies the weights: 20260131-101112-345-1f2e3d4c."""
    created = datetime.fromtimestamp(created_ms // 1000, UTC)
    return f"{created:%Y%m%d-%H%M%S}-{created_ms % 1000:03d}-{hash_weights(weights)[:8]}"


def checkpoint_path(bundles: Path, version: str) -> Path:
    return bundles / "checkpoints" / f"{version}.pt"


def find_latest(bundles: Path) -> Path:
    """The newest checkpoint; raises `BadBundle` if there is none."""
    paths = sorted((bundles / "checkpoints").glob("*.pt"))
    if not paths:
        raise BadBundle(f"{bundles / 'checkpoints'} should hold a checkpoint. Found none; `training fit` makes one.")
    return paths[-1]


def write_checkpoint(bundles: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically under its version; raises `BadBundle` if the disk is full."""
    path = checkpoint_path(bundles, checkpoint.metadata.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_checkpoint(path, checkpoint)
    return path


def replace_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a file, atomically; raises `BadBundle`, with the former file unchanged."""
    content = io.BytesIO()
    state = {
        "about": msgspec.json.encode(checkpoint.metadata, enc_hook=encode_section).decode(),
        "weights": dict(checkpoint.weights),
        "optimizer": dict(checkpoint.optimizer),
        "sample": bytes_to_tensor(checkpoint.replay_buffer),
        "interactions": bytes_to_tensor(checkpoint.interactions),
        "waiting": bytes_to_tensor(checkpoint.pending_examples),
        "met": dict(checkpoint.id_counts),
        "next_item": dict(checkpoint.next_item),
        "together": dict(checkpoint.together),
    }
    torch.save(state, content)
    replace_durably(path, content.getvalue())


def read_checkpoint(path: Path, *, is_lazy: bool = False) -> Checkpoint:
    """The checkpoint at `path`; raises `BadBundle` if it is incomplete or of an unknown format.

    `is_lazy`: weights and optimizer state are mapped and only read from the disk where they are used.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_lazy)
        return Checkpoint(
            metadata=msgspec.json.decode(state["about"], type=CheckpointMetadata, dec_hook=decode_section),
            weights=state["weights"],
            optimizer=state["optimizer"],
            replay_buffer=state["sample"].numpy().tobytes(),
            interactions=state["interactions"].numpy().tobytes(),
            pending_examples=state["waiting"].numpy().tobytes() if "waiting" in state else b"",
            id_counts=state.get("met", {}),
            next_item=state.get("next_item", {}),
            together=state.get("together", {}),
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
