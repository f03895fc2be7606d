import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from msgspec.structs import replace

from contract.bundle import current_version, read_bundle
from contract.errors import BadBundle
from export import exporter, onnx_export
from export.exporter import ExportResult, export
from export.onnx_export import PARITY_MAX, check_parity, to_onnx
from export.ort import max_difference
from export.releases import rollback
from export.subgraphs import Subgraph, build_subgraphs
from model.checkpoint import Checkpoint
from model.network import Network
from tests.export.conftest import THRESHOLDS
from tests.model.small import (
    CLICK,
    DEMAND,
    FEATURES,
    FRAUD,
    TASKS,
    draw_blocks,
    make_checkpoint,
    make_network,
    to_inputs,
)


def open_session(content: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"])


def test_a_published_bundle_is_complete_and_current(bundles: Path, exported: ExportResult) -> None:
    bundle = read_bundle(bundles, exported.manifest.version)

    assert current_version(bundles) == bundle.version
    assert set(bundle.files) == {
        *(f"{name}.onnx" for name in ("items", "recommend", "decide", "search", "classify")),
        "neighbours.npz",
        "golden.npz",
    }


def test_the_manifest_has_features_tasks_thresholds_and_positions(exported: ExportResult) -> None:
    manifest = exported.manifest

    assert manifest.features == FEATURES.digests
    assert manifest.tasks == TASKS
    assert manifest.thresholds == {"fraud": {"review": 0.3}}
    assert manifest.classes == {"category": ("games", "shoes", "tea")}
    assert manifest.positions == {"shop.feedback/1": 7}


def test_graphs_have_the_inputs_and_outputs_of_the_contract(bundles: Path, exported: ExportResult) -> None:
    files = read_bundle(bundles, exported.manifest.version).files
    actual = {
        name: ([i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()])
        for name, session in (
            (name, open_session(content)) for name, content in files.items() if name.endswith(".onnx")
        )
    }

    def blocks(*groups: str) -> list[str]:
        return [f"{group}.{part}" for group in groups for part in ("numbers", "ids")]

    assert actual == {
        "items.onnx": (blocks("item"), ["item_part"]),
        "recommend.onnx": ([*blocks("user", "context"), "item_part", "user"], ["click", "purchase"]),
        "decide.onnx": (blocks("user", "order", "context"), ["fraud"]),
        # A query has no numbers, and a graph has no inputs without columns.
        "search.onnx": ([*blocks("user"), "query.ids", "item_part", "search"], ["relevance"]),
        "classify.onnx": (blocks("item"), ["category"]),
    }


def test_graph_metadata_has_version_features_and_tasks(bundles: Path, exported: ExportResult) -> None:
    content = read_bundle(bundles, exported.manifest.version).files["recommend.onnx"]

    metadata = open_session(content).get_modelmeta().custom_metadata_map

    assert metadata["version"] == exported.manifest.version
    assert metadata["tasks"] == "click,purchase"
    assert FEATURES.digests["recent"] in metadata["features"]


def test_onnxruntime_reproduces_torch(exported: ExportResult) -> None:
    assert exported.parity.keys() == {"items", "recommend", "decide", "search", "classify"}
    assert max(exported.parity.values()) <= PARITY_MAX


def test_golden_outputs_are_reproduced_even_for_extreme_inputs(bundles: Path, exported: ExportResult) -> None:
    files = read_bundle(bundles, exported.manifest.version).files
    golden = np.load(io.BytesIO(files["golden.npz"]))

    for name in ("items", "recommend", "decide", "search", "classify"):
        session = open_session(files[f"{name}.onnx"])
        actual = session.run(None, {i.name: golden[f"{name}/in/{i.name}"] for i in session.get_inputs()})
        for output, values in zip(session.get_outputs(), actual, strict=True):
            np.testing.assert_allclose(values, golden[f"{name}/out/{output.name}"], atol=1e-5, rtol=1e-5)
    numbers, ids = golden["decide/in/order.numbers"], golden["decide/in/order.ids"]
    assert np.isnan(numbers[0]).all()
    assert np.isinf(numbers).any()
    assert not ids[0].any()
    assert (ids < 0).any()


def test_the_items_and_recommend_graphs_equal_the_whole_network(
    bundles: Path, exported: ExportResult, seed: int
) -> None:
    files, network = read_bundle(bundles, exported.manifest.version).files, make_network()
    blocks, rng = draw_blocks(30, seed), np.random.default_rng(seed)
    user, item = rng.integers(0, 30, 100), rng.integers(0, 30, 100)

    inputs = {f"{group}.{part}": getattr(blocks[group], part) for group in blocks for part in ("numbers", "ids")}
    (part,) = open_session(files["items.onnx"]).run(None, {name: inputs[name] for name in ("item.numbers", "item.ids")})
    users = {name: array for name, array in inputs.items() if name.startswith(("user.", "context."))}
    click, purchase = open_session(files["recommend.onnx"]).run(None, users | {"item_part": part[item], "user": user})

    paired = {g: block.take(item if g == "item" else user) for g, block in blocks.items()}
    with torch.no_grad():
        whole = network(to_inputs(paired))
    np.testing.assert_allclose(click, whole["click"].numpy(), atol=1e-6)
    np.testing.assert_allclose(purchase, whole["purchase"].numpy(), atol=1e-6)


def test_each_task_of_a_graph_is_an_output_and_graphs_without_tasks_are_left_out() -> None:
    network = make_network(tasks=(FRAUD, DEMAND))

    (decide,) = build_subgraphs(network)

    assert (decide.name, decide.outputs) == ("decide", ("fraud", "demand"))
    assert check_parity(decide, to_onnx(decide, network, {}), network) <= PARITY_MAX


def test_an_export_that_differs_from_torch_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_wrong_weights(subgraph: Subgraph, network: Network, metadata: dict[str, str]) -> bytes:
        model = onnx.load_model_from_string(to_onnx(subgraph, network, metadata))
        for weight in model.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) == 2:
                weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.01, weight.name))
        return bytes(model.SerializeToString())

    monkeypatch.setattr(exporter, "to_onnx", export_wrong_weights)

    with pytest.raises(BadBundle, match="should answer as torch does"):
        export(make_checkpoint(make_network()), tmp_path, THRESHOLDS)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network(tasks=(FRAUD,))
    (decide,) = build_subgraphs(network)
    content = to_onnx(decide, network, {})
    monkeypatch.setattr(onnx_export, "run", lambda *_: {"fraud": np.full(1, np.nan, np.float32)})

    with pytest.raises(BadBundle, match=r"decide\.onnx should answer as torch does, to 1e-05\. Found nan"):
        check_parity(decide, content, network)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_and_leave_nothing(tmp_path: Path, weight: float) -> None:
    network = make_network()
    with torch.no_grad():
        network.levels[0].shared.weight[0, 0] = weight  # type: ignore[union-attr, operator]

    with pytest.raises(BadBundle, match=r"Weights should be finite. Found others in levels.0.shared.weight"):
        export(make_checkpoint(network), tmp_path, THRESHOLDS)
    assert list(tmp_path.iterdir()) == []


