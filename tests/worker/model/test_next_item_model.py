"""The next-item part of a bundle: loaded whole or not at all, and rejected if it does not fit together."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from contract.bundle import Bundle
from contract.errors import BadBundle
from contract.retrieval.features import FEATURES
from testkit.environment.tiny_bundle import ITEMS, make_golden, make_manifest, make_neighbours, pack_npz, tiny_files
from testkit.environment.tiny_next_item import (
    VECTORS,
    make_next_item_golden,
    make_ranker,
    make_sequence,
    make_vectors,
    next_item_files,
)
from tests.worker.events import FEATURES as DECLARED
from worker.model.next_item_model import NextItemModel
from worker.model.onnx_model import Model

Files = dict[str, bytes]


def load_model(files: Files) -> Model:
    return Model(Bundle(make_manifest("v1"), files), DECLARED)


def load_next_item() -> NextItemModel:
    next_item = load_model(next_item_files()).next_item
    assert next_item
    return next_item


def vectors_with(**changes: Any) -> Files:
    return {"vectors.npz": pack_npz({**make_vectors(), **changes})}


def golden_with(changes: dict[str, Any]) -> Files:
    return {"golden.npz": pack_npz({**make_golden(100.0), **make_next_item_golden(), **changes})}


def with_value(array: Any, value: float, place: Any = (2, 0)) -> Any:
    changed = array.copy()
    changed[place] = value
    return changed


def test_a_bundle_without_the_part_loads_without_it() -> None:
    assert load_model(tiny_files()).next_item is None


def test_histories_are_encoded_without_the_items_that_the_bundle_lacks() -> None:
    # given users with two known items, a known item between unknown ones, and none
    rows = np.array([[0, 2, -1, -1], [-1, 3, -1, -1], [-1, -1, -1, -1]])
    # when
    users = load_next_item().encode(rows, np.minimum(rows, 1), np.zeros(rows.shape, np.float32))
    # then
    expected = np.array([[0.5**0.5, 0, 0.5**0.5, 0], [0, 0, 0, 1], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(users, expected, atol=1e-6)


def test_a_user_s_vector_does_not_depend_on_the_other_users() -> None:
    # given histories of all lengths, more than go into one run
    rng = np.random.default_rng(1)
    rows = np.where(np.arange(64) < rng.integers(0, 65, 150)[:, None], rng.integers(0, 4, (150, 64)), -1)
    next_item, actions, ages = load_next_item(), np.ones(rows.shape, np.int64), np.zeros(rows.shape, np.float32)
    # when
    together = next_item.encode(rows, actions, ages)
    # then
    alone = [next_item.encode(rows[u : u + 1], actions[u : u + 1], ages[u : u + 1]) for u in range(len(rows))]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)


def test_a_user_s_vector_that_is_not_finite_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    next_item = load_next_item()
    broken = np.array([[np.nan, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    monkeypatch.setattr(next_item._sequence, "run", lambda inputs: {"user": broken})
    rows = np.array([[0], [1]])

    users = next_item.encode(rows, rows, rows.astype(np.float32))

    np.testing.assert_array_equal(users, [[0, 0, 0, 0], [0, 1, 0, 0]])


def cut(files: Files, name: str) -> Files:
    return {name: files[name][: len(files[name]) // 2]}


def make_other_items() -> Files:
    return {"vectors.npz": pack_npz(make_vectors(items=("i1", "i0", "i2", "i3")))}


@pytest.mark.parametrize(
    ("make_changes", "problem"),
    [
        (lambda files: cut(files, "vectors.npz"), "readable arrays in vectors.npz"),
        (lambda files: cut(files, "sequence.onnx"), "sequence.onnx should be a graph that onnxruntime runs"),
        (lambda files: cut(files, "ranker.onnx"), "ranker.onnx should be a graph that onnxruntime runs"),
        (
            lambda _: vectors_with(vectors=with_value(VECTORS, np.nan)),
            "vector of every item should be finite. Found others: 1, first i2",
        ),
        (lambda _: vectors_with(vectors=with_value(VECTORS, np.inf)), "vector of every item should be finite"),
        (
            lambda _: vectors_with(vectors=VECTORS * np.float32(1.5)),
            "vector of every item should have unit length. Found others: 4, first i0",
        ),
        (lambda _: vectors_with(vectors=with_value(VECTORS, 0, 2)), "unit length. Found others: 1, first i2"),
        (lambda _: vectors_with(vectors=VECTORS[:3]), r"Each of 4 items should have a vector. Found \(3, 4\)"),
        (lambda _: vectors_with(vectors=VECTORS[:, :0]), r"Each of 4 items should have a vector. Found \(4, 0\)"),
        (lambda _: vectors_with(counts=np.ones(3)), "should have both counts"),
        (lambda _: vectors_with(counts=np.array([1, np.nan, 1, 1])), "count of every item should be finite"),
        (lambda _: vectors_with(recent_counts=np.full(4, -1.0)), "should not be negative. Found -1"),
        (lambda _: make_other_items(), "should have the items of neighbours.npz, in the same order"),
        (
            lambda _: vectors_with(vectors=np.eye(4, 5, dtype=np.float32)),
            r"sequence.onnx should answer vectors of 5 numbers. Found \(1, 4\)",
        ),
        (lambda _: {"ranker.onnx": make_ranker({}, 3)}, "ranker.onnx should run on its golden inputs"),
        (lambda _: {"sequence.onnx": make_ranker({})}, "sequence.onnx should take rows, actions, ages and answer user"),
        (lambda _: {"ranker.onnx": make_sequence(VECTORS)}, "ranker.onnx should take features and answer score"),
        (
            lambda _: {"ranker.onnx": make_ranker({"popularity": 1.0})},
            "ranker.onnx should reproduce its golden `score`",
        ),
        (lambda _: golden_with({"sequence/out/user": np.zeros((2, 4))}), "reproduce its golden `user`"),
        (lambda _: {"golden.npz": pack_npz(make_golden(100.0))}, "should have golden inputs for sequence.onnx"),
        (
            lambda _: {"other_neighbours.npz": pack_npz({**make_neighbours(), "neighbours": np.full((4, 2), 9)})},
            "Neighbours should be among the 4 items. Found number 9",
        ),
    ],
)
def test_a_part_that_does_not_fit_together_is_rejected(make_changes: Callable[[Files], Files], problem: str) -> None:
    files = next_item_files()

    with pytest.raises(BadBundle, match=problem):
        load_model(files | make_changes(files))


@pytest.mark.parametrize("name", ["sequence.onnx", "ranker.onnx", "vectors.npz"])
def test_half_of_the_part_is_rejected(name: str) -> None:
    files = {other: content for other, content in next_item_files().items() if other != name}

    with pytest.raises(BadBundle, match=f"should have all of .*, or none. Found no {name}"):
        load_model(files)


def test_features_that_a_ranker_of_other_width_would_read_are_rejected() -> None:
    # given a ranker that reproduces its golden outputs for another number of features
    width = len(FEATURES) + 1
    golden = {"ranker/in/features": np.zeros((2, width), np.float32), "ranker/out/score": np.zeros(2, np.float32)}
    files = next_item_files() | {"ranker.onnx": make_ranker({}, width)} | golden_with(golden)

    with pytest.raises(BadBundle, match=f"ranker.onnx should run on {len(FEATURES)} features"):
        load_model(files)


def test_the_second_source_has_the_items_of_the_first() -> None:
    arrays = {name: array for name, array in make_neighbours().items() if name in ("neighbours", "weights", "fading")}

    next_item = load_model(next_item_files() | {"other_neighbours.npz": pack_npz(arrays)}).next_item

    assert next_item
    assert next_item.other_neighbours
    assert len(next_item.other_neighbours.hashes) == len(ITEMS)
