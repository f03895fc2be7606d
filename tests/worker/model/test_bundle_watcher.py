"""A valid bundle is loaded and activated; an invalid one is rejected and the present model keeps answering."""

import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from contract.bundle import Bundle, publish, read_bundle, set_current
from contract.errors import BadBundle
from contract.features.declaration import Feature, FeatureSet
from contract.hashing import item_hash
from testkit.environment.tiny_bundle import (
    ITEMS,
    NEEDED,
    first_column_nodes,
    make_golden,
    make_graph,
    make_graphs,
    make_manifest,
    make_neighbours,
    pack_npz,
    publish_tiny,
    sigmoid,
    tiny_files,
)
from testkit.metrics import read_metric
from tests.worker.events import FEATURES
from worker.model.bundle_watcher import BundleWatcher
from worker.model.experiment import TrialModel
from worker.model.onnx_model import Model
from worker.ops import metrics
from worker.scoring.handlers import HANDLERS

Files = dict[str, bytes]


def load_model(files: Files | None = None, features: FeatureSet = FEATURES) -> Model:
    return Model(Bundle(make_manifest("v1"), files or tiny_files()), features)


def golden_with(changes: Mapping[str, Any]) -> Files:
    return {"golden.npz": pack_npz({**make_golden(100.0), **changes})}


def golden_without(name: str) -> Files:
    return {"golden.npz": pack_npz({key: array for key, array in make_golden(100.0).items() if key != name})}


def neighbours_with(**changes: Any) -> Files:
    return {"neighbours.npz": pack_npz({**make_neighbours(), **changes})}


def neighbours_without(name: str) -> Files:
    return {"neighbours.npz": pack_npz({key: array for key, array in make_neighbours().items() if key != name})}


def test_a_model_selects_its_columns_by_feature_name() -> None:
    # given
    block = FEATURES.empty_block("order", 2)
    column = [feature.name for feature in FEATURES.numbers("order")].index("order_amount")
    block.numbers[:, column] = 99, 101
    # when
    scores = load_model().run("decide", {"order": block})
    # then
    np.testing.assert_allclose(scores["fraud"], sigmoid(np.array([-1, 1], np.float32)), 1e-6)


def test_a_model_reports_its_tasks_and_graphs() -> None:
    actual = load_model()

    assert actual.tasks == {"fraud", "click", "purchase", "relevance"}
    assert [actual.has_graph(graph) for graph in ("decide", "recommend", "classify")] == [True, True, False]


def test_items_of_the_bundle_are_read_as_hashes() -> None:
    actual = load_model().neighbours

    assert actual.hashes.tolist() == [item_hash(item) for item in ITEMS]
    assert (actual.rows[3].tolist(), actual.popular.tolist()) == ([0, 1], [3, 2, 1, 0])
    assert actual.weights.shape == actual.rows.shape


def make_wider_graph() -> bytes:
    """The decide graph with two amount columns as input, of which the first is the order amount."""
    return make_graphs(100.0, amounts=2)["decide.onnx"]


def make_decide_graph_without_fraud() -> bytes:
    """A decide graph whose only output is `brushing`."""
    nodes = [*first_column_nodes("order.numbers", "amount"), helper.make_node("Sigmoid", ["amount"], ["brushing"])]
    return make_graph({"order.numbers": (TensorProto.FLOAT, 1)}, {"brushing": 1}, nodes, 100.0)


WIDE_INPUT = {"decide/in/order.numbers": np.zeros((3, 2), np.float32)}
HALF = np.array([0.5], np.float32)
DEFECTS: dict[str, tuple[Files, str]] = {
    "a file that is no graph": ({"decide.onnx": b"no graph"}, "decide.onnx should be a graph"),
    "another graph under its name": ({"decide.onnx": make_graphs(1.0)["search.onnx"]}, "decide"),
    "a graph with other weights": ({"decide.onnx": make_graphs(99.0)["decide.onnx"]}, "golden `fraud`"),
    "a file that holds no golden arrays": ({"golden.npz": b"PK\x03\x04 broken"}, "golden.npz"),
    "an empty file of golden arrays": ({"golden.npz": b""}, "golden.npz"),
    "no golden inputs of a graph": (golden_without("items/in/item.numbers"), "items"),
    "no golden outputs of a graph": (golden_without("items/out/item_part"), "item_part"),
    "golden inputs of another shape": (golden_with(WIDE_INPUT), "decide"),
    "golden inputs of another type": (golden_with({"decide/in/order.numbers": np.zeros((3, 1))}), "decide"),
    "golden outputs of another shape": (golden_with({"decide/out/fraud": np.zeros(7, np.float32)}), "golden `fraud`"),
    "golden outputs that are not numbers": (
        golden_with({"decide/out/fraud": np.full(3, np.nan, np.float32)}),
        "golden `fraud`",
    ),
    "a graph that needs more columns than its features have": (
        {
            "decide.onnx": make_wider_graph(),
            **golden_with({**WIDE_INPUT, "decide/out/fraud": np.zeros(3, np.float32)}),
        },
        "run on the features",
    ),
    "a recommend graph with another output": (
        {
            "recommend.onnx": make_graphs(1.0)["search.onnx"],
            **golden_with({"recommend/out/relevance": make_golden(100.0)["search/out/relevance"]}),
        },
        "should answer `click`",
    ),
    "a decide graph without its required output": (
        {
            "decide.onnx": make_decide_graph_without_fraud(),
            **golden_with({"decide/in/order.numbers": np.zeros((1, 1), np.float32), "decide/out/brushing": HALF}),
        },
        "should answer `fraud`",
    ),
    "no fading of neighbours": (neighbours_without("fading"), "fading"),
    "a fading that is not a number": (neighbours_with(fading=np.array(np.nan, np.float32)), "from 0 to 10.0"),
    "no neighbours": (neighbours_without("neighbours"), "neighbours"),
    "neighbours beyond the items": (neighbours_with(neighbours=np.full((4, 2), 4, np.int32)), "among the 4 items"),
    "popular items beyond the items": (neighbours_with(popular=np.array([4], np.int32)), "among the 4 items"),
    "popular items with negative numbers": (neighbours_with(popular=np.array([-1], np.int32)), "among the 4 items"),
    "items that are not text": (neighbours_with(items=np.array([b"\xff"] * 4)), "neighbours.npz"),
    "neighbours of fewer items": (neighbours_with(neighbours=np.zeros((3, 2), np.int32)), "neighbours"),
}


