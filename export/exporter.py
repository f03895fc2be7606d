"""Exports a checkpoint as a bundle that workers load, or refuses it and writes nothing."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from torch import Tensor

from contract.bundle import Manifest, current_version, publish
from contract.errors import BadBundle
from contract.object_folder import Folder
from export.fuzz_inputs import draw_inputs
from export.interactions import read_all
from export.neighbours import find_neighbours
from export.next_item import export_next_item
from export.onnx_export import check_parity, to_onnx
from export.releases import explain_if_older
from export.subgraphs import Subgraph, build_subgraphs
from model.checkpoint import Checkpoint
from model.network import Network
from model.sequence.next_item import NEXT_ITEM, decode_texts, from_tensors

GOLDEN_ROWS = 16
Thresholds = Mapping[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The published manifest, and the largest difference between onnxruntime and torch, by graph."""

    manifest: Manifest
    parity: dict[str, float]


def export(
    checkpoint: Checkpoint,
    bundles: Folder,
    thresholds: Thresholds,
    extra_interactions: Sequence[Path] = (),
    *,
    allow_older: bool = False,
    as_candidate: bool = False,
) -> ExportResult:
    """Publish a checkpoint as a bundle. Raises `BadBundle`, `BadData`.

    `extra_interactions`: in addition to the checkpoint's own. `allow_older`: even if the current bundle is newer.
    `as_candidate`: the current bundle stays current.
    """
    network, metadata = checkpoint.build_network(), checkpoint.metadata
    if not allow_older and (reason := explain_if_older(bundles, metadata.version, metadata.created_ms)):
        raise BadBundle(f"{reason} `--older` publishes it anyway; `export rollback` makes the previous one current.")
    check_finite(network)
    subgraphs = build_subgraphs(network)
    features = select_used_features(network)
    onnx_metadata = {"version": metadata.version, "features": msgspec.json.encode(features).decode()}
    files = {
        f"{subgraph.name}.onnx": to_onnx(subgraph, network, onnx_metadata | {"tasks": ",".join(subgraph.outputs)})
        for subgraph in subgraphs
    }
    parity = {subgraph.name: check_parity(subgraph, files[f"{subgraph.name}.onnx"], network) for subgraph in subgraphs}
    golden = make_golden(subgraphs, network)
    part = from_tensors(checkpoint.next_item) if checkpoint.next_item else None
    if part:
        exported = export_next_item(part, onnx_metadata)
        files |= exported.files | {name: to_npz(arrays) for name, arrays in exported.arrays.items()}
        parity, golden = parity | exported.parity, golden | exported.golden
    else:
        files["neighbours.npz"] = to_npz(find_neighbours(read_all([checkpoint.interactions, *extra_interactions])))
    if checkpoint.together:
        files["together.npz"] = to_npz(list_together(checkpoint.together))
    files["golden.npz"] = to_npz(golden)
    names = {task.name for task in network.tasks}
    manifest = Manifest(
        version=metadata.version,
        parent=current_version(bundles),
        created_ms=metadata.created_ms,
        features=features,
        tasks=metadata.tasks,
        thresholds={task: dict(by_action) for task, by_action in thresholds.items() if task in names},
        classes=metadata.statistics.classes,
        evaluation=metadata.evaluation | ({NEXT_ITEM: dict(part.evaluation)} if part else {}),
        positions=metadata.positions,
        profile_share=metadata.profile_share,
    )
    return ExportResult(publish(bundles, manifest, files, make_current=not as_candidate), parity)


def check_finite(network: Network) -> None:
    """Raises `BadBundle` for a weight that is not finite, which later comparisons could hide."""
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise BadBundle(f"Weights should be finite. Found others in {name}.")


def select_used_features(network: Network) -> dict[str, str]:
    """Name -> digest of the features of every group that some task reads, in the order of columns."""
    groups = {group for view in network.views for group in view.groups}
    return {feature.name: feature.digest for feature in network.features.features if feature.group in groups}


def list_together(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of together.npz, as `contract.bundle` names them; raises `BadBundle`."""
    try:
        items, rows, weights = decode_texts(tensors["items"]), tensors["rows"].numpy(), tensors["weights"].numpy()
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BadBundle(f"Items bought together should have all of their tensors. Found: {error!r:.200}") from error
    return {"items": items, "neighbours": rows, "weights": weights}


def make_golden(subgraphs: Sequence[Subgraph], network: Network) -> dict[str, npt.NDArray[Any]]:
    """Inputs of each graph with torch's outputs, by the names that `contract.bundle` gives them."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for subgraph in subgraphs:
        inputs = draw_inputs(subgraph, network, rows=GOLDEN_ROWS, seed=GOLDEN_ROWS)
        arrays |= {f"{subgraph.name}/in/{name}": tensor.numpy() for name, tensor in inputs.items()}
        arrays |= {f"{subgraph.name}/out/{name}": tensor.numpy() for name, tensor in subgraph.run(inputs).items()}
    return arrays


def to_npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    return sink.getvalue()
