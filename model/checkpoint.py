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
from contract.features import Feature, FeatureSet
from contract.tasks import Task
from model.declared import Shape
from model.network import Network
from model.statistics import Statistics


class About(Struct, frozen=True, kw_only=True):
    """What a checkpoint is: enough to build its network, and how it came about."""

    version: str
    parent: str | None
    created_ms: int
    features: tuple[Feature, ...]
    tasks: tuple[Task, ...]
    shape: Shape
    statistics: Statistics
    evaluation: dict[str, dict[str, float]] = {}
    positions: dict[str, int] = {}  # "topic/partition" -> the first offset that was not learned from


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """`optimizer`: its state_dict. `sample`, `interactions`: Parquet, empty for none.

    `waiting`: examples that have judged this network and are to be learned from first, as Parquet. `met`: by embedding
    table, how often and when ids were met since the first update: (n, 3) int64, an id, its count, its last time.
    """

    about: About
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    sample: bytes = b""
    interactions: bytes = b""
    waiting: bytes = b""
    met: Mapping[str, Tensor] = field(default_factory=dict)

    def network(self) -> Network:
        """The network as it was, in evaluation mode; raises `BadBundle` for weights that are not of its shape."""
        about = self.about
        features = FeatureSet(about.features)
        network = Network(features=features, tasks=about.tasks, shape=about.shape, statistics=about.statistics)
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise BadBundle(f"The weights of {about.version} should fit its network. Found: {error}") from error
        return network.eval()


def describe(
    network: Network,
    *,
    parent: str | None,
    created_ms: int,
    evaluation: dict[str, dict[str, float]],
    positions: Mapping[str, int],
) -> About:
    """What to say of a network that is kept now."""
    return About(
        version=version_of(network.state_dict(), created_ms),
        parent=parent,
        created_ms=created_ms,
        features=network.features.features,
        tasks=network.tasks,
        shape=network.shape,
        statistics=network.statistics,
        evaluation=evaluation,
        positions=dict(positions),
    )


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Equal for equal weights, on every machine."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode() + weights[name].cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def version_of(weights: Mapping[str, Tensor], created_ms: int) -> str:
    """A name that sorts by time and tells weights apart: 20260131-101112-345-1f2e3d4c."""
    made = datetime.fromtimestamp(created_ms // 1000, UTC)
    return f"{made:%Y%m%d-%H%M%S}-{created_ms % 1000:03d}-{digest_of(weights)[:8]}"


def path_of(bundles: Path, version: str) -> Path:
    return bundles / "checkpoints" / f"{version}.pt"


def latest(bundles: Path) -> Path:
    """The newest checkpoint; raises `BadBundle` when there is none."""
    found = sorted((bundles / "checkpoints").glob("*.pt"))
    if not found:
        raise BadBundle(f"{bundles / 'checkpoints'} should hold a checkpoint. Found none; `training fit` makes one.")
    return found[-1]


def write_checkpoint(bundles: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint under its version, all or nothing; raises `BadBundle` where the disk has no room for it."""
    path, content = path_of(bundles, checkpoint.about.version), io.BytesIO()
    state = {
        "about": msgspec.json.encode(checkpoint.about).decode(),
        "weights": dict(checkpoint.weights),
        "optimizer": dict(checkpoint.optimizer),
        "sample": as_tensor(checkpoint.sample),
        "interactions": as_tensor(checkpoint.interactions),
        "waiting": as_tensor(checkpoint.waiting),
        "met": dict(checkpoint.met),
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
            about=msgspec.json.decode(state["about"], type=About),
            weights=state["weights"],
            optimizer=state["optimizer"],
            sample=state["sample"].numpy().tobytes(),
            interactions=state["interactions"].numpy().tobytes(),
            waiting=state["waiting"].numpy().tobytes() if "waiting" in state else b"",
            met=state.get("met", {}),
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


def as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