def test_differences_of_nan_or_other_shapes_are_nan() -> None:
    ones = np.ones(2, np.float32)

    assert np.isnan(max_difference(ones, np.array([1, np.nan], np.float32)))
    assert np.isnan(max_difference(ones, ones[:1]))
    assert max_difference(ones, ones) == 0


def test_rollback_restores_the_parent_that_a_bundle_names(tmp_path: Path) -> None:
    first = export(make_checkpoint(make_network(tasks=(CLICK,), seed=1), 1_000), tmp_path, {}).manifest
    second = export(make_checkpoint(make_network(tasks=(CLICK,), seed=2), 2_000), tmp_path, {}).manifest

    restored = rollback(tmp_path)

    assert (first.parent, second.parent, restored) == (None, first.version, first.version)
    assert current_version(tmp_path) == first.version


def test_a_version_is_published_only_once(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(make_network(tasks=(CLICK,)))
    export(checkpoint, tmp_path, {})

    with pytest.raises(BadBundle, match="published once"):
        export(checkpoint, tmp_path, {})


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(make_network(tasks=(CLICK,)))
    other = replace(checkpoint.metadata, shape=checkpoint.metadata.shape.model_copy(update={"hidden": 9}))

    with pytest.raises(BadBundle, match="should fit its network"):
        export(Checkpoint(metadata=other, weights=checkpoint.weights), tmp_path, {})
