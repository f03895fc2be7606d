"""Bundles: a good one is taken up between two batches; whatever is wrong with one, the present one keeps answering."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from contract.bundle import Bundle, publish, read_bundle, set_current
from contract.errors import BadBundle
from contract.features.declaration import Feature, FeatureSet
from contract.hashing import item_hash
from tests.worker.events import FEATURES
from tests.worker.tiny_bundle import (
    ITEMS,
    NEEDED,
    make_golden,
    make_graphs,
    make_manifest,
    make_neighbours,
    pack_npz,
    publish_tiny,
    sigmoid,
    tiny_files,
)
from worker.model.bundle_watcher import BundleWatcher
from worker.model.experiment import TrialModel
from worker.model.onnx_model import Model
from worker.ops import metrics

Files = dict[str, bytes]


def load_model(files: Files | None = None, features: FeatureSet = FEATURES) -> Model:
    return Model(Bundle(make_manifest("v1"), files or tiny_files()), features)


def npz_without(arrays: dict[str, Any], *names: str) -> bytes:
    return pack_npz({name: array for name, array in arrays.items() if name not in names})


def npz_with_change(arrays: dict[str, Any], **by: Any) -> bytes:
    return pack_npz({**arrays, **{name.replace("__", "/"): value for name, value in by.items()}})


def test_a_model_picks_its_columns_by_name_out_of_all_that_are_served() -> None:
    # given
    block = FEATURES.empty_block("order", 2)
    column = [feature.name for feature in FEATURES.numbers("order")].index("order_amount")
    block.numbers[:, column] = 99, 101
    # when
    scores = load_model().run("decide", {"order": block})
    # then
    np.testing.assert_allclose(scores["fraud"], sigmoid(np.array([-1, 1], np.float32)), 1e-6)


def test_a_model_tells_what_it_can_do() -> None:
    actual = load_model()

    assert actual.tasks == {"fraud", "click", "purchase", "relevance"}
    assert [actual.has_graph(graph) for graph in ("decide", "recommend", "classify")] == [True, True, False]


def test_items_that_the_bundle_names_are_known_by_their_hashes() -> None:
    actual = load_model().neighbours

    assert actual.hashes.tolist() == [item_hash(item) for item in ITEMS]
    assert (actual.rows[3].tolist(), actual.popular.tolist()) == ([0, 1], [3, 2, 1, 0])
    assert actual.weights.shape == actual.rows.shape


def make_wider_graph() -> bytes:
    """The graph that decides, for two columns of which it sums none: its first is the amount all the same."""
    return make_graphs(100.0, amounts=2)["decide.onnx"]


BROKEN: dict[str, tuple[Files, str]] = {
    "a graph that is none": ({"decide.onnx": b"no graph"}, "decide.onnx should be a graph"),
    "another graph under its name": ({"decide.onnx": make_graphs(1.0)["search.onnx"]}, "decide"),
    "a graph with other weights": ({"decide.onnx": make_graphs(99.0)["decide.onnx"]}, "golden `fraud`"),
    "golden arrays that are none": ({"golden.npz": b"PK\x03\x04 broken"}, "golden.npz"),
    "no bytes of golden arrays": ({"golden.npz": b""}, "golden.npz"),
    "no golden inputs of a graph": ({"golden.npz": npz_without(make_golden(100.0), "items/in/item.numbers")}, "items"),
    "no golden outputs of a graph": ({"golden.npz": npz_without(make_golden(100.0), "items/out/item_part")}, "item_part"),
    "golden inputs of another shape": (
        {"golden.npz": npz_with_change({**make_golden(100.0), "decide/in/order.numbers": np.zeros((3, 2), np.float32)})}, "decide"),
    "golden inputs of another type": (
        {"golden.npz": npz_with_change({**make_golden(100.0), "decide/in/order.numbers": np.zeros((3, 1))})}, "decide"),
    "golden outputs of another shape": (
        {"golden.npz": npz_with_change(make_golden(100.0), decide__out__fraud=np.zeros(7, np.float32))}, "golden `fraud`"),
    "golden outputs that are no numbers": (
        {"golden.npz": npz_with_change(make_golden(100.0), decide__out__fraud=np.full(3, np.nan, np.float32))}, "golden `fraud`"),
    "a graph that wants more than the features it names": (
        {"decide.onnx": make_wider_graph(), "golden.npz": npz_with_change(
            {**make_golden(100.0), "decide/in/order.numbers": np.zeros((3, 2), np.float32)},
            decide__out__fraud=np.zeros(3, np.float32))}, "run on the features"),
    "a recommending graph that answers something else": (
        {"recommend.onnx": make_graphs(1.0)["search.onnx"],
         "golden.npz": npz_with_change({**make_golden(100.0), "recommend/out/relevance": make_golden(100.0)["search/out/relevance"]})},
        "should answer `click`"),
    "no fading of neighbours": ({"neighbours.npz": npz_without(make_neighbours(), "fading")}, "fading"),
    "a fading that is no number": (
        {"neighbours.npz": npz_with_change(make_neighbours(), fading=np.array(np.nan, np.float32))}, "from 0 to 10.0"),
    "no neighbours": ({"neighbours.npz": npz_without(make_neighbours(), "neighbours")}, "neighbours"),
    "neighbours beyond the items": (
        {"neighbours.npz": npz_with_change(make_neighbours(), neighbours=np.full((4, 2), 4, np.int32))}, "among the 4 items"),
    "popular items beyond the items": (
        {"neighbours.npz": npz_with_change(make_neighbours(), popular=np.array([4], np.int32))}, "among the 4 items"),
    "popular items before the items": (
        {"neighbours.npz": npz_with_change(make_neighbours(), popular=np.array([-1], np.int32))}, "among the 4 items"),
    "items that are no text": (
        {"neighbours.npz": npz_with_change(make_neighbours(), items=np.array([b"\xff"] * 4))}, "neighbours.npz"),
    "neighbours of fewer items": (
        {"neighbours.npz": npz_with_change(make_neighbours(), neighbours=np.zeros((3, 2), np.int32))}, "neighbours"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", list(BROKEN))
def test_a_bundle_that_is_vouched_for_and_still_wrong_is_refused(wrong: str) -> None:
    files, message = BROKEN[wrong]

    with pytest.raises(BadBundle, match=message):
        load_model({**tiny_files(), **files})


@pytest.mark.parametrize("missing", ["golden.npz", "neighbours.npz"])
def test_a_bundle_without_a_file_it_needs_is_refused(missing: str) -> None:
    with pytest.raises(BadBundle, match=missing):
        load_model({name: content for name, content in tiny_files().items() if name != missing})


def test_weights_that_lie_in_a_file_of_their_own_are_refused_also_where_the_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a graph that would answer rightly with what lies in the folder where the worker was started
    files = tiny_files()
    graph = onnx.load_model_from_string(files["decide.onnx"])
    doubt = next(one for one in graph.graph.initializer if one.name == "doubt")
    (tmp_path / "doubt.bin").write_bytes(onnx.numpy_helper.to_array(doubt).tobytes())
    doubt.ClearField("raw_data")
    doubt.data_location = onnx.TensorProto.EXTERNAL
    doubt.external_data.add(key="location", value="doubt.bin")
    monkeypatch.chdir(tmp_path)
    # when
    with pytest.raises(BadBundle, match=r"decide\.onnx should be a graph that onnxruntime runs.*External data"):
        load_model({**files, "decide.onnx": graph.SerializeToString()})


def test_a_feature_that_the_worker_lacks_or_means_otherwise_is_named() -> None:
    # given a worker that lacks a feature, and one in which it has another source
    fewer = FeatureSet(feature for feature in FEATURES.features if feature.name != "item_category")
    other = FeatureSet(
        msgspec.structs.replace(f, source="item.brand") if f.name == "item_category" else f for f in FEATURES.features
    )
    # then
    with pytest.raises(BadBundle, match=r"needs feature `item_category` as it was in training\. Found none"):
        load_model(features=fewer)
    with pytest.raises(BadBundle, match=r"`item_category` .* Found another meaning"):
        load_model(features=other)


def test_features_that_the_bundle_does_not_need_are_ignored() -> None:
    needed = FeatureSet(feature for feature in FEATURES.features if feature.name in NEEDED)

    assert load_model(features=needed).tasks == load_model().tasks


@pytest.fixture
def bundles(tmp_path: Path) -> Iterator[BundleWatcher]:
    made = BundleWatcher(folder=tmp_path, features=FEATURES)
    yield made
    made.close()


def served_version(one: Model | TrialModel | None) -> str | None:
    return one.version if one else None


def test_before_the_first_bundle_there_is_nothing_to_take_up(bundles: BundleWatcher) -> None:
    assert (bundles.poll(wait=True), bundles.serving) == (None, None)


def test_a_bundle_is_taken_up_once_and_the_next_when_the_pointer_moves(bundles: BundleWatcher, tmp_path: Path) -> None:
    # given
    publish_tiny(tmp_path, "v1")
    taken = [bundles.poll(wait=True), bundles.poll(wait=True)]
    # when
    publish_tiny(tmp_path, "v2")
    taken += [bundles.poll(wait=True), bundles.poll(wait=True)]
    set_current(tmp_path, "v1")
    taken += [bundles.poll(wait=True), bundles.poll(wait=True)]
    bundles.mark_active()
    # then
    assert [lineup and served_version(lineup.serving) for lineup in taken] == ["v1", None, "v2", None, "v1", None]
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
@pytest.mark.parametrize("served", [True, False])
def test_a_bad_bundle_is_refused_once_with_a_word_and_what_answered_keeps_answering(
    bundles: BundleWatcher,
    tmp_path: Path,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
    served: bool,
) -> None:
    # given
    if served:
        publish_tiny(tmp_path, "v1")
        assert bundles.poll(wait=True)
    before, refused = bundles.serving, metrics.BUNDLES_REFUSED._value.get()
    publish_tiny(tmp_path, "v2")
    damage(tmp_path)
    # when
    with caplog.at_level(logging.ERROR):
        taken = [bundles.poll(wait=True), bundles.poll(wait=True)]
    # then
    assert (taken, bundles.serving) == ([None, None], before)
    (message,) = caplog.messages
    assert ("Model v1 keeps answering" if served else "Rules and popular items answer") in message
    assert metrics.BUNDLES_REFUSED._value.get() == refused + 1


def test_a_good_bundle_after_a_bad_one_is_taken_up(bundles: BundleWatcher, tmp_path: Path) -> None:
    # given
    publish_tiny(tmp_path, "v2")
    flip_byte(tmp_path)
    assert bundles.poll(wait=True) is None
    # when
    publish_tiny(tmp_path, "v4")
    # then
    taken = bundles.poll(wait=True)
    assert taken is not None
    assert served_version(taken.serving) == "v4"
    assert read_bundle(tmp_path, "v4").version == "v4"


def test_a_bundle_that_needs_a_column_of_a_table_is_refused_since_no_event_has_it() -> None:
    column = Feature("years", "user", "number", "column.years")
    features = FeatureSet([*FEATURES.features, column])
    needing = msgspec.structs.replace(
        make_manifest("v1"), features={**make_manifest("v1").features, "years": column.digest}
    )

    with pytest.raises(BadBundle, match="should need what events have"):
        Model(Bundle(needing, tiny_files()), features)
