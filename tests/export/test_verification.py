"""Verification of a bundle: each defect is reported in a sentence with what should hold and what was found."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from contract.bundle import Bundle, Manifest, current_version, publish, read_bundle
from contract.errors import BadBundle
from contract.features.declaration import Feature, FeatureSet
from export.__main__ import main
from export.exporter import ExportResult, export, to_npz
from export.releases import explain_if_older, locate_bundle, rollback
from export.verification import check_served, verify
from tests.model.small import CLICK, FEATURES, make_checkpoint, make_network


@pytest.fixture(scope="module")
def bundle(bundles: Path, exported: ExportResult) -> Bundle:
    return read_bundle(bundles, exported.manifest.version)


def change_graph(bundle: Bundle, change: Callable[[onnx.ModelProto], None], name: str = "decide.onnx") -> Bundle:
    """The bundle with a changed graph, without the check of digests."""
    model = onnx.load_model_from_string(bundle.files[name])
    change(model)
    return Bundle(bundle.manifest, {**bundle.files, name: model.SerializeToString()})


def find_matrices(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [
        tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT
    ]


def poison_weights(model: onnx.ModelProto) -> None:
    weights = find_matrices(model)[0]
    array = onnx.numpy_helper.to_array(weights).copy()
    array[0, 0] = np.nan
    weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))


def scale_weights(model: onnx.ModelProto) -> None:
    for weights in find_matrices(model):
        array = onnx.numpy_helper.to_array(weights) * np.float32(1.01)
        weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))


def point_weights_outside(model: onnx.ModelProto) -> None:
    weights = find_matrices(model)[0]
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/passwd")


def import_custom_operators(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.example", version=1)


def change_version(model: onnx.ModelProto) -> None:
    onnx.helper.set_model_props(model, {"version": "v0"})


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "trust"


def test_an_exported_bundle_passes(bundle: Bundle) -> None:
    actual = verify(bundle, FEATURES)

    assert actual.differences.keys() == {"items", "recommend", "decide", "search", "classify"}
    assert max(actual.differences.values()) < 1e-5
    assert actual.features == len(FEATURES.features)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (poison_weights, r"decide\.onnx should have finite weights\. Found others in "),
        (scale_weights, r"decide\.onnx should reproduce its golden `fraud` to 0\.0001\. Found \d.*e.* between them"),
        (point_weights_outside, r"decide\.onnx should hold all of its data\. Found data in another file for "),
        (import_custom_operators, r"decide\.onnx should need ONNX's own operators alone\. Found \['com\.example'\]"),
        (change_version, r"decide\.onnx should have the `version` of the manifest\. Found v0"),
        (rename_output, r"decide\.onnx should answer \['fraud'\]\. Found \['trust'\]"),
    ],
)
def test_a_changed_graph_is_refused(bundle: Bundle, change: Callable[[onnx.ModelProto], None], sentence: str) -> None:
    with pytest.raises(BadBundle, match=sentence):
        verify(change_graph(bundle, change), FEATURES)


def test_bytes_that_are_not_a_graph_are_refused(bundle: Bundle) -> None:
    with pytest.raises(BadBundle, match=r"decide\.onnx should be an ONNX model\. Found: "):
        verify(Bundle(bundle.manifest, {**bundle.files, "decide.onnx": b"\xff\xff"}), FEATURES)


@pytest.mark.parametrize("lost", ["items.onnx", "decide.onnx", "golden.npz", "neighbours.npz"])
def test_a_missing_file_is_reported(bundle: Bundle, lost: str) -> None:
    files = {name: content for name, content in bundle.files.items() if name != lost}

    with pytest.raises(BadBundle, match=rf"should have .*\. Found no {lost}"):
        verify(Bundle(bundle.manifest, files), FEATURES)


def test_an_unknown_file_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BadBundle, match=r"should have files that are known\. Found weights\.bin"):
        verify(Bundle(bundle.manifest, {**bundle.files, "weights.bin": b""}), FEATURES)


def test_missing_or_unreadable_golden_arrays_are_refused(bundle: Bundle) -> None:
    golden = dict(np.load(io.BytesIO(bundle.files["golden.npz"])))
    del golden["decide/in/order.ids"]

    with pytest.raises(BadBundle, match=r"decide\.onnx should run on its golden inputs\. Found: .*order\.ids"):
        verify(Bundle(bundle.manifest, {**bundle.files, "golden.npz": to_npz(golden)}), FEATURES)
    with pytest.raises(BadBundle, match=r"golden\.npz should hold readable arrays\. Found: "):
        verify(Bundle(bundle.manifest, {**bundle.files, "golden.npz": b"PK\x03\x04"}), FEATURES)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"neighbours": np.array([[2], [-1]])}, r"among the 2 items\. Found number 2"),
        ({"popular": np.array([0, -1])}, r"among the 2 items\. Found number -1"),
        ({"weights": np.zeros((2, 3))}, r"Each of 2 items should have .*\. Found \(2, 1\), \(2, 3\)"),
        ({"items": np.array([b"a", b"b", b"c"])}, r"Each of 3 items should have .*\. Found \(2, 1\)"),
    ],
)
def test_neighbours_outside_the_items_are_refused(bundle: Bundle, change: dict[str, np.ndarray], sentence: str) -> None:
    arrays = {
        "items": np.array([b"a", b"b"]),
        "neighbours": np.array([[1], [-1]]),
        "weights": np.ones((2, 1)),
        "fading": np.array(1.0),
        "popular": np.array([0, 1]),
    }

    verify(Bundle(bundle.manifest, {**bundle.files, "neighbours.npz": to_npz(arrays)}), FEATURES)
    with pytest.raises(BadBundle, match=sentence):
        verify(Bundle(bundle.manifest, {**bundle.files, "neighbours.npz": to_npz(arrays | change)}), FEATURES)


def test_features_must_be_declared_as_in_training(bundle: Bundle) -> None:
    rest = [feature for feature in FEATURES.features if feature.name != "clicks"]
    lost = FeatureSet(rest)
    other = FeatureSet([*rest, Feature("clicks", "user", "number", "profile.user.clicks.count_1h")])

    with pytest.raises(BadBundle, match=r"Feature `clicks` should be declared .*Found none of that name"):
        verify(bundle, lost)
    with pytest.raises(BadBundle, match=r"Feature `clicks` should be declared .*Found another meaning"):
        verify(bundle, other)


def test_the_command_reports_a_changed_byte_without_loading_torch(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    # given
    folder = tmp_path / bundle.version
    shutil.copytree(bundles / bundle.version, folder)
    content = bytearray((folder / "decide.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "decide.onnx").write_bytes(content)
    # when
    process = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys; from export.__main__ import main; code = main(['verify', sys.argv[1]]); "
            "assert 'torch' not in sys.modules; sys.exit(code)",
            str(folder),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    # then
    assert process.returncode == 1, process.stderr
    digest = bundle.manifest.files["decide.onnx"][:12]
    assert process.stderr.startswith(f"decide.onnx should have the digest {digest}…. Found "), process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_a_bundle_is_located_by_version_folder_or_as_the_current_one(bundles: Path, bundle: Bundle) -> None:
    expected = (bundles, bundle.version)

    assert locate_bundle(bundles, None) == expected
    assert locate_bundle(bundles, bundle.version) == expected
    assert locate_bundle(Path("elsewhere"), str(bundles / bundle.version)) == expected
    with pytest.raises(BadBundle, match=r"should have a current bundle\. Found none"):
        locate_bundle(bundles / "none", None)


def test_inspect_prints_tasks_graphs_and_neighbours(
    bundles: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    assert main(["inspect", "--bundles", str(bundles)]) == 0

    printed = capsys.readouterr().out
    for word in (
        bundle.version,
        "13 features",
        "purchase",
        "review 0.3",
        "decide.onnx",
        "order.numbers (N, 2)",
        "neighbours",
    ):
        assert word in printed


def test_a_graph_without_the_task_that_workers_require_is_not_served(bundle: Bundle) -> None:
    check_served(bundle.manifest, FEATURES)
    renamed = [replace(task, name="abuse") if task.name == "fraud" else task for task in bundle.manifest.tasks]
    with pytest.raises(BadBundle, match=r"the graph decide should have the task fraud, .* Found .*abuse"):
        check_served(replace(bundle.manifest, tasks=tuple(renamed)), FEATURES)


def test_a_missing_version_is_reported(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("inspect", "verify"):
        assert main([command, "v9", "--bundles", str(bundles)]) == 1
        assert capsys.readouterr().err == "Bundle v9 should be complete. Found no such folder.\n"


def make_manifest(version: str, created_ms: int, parent: str | None = None) -> Manifest:
    return Manifest(version=version, parent=parent, created_ms=created_ms, features={}, tasks=())


def test_a_model_older_than_the_current_one_needs_the_option_older(tmp_path: Path) -> None:
    # given
    publish(tmp_path, make_manifest("new", 2_000), {})
    checkpoint = make_checkpoint(make_network(tasks=(CLICK,)), 1_000)
    # when
    with pytest.raises(BadBundle, match=r"no older than the current one, new\. Found .*`--older` publishes it"):
        export(checkpoint, tmp_path, {})
    # then
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.json", "new"]
    assert export(checkpoint, tmp_path, {}, allow_older=True).manifest.version == current_version(tmp_path)


def test_a_bundle_of_equal_time_is_not_older(tmp_path: Path) -> None:
    assert explain_if_older(tmp_path, "v", 0) is None
    publish(tmp_path, make_manifest("new", 2_000), {})
    assert explain_if_older(tmp_path, "v", 2_000) is None
    assert explain_if_older(tmp_path, "v", 1_999) is not None


def test_rollback_works_from_a_damaged_bundle(tmp_path: Path) -> None:
    publish(tmp_path, make_manifest("v1", 1_000), {"decide.onnx": b"one"})
    publish(tmp_path, make_manifest("v2", 2_000, "v1"), {"decide.onnx": b"two"})
    (tmp_path / "v2" / "decide.onnx").write_bytes(b"too")

    assert rollback(tmp_path) == "v1"
    assert json.loads((tmp_path / "current.json").read_bytes()) == {"version": "v1"}


def test_rollback_needs_an_intact_parent(tmp_path: Path) -> None:
    publish(tmp_path, make_manifest("v1", 1_000), {"items.onnx": b"one"})
    with pytest.raises(BadBundle, match=r"Bundle v1 should have a parent to roll back to\. Found none"):
        rollback(tmp_path)

    publish(tmp_path, make_manifest("v2", 2_000, "v1"), {"items.onnx": b"two"})
    (tmp_path / "v1" / "items.onnx").write_bytes(b"other bytes")
    with pytest.raises(BadBundle, match=r"items\.onnx should have the digest"):
        rollback(tmp_path)
    assert current_version(tmp_path) == "v2"


def test_an_invalid_manifest_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, make_manifest("v1", 1_000), {})
    path = tmp_path / "v1" / "manifest.json"

    path.write_bytes(msgspec.json.encode(make_manifest("v2", 1_000)))
    with pytest.raises(BadBundle, match=r"Bundle v1 should be of that version\. Found v2"):
        read_bundle(tmp_path, "v1")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadBundle, match=r"Bundle v1 should have a readable manifest\. Found: "):
        read_bundle(tmp_path, "v1")
