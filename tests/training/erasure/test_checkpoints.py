"""Checkpoints lose the rows of erased people, and nothing else, whatever interrupts it."""

from pathlib import Path

import pytest

from contract.errors import BadBundle
from contract.events.model import Erasure
from contract.profiles.erasures import Erasures
from export.interactions import read_interactions
from model.checkpoint import Checkpoint, hash_weights, make_metadata, read_checkpoint, write_checkpoint
from tests.model.small import make_network
from tests.training.examples import PLAN, START_MS, make_examples
from tests.training.kill_points import each_kill_point
from training.data.interactions import extract_interactions, merge_interactions
from training.data.parquet import read_table
from training.erasure.checkpoints import CheckpointEraser, erase_rows
from training.online.new_labels import NewLabels
from training.online.replay_buffer import decode_buffer, encode_buffer

EXAMPLES = make_examples(200, 3)
MIDDLE_MS = int(EXAMPLES.ts_ms[100])
ALL_MS = int(EXAMPLES.ts_ms.max())


def make_erasures(user: str = "u3", ts_ms: int = ALL_MS) -> Erasures:
    return Erasures([Erasure(event_id="e", user_id=user, ts_ms=ts_ms)])


def make_checkpoint(created_ms: int = START_MS) -> Checkpoint:
    network = make_network()
    metadata = make_metadata(network, parent=None, created_ms=created_ms, evaluation={}, positions={"f/0": 3})
    return Checkpoint(
        metadata=metadata,
        weights=network.state_dict(),
        replay_buffer=encode_buffer(EXAMPLES, PLAN.keep, PLAN.seed),
        interactions=merge_interactions(extract_interactions(EXAMPLES)),
        pending_examples=NewLabels(EXAMPLES, EXAMPLES.ts_ms).to_parquet(),
    )


def list_rows(checkpoint: Checkpoint) -> list[tuple[str, int]]:
    """User and time of all rows that a checkpoint holds."""
    tables = [
        read_interactions(checkpoint.interactions),
        *(read_table(content) for content in (checkpoint.replay_buffer, checkpoint.pending_examples) if content),
    ]
    return [
        (user, ts_ms)
        for table in tables
        for user, ts_ms in zip(table.column("user_id").to_pylist(), table.column("ts_ms").to_pylist(), strict=True)
    ]


def is_free(path: Path, user: str = "u3") -> bool:
    return user not in {name for name, _ in list_rows(read_checkpoint(path))}


def test_covered_rows_leave_the_buffer_the_pending_examples_and_the_interactions() -> None:
    before = make_checkpoint()
    erasures = make_erasures(ts_ms=MIDDLE_MS)

    actual = erase_rows(before, erasures)

    expected = [row for row in list_rows(before) if row[0] != "u3" or row[1] > MIDDLE_MS]
    assert 0 < len(expected) < len(list_rows(before))
    assert list_rows(actual) == expected
    assert {"u3"} < {user for user, _ in expected}


def test_weights_metadata_and_draw_weights_of_other_rows_stay() -> None:
    before = make_checkpoint()

    actual = erase_rows(before, make_erasures())

    assert hash_weights(actual.weights) == hash_weights(before.weights)
    assert actual.metadata == before.metadata
    buffers = [decode_buffer(checkpoint.replay_buffer, checkpoint.metadata) for checkpoint in (before, actual)]
    weights = [
        dict(zip(buffer.examples.example_id.tolist(), buffer.weight.tolist(), strict=True)) for buffer in buffers
    ]
    assert weights[1].items() < weights[0].items()


def test_a_checkpoint_without_covered_rows_is_not_rewritten() -> None:
    checkpoint = make_checkpoint()

    assert erase_rows(checkpoint, make_erasures("stranger")) is checkpoint
    assert erase_rows(checkpoint, make_erasures(ts_ms=START_MS - 1)) is checkpoint


def test_a_buffer_that_becomes_empty_is_no_buffer() -> None:
    erasures = Erasures(Erasure(event_id=f"e{n}", user_id=f"u{n}", ts_ms=ALL_MS) for n in range(7))

    actual = erase_rows(make_checkpoint(), erasures)

    assert (actual.replay_buffer, actual.pending_examples, actual.interactions) == (b"", b"", b"")


def test_every_checkpoint_of_the_folder_is_erased(tmp_path: Path) -> None:
    paths = [write_checkpoint(tmp_path, make_checkpoint(START_MS + n)) for n in range(3)]
    paths.append(write_checkpoint(tmp_path / "refused", make_checkpoint()))

    assert CheckpointEraser(bundles=tmp_path).erase(make_erasures(), True)

    assert all(map(is_free, paths))


def test_a_file_that_is_added_later_is_erased_too(tmp_path: Path) -> None:
    # given
    eraser = CheckpointEraser(bundles=tmp_path)
    assert eraser.erase(make_erasures(), True)
    # when a backup is restored
    path = write_checkpoint(tmp_path, make_checkpoint())
    assert not is_free(path)
    # then
    assert eraser.erase(make_erasures(), False)
    assert is_free(path)


def test_an_eraser_killed_at_any_moment_leaves_whole_files_and_the_next_completes(tmp_path: Path) -> None:
    # given
    paths = [write_checkpoint(tmp_path, make_checkpoint(START_MS + n)) for n in range(2)]
    eraser = CheckpointEraser(bundles=tmp_path)
    kill_points = 0
    # when
    for kill_point in each_kill_point(tmp_path, lambda: eraser.erase(make_erasures(), True)):
        kill_points = kill_point
        # then every file is a whole checkpoint
        assert all(len(list_rows(read_checkpoint(path))) > 100 for path in paths)
    # then
    assert kill_points > 5
    assert all(map(is_free, paths))
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.suffix != ".pt"]


def test_an_unfinished_file_of_a_crashed_process_is_deleted(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make_checkpoint())
    unfinished = path.with_name(f".{path.stem}.123")
    unfinished.write_bytes(path.read_bytes()[:1000])

    assert CheckpointEraser(bundles=tmp_path).erase(make_erasures(), True)

    assert not unfinished.exists()


def test_an_unreadable_file_is_named_and_prevents_completion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # given
    path = write_checkpoint(tmp_path, make_checkpoint())
    broken = path.with_name("broken.pt")
    broken.write_bytes(path.read_bytes()[:-1000])
    eraser = CheckpointEraser(bundles=tmp_path)
    # when
    assert not eraser.erase(make_erasures(), True)
    # then the others are erased
    assert is_free(path)
    assert "broken.pt should be a checkpoint" in caplog.text
    # and with the file deleted it is complete
    broken.unlink()
    assert eraser.erase(make_erasures(), False)


def test_a_disk_that_cannot_be_synchronised_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, make_checkpoint())

    def fail(folder: Path) -> None:
        raise OSError("disk error")

    monkeypatch.setattr("training.erasure.checkpoints.fsync_folder", fail)

    with pytest.raises(BadBundle, match="should be written to the disk"):
        CheckpointEraser(bundles=tmp_path).erase(make_erasures(), True)
