import errno
import os
from pathlib import Path

import msgspec
import pytest
import torch

from contract.errors import BadBundle
from contract.settings.model import ModelConfig
from model.checkpoint import (
    Checkpoint,
    checkpoint_path,
    find_latest,
    make_metadata,
    make_version,
    read_checkpoint,
    write_checkpoint,
)
from model.network import Network
from tests.model.small import draw_blocks, make_network, to_inputs


def make_full_checkpoint(network: Network, created_ms: int = 1_700_000_000_123) -> Checkpoint:
    about = make_metadata(
        network,
        parent="before",
        created_ms=created_ms,
        evaluation={"click": {"auc": 0.75}},
        positions={"shop.feedback/0": 12},
    )
    return Checkpoint(
        metadata=about, weights=network.state_dict(), replay_buffer=b"rows", optimizer={"state": {0: torch.ones(2)}}
    )


def test_a_checkpoint_restores_its_network(tmp_path: Path, seed: int) -> None:
    network, inputs = make_network(seed=seed), to_inputs(draw_blocks(30, seed))

    path = write_checkpoint(tmp_path, make_full_checkpoint(network))
    actual = read_checkpoint(path)

    assert actual.metadata == make_full_checkpoint(network).metadata
    assert (actual.replay_buffer, actual.interactions) == (b"rows", b"")
    assert actual.optimizer["state"][0].tolist() == [1, 1]
    for name, answer in actual.build_network()(inputs).items():
        torch.testing.assert_close(answer, network(inputs)[name], rtol=0, atol=0)


def test_fields_that_an_earlier_file_lacks_are_empty(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make_full_checkpoint(make_network()))
    state = torch.load(path, weights_only=True)
    torch.save({name: value for name, value in state.items() if name not in ("waiting", "met")}, path)

    actual = read_checkpoint(path)

    assert (actual.pending_examples, actual.id_counts, actual.replay_buffer) == (b"", {}, b"rows")


def test_the_model_section_in_a_checkpoint_is_a_table_of_all_its_values(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make_full_checkpoint(make_network()))

    about = msgspec.json.decode(torch.load(path, weights_only=True)["about"])

    assert list(about["shape"]) == list(ModelConfig.model_fields)
    assert about["shape"] | {"hidden": 8, "dropout": 0.0} == about["shape"]


def test_a_checkpoint_whose_model_section_is_invalid_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make_full_checkpoint(make_network()))
    state = torch.load(path, weights_only=True)
    torch.save(state | {"about": state["about"].replace('"hidden":8', '"hidden":0')}, path)

    with pytest.raises(BadBundle, match="should be a checkpoint"):
        read_checkpoint(path)


def test_versions_sort_by_time_and_identify_weights() -> None:
    first, second = make_network(seed=1).state_dict(), make_network(seed=2).state_dict()

    assert make_version(first, 5) == make_version(first, 5) != make_version(second, 5)
    assert make_version(first, 999) < make_version(second, 1_000) < make_version(first, 10**12)


def test_the_latest_checkpoint_is_the_newest_one(tmp_path: Path) -> None:
    old, new = (make_full_checkpoint(make_network(seed=seed), 10**12 + seed) for seed in (1, 2))

    write_checkpoint(tmp_path, new)
    write_checkpoint(tmp_path, old)

    assert find_latest(tmp_path) == checkpoint_path(tmp_path, new.metadata.version)


def test_a_full_disk_leaves_no_partial_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)

    with pytest.raises(BadBundle, match=r"\.pt should be written whole. Found: .*No space left"):
        write_checkpoint(tmp_path, make_full_checkpoint(make_network()))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_folder_without_checkpoints_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="training fit"):
        find_latest(tmp_path)


@pytest.mark.parametrize("length", [0, 100, 5_000])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, length: int) -> None:
    path = write_checkpoint(tmp_path, make_full_checkpoint(make_network()))
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(BadBundle, match="should be a checkpoint"):
        read_checkpoint(path)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="should be a checkpoint"):
        read_checkpoint(tmp_path / "none.pt")


def test_writing_leaves_no_other_files(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make_full_checkpoint(make_network()))

    assert [file.name for file in path.parent.iterdir()] == [path.name]