@pytest.mark.parametrize("defect", list(DEFECTS))
def test_an_invalid_bundle_with_correct_digests_is_rejected(defect: str) -> None:
    files, message = DEFECTS[defect]

    with pytest.raises(BadBundle, match=message):
        load_model({**tiny_files(), **files})


@pytest.mark.parametrize("missing", ["golden.npz", "neighbours.npz"])
def test_a_bundle_without_a_required_file_is_rejected(missing: str) -> None:
    with pytest.raises(BadBundle, match=missing):
        load_model({name: content for name, content in tiny_files().items() if name != missing})


def test_weights_in_a_separate_file_are_rejected_although_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a graph that would be right with a file in the working directory of the worker
    files = tiny_files()
    graph = onnx.load_model_from_string(files["decide.onnx"])
    threshold = next(tensor for tensor in graph.graph.initializer if tensor.name == "threshold")
    (tmp_path / "threshold.bin").write_bytes(onnx.numpy_helper.to_array(threshold).tobytes())
    threshold.ClearField("raw_data")
    threshold.data_location = onnx.TensorProto.EXTERNAL
    threshold.external_data.add(key="location", value="threshold.bin")
    monkeypatch.chdir(tmp_path)
    # then
    with pytest.raises(BadBundle, match=r"decide\.onnx should be a graph that onnxruntime runs.*External data"):
        load_model({**files, "decide.onnx": graph.SerializeToString()})


def test_a_missing_or_differently_defined_feature_is_named() -> None:
    # given a worker without a feature, and one in which it has another source
    fewer = FeatureSet(feature for feature in FEATURES.features if feature.name != "item_category")
    other = FeatureSet(
        msgspec.structs.replace(f, source="item.brand") if f.name == "item_category" else f for f in FEATURES.features
    )
    # then
    with pytest.raises(BadBundle, match=r"needs feature `item_category` as it was in training\. Found none"):
        load_model(features=fewer)
    with pytest.raises(BadBundle, match=r"`item_category` .* Found another definition"):
        load_model(features=other)


def test_features_that_the_bundle_does_not_need_are_ignored() -> None:
    needed = FeatureSet(feature for feature in FEATURES.features if feature.name in NEEDED)

    assert load_model(features=needed).tasks == load_model().tasks


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[BundleWatcher]:
    watcher = BundleWatcher(folder=tmp_path, features=FEATURES)
    yield watcher
    watcher.close()


def read_version(model: Model | TrialModel | None) -> str | None:
    return model.version if model else None


def test_without_a_bundle_there_is_no_model_to_activate(watcher: BundleWatcher) -> None:
    assert (watcher.poll(wait=True), watcher.serving) == (None, None)


def test_a_bundle_is_activated_once_until_the_pointer_moves(watcher: BundleWatcher, tmp_path: Path) -> None:
    # given
    publish_tiny(tmp_path, "v1")
    polled = [watcher.poll(wait=True), watcher.poll(wait=True)]
    # when
    publish_tiny(tmp_path, "v2")
    polled += [watcher.poll(wait=True), watcher.poll(wait=True)]
    set_current(tmp_path, "v1")
    polled += [watcher.poll(wait=True), watcher.poll(wait=True)]
    watcher.mark_active()
    # then
    assert [active and read_version(active.serving) for active in polled] == ["v1", None, "v2", None, "v1", None]
    assert metrics.REGISTRY.get_sample_value("shopstream_model_info", {"version": "v1"}) == 1
    assert metrics.REGISTRY.get_sample_value("shopstream_model_info", {"version": "v2"}) is None


def flip_byte(folder: Path) -> None:
    graph = folder / "v2" / "decide.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


def break_pointer(folder: Path) -> None:
    (folder / "current.json").write_text(json.dumps(["v2"]))


