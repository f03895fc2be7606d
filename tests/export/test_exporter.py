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
from tests.export.conftest import THRESHOLDS, make_checkpoint
from tests.model.small import CLICK, DEMAND, FEATURES, FRAUD, TASKS, draw_blocks, make_network, to_inputs


def open_session(content: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"])


def test_a_bundle_appears_whole_and_is_pointed_to(bundles: Path, exported: ExportResult) -> None:
    bundle = read_bundle(bundles, exported.manifest.version)

    assert current_version(bundles) == bundle.version
    assert set(bundle.files) == {
        *(f"{name}.onnx" for name in ("items", "recommend", "decide", "search", "classify")),
        "neighbours.npz",
        "golden.npz",
    }


def test_a_manifest_says_what_the_bundle_needs_and_promises(exported: ExportResult) -> None:
    manifest = exported.manifest

    assert manifest.features == FEATURES.digests
    assert manifest.tasks == TASKS
    assert manifest.thresholds == {"fraud": {"review": 0.3}}
    assert manifest.classes == {"category": ("games", "shoes", "tea")}
    assert manifest.positions == {"shop.feedback/1": 7}


def test_graphs_have_the_inputs_and_outputs_of_the_contract(bundles: Path, exported: ExportResult) -> None:
    files = read_bundle(bundles, exported.manifest.version).files
    actual = {
        name: ([i.name for i in one.get_inputs()], [o.name for o in one.get_outputs()])
        for name, one in ((name, open_session(content)) for name, content in files.items() if name.endswith(".onnx"))
    }

    def blocks(*groups: str) -> list[str]:
        return [f"{group}.{part}" for group in groups for part in ("numbers", "ids")]

    assert actual == {
        "items.onnx": (blocks("item"), ["item_part"]),
        "recommend.onnx": ([*blocks("user", "context"), "item_part", "user"], ["click", "purchase"]),
        "decide.onnx": (blocks("user", "order", "context"), ["fraud"]),
        # A query has no numbers, and an input without columns is none.
        "search.onnx": ([*blocks("user"), "query.ids", "item_part", "search"], ["relevance"]),
        "classify.onnx": (blocks("item"), ["category"]),
    }


def test_graphs_carry_their_version_features_and_tasks(bundles: Path, exported: ExportResult) -> None:
    content = read_bundle(bundles, exported.manifest.version).files["recommend.onnx"]

    metadata = open_session(content).get_modelmeta().custom_metadata_map

    assert metadata["version"] == exported.manifest.version
    assert metadata["tasks"] == "click,purchase"
    assert FEATURES.digests["recent"] in metadata["features"]


def test_onnxruntime_answers_as_torch_does(exported: ExportResult) -> None:
    assert exported.parity.keys() == {"items", "recommend", "decide", "search", "classify"}
    assert max(exported.parity.values()) <= PARITY_MAX


def test_golden_outputs_are_those_of_torch_for_strange_inputs_too(bundles: Path, exported: ExportResult) -> None:
    files = read_bundle(bundles, exported.manifest.version).files
    golden = np.load(io.BytesIO(files["golden.npz"]))

    for name in ("items", "recommend", "decide", "search", "classify"):
        one = open_session(files[f"{name}.onnx"])
        actual = one.run(None, {i.name: golden[f"{name}/in/{i.name}"] for i in one.get_inputs()})
        for output, values in zip(one.get_outputs(), actual, strict=True):
            np.testing.assert_allclose(values, golden[f"{name}/out/{output.name}"], atol=1e-5, rtol=1e-5)
    numbers, ids = golden["decide/in/order.numbers"], golden["decide/in/order.ids"]
    assert np.isnan(numbers[0]).all()
    assert np.isinf(numbers).any()
    assert not ids[0].any()
    assert (ids < 0).any()


def test_items_and_recommend_together_are_the_unsplit_network(bundles: Path, exported: ExportResult, seed: int) -> None:
    files, network = read_bundle(bundles, exported.manifest.version).files, make_network()
    blocks, rng = draw_blocks(30, seed), np.random.default_rng(seed)
    user, item = rng.integers(0, 30, 100), rng.integers(0, 30, 100)

    given = {f"{group}.{part}": getattr(blocks[group], part) for group in blocks for part in ("numbers", "ids")}
    (part,) = open_session(files["items.onnx"]).run(None, {name: given[name] for name in ("item.numbers", "item.ids")})
    users = {name: array for name, array in given.items() if name.startswith(("user.", "context."))}
    click, purchase = open_session(files["recommend.onnx"]).run(None, users | {"item_part": part[item], "user": user})

    paired = {g: block.take(item if g == "item" else user) for g, block in blocks.items()}
    with torch.no_grad():
        whole = network(to_inputs(paired))
    np.testing.assert_allclose(click, whole["click"].numpy(), atol=1e-6)
    np.testing.assert_allclose(purchase, whole["purchase"].numpy(), atol=1e-6)


def test_further_tasks_of_a_graph_are_further_outputs_and_graphs_without_tasks_are_none() -> None:
    network = make_network(tasks=(FRAUD, DEMAND))

    (decide,) = build_subgraphs(network)

    assert (decide.name, decide.outputs) == ("decide", ("fraud", "demand"))
    assert check_parity(decide, to_onnx(decide, network, {}), network) <= PARITY_MAX


def test_an_export_that_answers_otherwise_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(one: Subgraph, network: Network, metadata: dict[str, str]) -> bytes:
        model = onnx.load_model_from_string(to_onnx(one, network, metadata))
        for weight in model.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) == 2:
                weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.01, weight.name))
        return bytes(model.SerializeToString())

    monkeypatch.setattr(exporter, "to_onnx", wrong)

    with pytest.raises(BadBundle, match="should answer as torch does"):
        export(make_checkpoint(make_network()), tmp_path, THRESHOLDS)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_difference_that_is_no_number_is_over_every_bound() -> None:
    ones = np.ones(2, np.float32)

    assert np.isnan(max_difference(ones, np.array([1, np.nan], np.float32)))
    assert np.isnan(max_difference(ones, ones[:1]))
    assert max_difference(ones, ones) == 0


def test_the_next_bundle_names_the_one_before_and_rollback_goes_back_to_it(tmp_path: Path) -> None:
    first = export(make_checkpoint(make_network(tasks=(CLICK,), seed=1), 1_000), tmp_path, {}).manifest
    second = export(make_checkpoint(make_network(tasks=(CLICK,), seed=2), 2_000), tmp_path, {}).manifest

    gone_back = rollback(tmp_path)

    assert (first.parent, second.parent, gone_back) == (None, first.version, first.version)
    assert current_version(tmp_path) == first.version


def test_one_version_is_published_once(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(make_network(tasks=(CLICK,)))
    export(checkpoint, tmp_path, {})

    with pytest.raises(BadBundle, match="published once"):
        export(checkpoint, tmp_path, {})


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(make_network(tasks=(CLICK,)))
    other = replace(checkpoint.metadata, shape=checkpoint.metadata.shape.model_copy(update={"hidden": 9}))

    with pytest.raises(BadBundle, match="should fit its network"):
        export(Checkpoint(metadata=other, weights=checkpoint.weights), tmp_path, {})
