"""Exporting: a checkpoint becomes a bundle that workers take up, or is refused with nothing written."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contract.bundle import Manifest, current_version, publish
from contract.errors import BadBundle
from export.graphs import check_parity, to_onnx
from export.inputs import draw_inputs
from export.interactions import read_all
from export.neighbours import count_neighbours
from export.pointer import older
from export.slices import Slice, slices
from model.checkpoint import Checkpoint
from model.network import Network

GOLDEN_ROWS = 16
Thresholds = Mapping[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Exported:
    """The manifest of what was published, and how far onnxruntime was from torch, by graph."""

    manifest: Manifest
    parity: dict[str, float]


def export(
    checkpoint: Checkpoint,
    bundles: Path,
    thresholds: Thresholds,
    more: Sequence[Path] = (),
    *,
    back: bool = False,
    beside: bool = False,
) -> Exported:
    """Publish a checkpoint as the present bundle; `more`: further interactions, `back`: although it is an older one.

    `beside`: workers are not pointed to it. Raises `BadBundle`, `BadData`.
    """
    network, about = checkpoint.network(), checkpoint.about
    if not back and (why := older(bundles, about.version, about.created_ms)):
        raise BadBundle(f"{why} `--older` publishes it all the same; `export rollback` goes back to a former one.")
    check_finite(network)
    made = slices(network)
    features = features_read(network)
    metadata = {"version": about.version, "features": msgspec.json.encode(features).decode()}
    files = {f"{one.name}.onnx": to_onnx(one, network, metadata | {"tasks": ",".join(one.outputs)}) for one in made}
    parity = {one.name: check_parity(one, files[f"{one.name}.onnx"], network) for one in made}
    files["neighbours.npz"] = to_npz(count_neighbours(read_all([checkpoint.interactions, *more])))
    files["golden.npz"] = to_npz(golden(made, network))
    names = {task.name for task in network.tasks}
    manifest = Manifest(
        version=about.version,
        parent=current_version(bundles),
        created_ms=about.created_ms,
        features=features,
        tasks=about.tasks,
        thresholds={task: dict(of) for task, of in thresholds.items() if task in names},
        classes=about.statistics.classes,
        evaluation=about.evaluation,
        positions=about.positions,
    )
    return Exported(publish(bundles, manifest, files, points=not beside), parity)


def check_finite(network: Network) -> None:
    """Raises `BadBundle` for a weight that is not a number; comparisons with it would hide that later."""
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise BadBundle(f"Weights should be finite. Found others in {name}.")


def features_read(network: Network) -> dict[str, str]:
    """Name -> digest of the features of every group that some task reads, in the order of columns."""
    groups = {group for view in network.views for group in view.groups}
    return {feature.name: feature.digest for feature in network.features.features if feature.group in groups}


def golden(made: Sequence[Slice], network: Network) -> dict[str, npt.NDArray[Any]]:
    """Inputs of each graph with the outputs that torch computes, as contract.bundle names them."""
    found: dict[str, npt.NDArray[Any]] = {}
    for one in made:
        inputs = draw_inputs(one, network, rows=GOLDEN_ROWS, seed=GOLDEN_ROWS)
        found |= {f"{one.name}/in/{name}": tensor.numpy() for name, tensor in inputs.items()}
        found |= {f"{one.name}/out/{name}": tensor.numpy() for name, tensor in one.run(inputs).items()}
    return found


def to_npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    return sink.getvalue()
