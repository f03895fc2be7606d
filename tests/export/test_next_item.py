"""The next-item part of a bundle: graphs as torch, and what `verify` refuses."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.bundle import Bundle, publish, read_bundle
from contract.errors import BadBundle
from contract.retrieval.features import HISTORY_MAX
from export.exporter import export, to_npz
from export.next_item import export_next_item
from export.ort import open_session, run
from export.verification import verify
from model.checkpoint import checkpoint_path, read_checkpoint, write_checkpoint
from model.sequence.encoder import LatestUserEncoder
from model.sequence.next_item import NextItemPart, to_tensors
from tests.model.small import FEATURES, make_checkpoint, make_network
from tests.training.next_item.planted import fit_planted


@pytest.fixture(scope="module")
def part() -> NextItemPart:
    part = fit_planted().part
    assert part
    return part


@pytest.fixture(scope="module")
def bundle(part: NextItemPart, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("next_item")
    checkpoint = replace(make_checkpoint(make_network()), next_item=to_tensors(part))
    write_checkpoint(folder, checkpoint)
    stored = read_checkpoint(checkpoint_path(folder, checkpoint.metadata.version))
    return read_bundle(folder, export(stored, folder, {}).manifest.version)


def test_the_graphs_of_a_part_equal_torch_for_any_length_of_history(part: NextItemPart) -> None:
    exported, rng = export_next_item(part, {"version": "v"}), np.random.default_rng(3)
    sequence, ranker = (open_session(name, exported.files[f"{name}.onnx"]) for name in ("sequence", "ranker"))
    for users, length in ((1, 1), (3, 5), (9, HISTORY_MAX)):
        rows = rng.integers(0, len(part.items) + 1, (users, length))
        actions, ages = rng.integers(0, 4, rows.shape), rng.exponential(3.0, rows.shape).astype(np.float32)
        expected = LatestUserEncoder(part.encoder)(*map(torch.from_numpy, (rows, actions, ages))).detach().numpy()
        actual = run(sequence, {"rows": rows, "actions": actions, "ages": ages})["user"]
        np.testing.assert_allclose(actual, expected, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1, atol=1e-5)
    features = rng.standard_normal((7, len(part.ranker.mean))).astype(np.float32)
    with torch.no_grad():
        expected = part.ranker(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(run(ranker, {"features": features})["score"], expected, atol=1e-5)


def test_items_that_no_table_has_change_no_vector(part: NextItemPart) -> None:
    session = open_session("sequence", export_next_item(part, {}).files["sequence.onnx"])
    known, zeros = np.array([[3, 5, 0, 0]]), np.zeros((1, 4), np.float32)
    actions = np.array([[1, 1, 0, 0]])
    expected = run(session, {"rows": known, "actions": actions, "ages": zeros})["user"]
    for foreign in (np.array([[3, 5, 10**9, -4]]), np.array([[3, 5, len(part.items) + 1, 0]])):
        actual = run(session, {"rows": foreign, "actions": actions, "ages": zeros})["user"]
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    empty = run(session, {"rows": 0 * known, "actions": 0 * known, "ages": zeros * np.float32("nan")})["user"]
    assert np.isfinite(empty).all()


def test_a_bundle_with_a_part_is_verified_and_says_what_it_is_worth(bundle: Bundle) -> None:
    report = verify(bundle, FEATURES)
    assert {"sequence", "ranker"} <= report.differences.keys()
    evaluation = bundle.manifest.evaluation["next_item"]
    assert evaluation["ndcg_20"] >= evaluation["own_ndcg_20"]


def test_a_part_that_is_worse_than_its_candidates_is_refused(part: NextItemPart) -> None:
    for evaluation in ({}, {"ndcg_20": 0.1, "own_ndcg_20": 0.2}, {"ndcg_20": float("nan"), "own_ndcg_20": 0.0}):
        with pytest.raises(BadBundle, match="should not be worse than the candidates' own"):
            export_next_item(replace(part, evaluation=evaluation), {})


Change = Callable[[dict[str, bytes]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("ranker.onnx"), "A next-item part should have"),
        (lambda files: files.pop("vectors.npz"), "A next-item part should have"),
        (lambda files: cut(files, "vectors.npz"), "vectors.npz should hold readable arrays"),
        (lambda files: cut(files, "other_neighbours.npz"), "other_neighbours.npz should hold readable arrays"),
        (lambda files: cut(files, "sequence.onnx"), "sequence.onnx should"),
        (lambda files: edit_vectors(files, np.nan), "finite and of unit length"),
        (lambda files: edit_vectors(files, 2.0), "finite and of unit length"),
        (lambda files: drop_item(files), "should have the items of neighbours.npz"),
    ],
)
def test_a_part_that_is_cut_or_not_finite_is_refused(
    bundle: Bundle, tmp_path: Path, change: Change, message: str
) -> None:
    files = dict(bundle.files)
    change(files)
    publish(tmp_path, bundle.manifest, files)
    with pytest.raises(BadBundle, match=message):
        verify(read_bundle(tmp_path, bundle.version), FEATURES)


def cut(files: dict[str, bytes], name: str) -> None:
    files[name] = files[name][: len(files[name]) // 2]


def edit_vectors(files: dict[str, bytes], factor: float) -> None:
    arrays = dict(np.load(io.BytesIO(files["vectors.npz"])))
    arrays["vectors"][3] *= factor
    files["vectors.npz"] = to_npz(arrays)


def drop_item(files: dict[str, bytes]) -> None:
    arrays = dict(np.load(io.BytesIO(files["vectors.npz"])))
    files["vectors.npz"] = to_npz({name: array[1:] for name, array in arrays.items()})