def require_unknown_feature(folder: Path) -> None:
    publish(folder, make_manifest("v3", (*NEEDED, "weather")), tiny_files())


def break_archive(folder: Path) -> None:
    publish(folder, make_manifest("v3"), {**tiny_files(), "neighbours.npz": io.BytesIO(b"PK\x03\x04").getvalue()})


def remove_manifest(folder: Path) -> None:
    (folder / "v2" / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [flip_byte, break_pointer, require_unknown_feature, break_archive, remove_manifest])
@pytest.mark.parametrize("has_model", [True, False])
def test_an_invalid_bundle_is_rejected_once_and_the_present_model_stays(
    watcher: BundleWatcher,
    tmp_path: Path,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
    has_model: bool,
) -> None:
    # given
    if has_model:
        publish_tiny(tmp_path, "v1")
        assert watcher.poll(wait=True)
    before, rejected = watcher.serving, read_metric(metrics.BUNDLES_REFUSED)
    publish_tiny(tmp_path, "v2")
    damage(tmp_path)
    # when
    with caplog.at_level(logging.ERROR):
        polled = [watcher.poll(wait=True), watcher.poll(wait=True)]
    # then
    assert (polled, watcher.serving) == ([None, None], before)
    (message,) = caplog.messages
    assert ("Model v1 keeps answering" if has_model else "Rules and popular items answer") in message
    assert read_metric(metrics.BUNDLES_REFUSED) == rejected + 1


def test_a_valid_bundle_after_an_invalid_one_is_activated(watcher: BundleWatcher, tmp_path: Path) -> None:
    # given
    publish_tiny(tmp_path, "v2")
    flip_byte(tmp_path)
    assert watcher.poll(wait=True) is None
    # when
    publish_tiny(tmp_path, "v4")
    # then
    polled = watcher.poll(wait=True)
    assert polled is not None
    assert read_version(polled.serving) == "v4"
    assert read_bundle(tmp_path, "v4").version == "v4"


def test_a_bundle_that_needs_a_table_column_is_rejected() -> None:
    column = Feature("years", "user", "number", "column.years")
    features = FeatureSet([*FEATURES.features, column])
    needing = msgspec.structs.replace(
        make_manifest("v1"), features={**make_manifest("v1").features, "years": column.digest}
    )

    with pytest.raises(BadBundle, match="should need features of events"):
        Model(Bundle(needing, tiny_files()), features)


def test_a_worker_without_a_bundle_says_at_once_and_each_minute_where_it_looks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given a folder that does not exist
    now_s, folder = [100.0], tmp_path / "nowhere"
    watcher = BundleWatcher(folder=folder, features=FEATURES, clock_s=lambda: now_s[0])
    try:
        # when the worker polls it for two minutes, and an operator makes it after one
        for second in range(121):
            now_s[0] = 100.0 + second
            if second == 59:
                folder.mkdir()
            watcher.poll()
        # then
        missing, *empty = [record.getMessage() for record in caplog.records]
        assert f"Found none at {folder}." in missing
        assert [f"{folder} should have a current bundle." in text for text in empty] == [True, True]
        # when it serves one
        caplog.clear()
        publish_tiny(folder, "v1")
        watcher.poll(wait=True)
        now_s[0] += 600
        watcher.poll()
        # then
        assert not [record for record in caplog.records if "should have a current bundle" in record.getMessage()]
    finally:
        watcher.close()


def test_a_rejected_bundle_is_named_each_minute_while_no_model_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    now_s = [100.0]
    publish_tiny(tmp_path, "v1")
    (tmp_path / "v1" / "golden.npz").write_bytes(b"")
    watcher = BundleWatcher(folder=tmp_path, features=FEATURES, clock_s=lambda: now_s[0])
    try:
        # when
        for second in range(0, 121, 10):
            now_s[0] = 100.0 + second
            watcher.poll(wait=True)
        # then
        texts = [record.getMessage() for record in caplog.records if "marked `degraded`" in record.getMessage()]
        assert len(texts) == 3
        assert all("Bundle v1 was rejected" in text for text in texts)
    finally:
        watcher.close()


def test_a_bundle_without_the_graph_of_the_lane_is_named_each_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given a bundle for orders alone, in both lanes
    paired = ("items.onnx", "recommend.onnx", "search.onnx")
    files = {name: content for name, content in tiny_files().items() if name not in paired}
    publish(tmp_path, make_manifest("v1"), files)
    now_s = [100.0]
    for graphs, reminders in ((HANDLERS["orders"].needed_graphs, 0), (HANDLERS["browsing"].needed_graphs, 2)):
        caplog.clear()
        watcher = BundleWatcher(folder=tmp_path, features=FEATURES, graphs=graphs, clock_s=lambda: now_s[0])
        try:
            # when
            for _ in range(2):
                watcher.poll(wait=True)
                now_s[0] += 61
            # then
            texts = [record.getMessage() for record in caplog.records if "degraded" in record.getMessage()]
            assert ["the graph recommend" in text for text in texts] == [True] * reminders
        finally:
            watcher.close()
