"""Items bought together, from a checkpoint to the table that workers read."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.bundle import Bundle, read_bundle
from contract.errors import BadBundle
from contract.hashing import item_hash
from export.exporter import export, to_npz
from export.verification import verify
from model.checkpoint import checkpoint_path, read_checkpoint, write_checkpoint
from tests.model.small import FEATURES, make_checkpoint, make_network
from tests.training.next_item.test_together import make_history
from training.next_item.together import find_together
from worker.model.item_tables import read_together


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    together = find_together(make_history([[1, 2]] * 8 + [[3]] * 200))
    checkpoint = replace(make_checkpoint(make_network()), together=together)
    write_checkpoint(tmp_path, checkpoint)
    stored = read_checkpoint(checkpoint_path(tmp_path, checkpoint.metadata.version))
    return read_bundle(tmp_path, export(stored, tmp_path, {}).manifest.version)


def test_a_bundle_has_the_items_that_are_bought_together(bundle: Bundle) -> None:
    verify(bundle, FEATURES)
    table = read_together(bundle)

    assert table is not None
    assert table.hashes.tolist() == [item_hash("i1"), item_hash("i2")]
    assert table.rows.tolist() == [[1], [0]]
    np.testing.assert_allclose(table.weights, 1.0)


def test_a_bundle_without_baskets_has_none(tmp_path: Path) -> None:
    exported = export(make_checkpoint(make_network()), tmp_path, {})
    assert read_together(read_bundle(tmp_path, exported.manifest.version)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neighbours": np.array([[7], [0]], np.int32)}, "Neighbours should be among the 2 items"),
        ({"weights": np.ones((1, 1), np.float32)}, "should have a row of neighbours and weights"),
        ({"items": None}, "together.npz should have all of its arrays. Found no items"),
    ],
)
def test_verify_refuses_a_broken_table(bundle: Bundle, changes: Mapping[str, Any], message: str) -> None:
    arrays: dict[str, Any] = {
        "items": np.array([b"i1", b"i2"]),
        "neighbours": np.array([[1], [0]], np.int32),
        "weights": np.ones((2, 1), np.float32),
    } | dict(changes)
    content = to_npz({name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(BadBundle, match=message):
        verify(replace(bundle, files={**bundle.files, "together.npz": content}), FEATURES)
