"""What a learner leaves behind that is killed, or runs out of disk space, at any moment."""

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from contract.bundle import current_version, read_bundle
from contract.errors import BadBundle
from tests.training.counting_learner import (
    SETTINGS,
    SMALL_BATCH_CONFIG,
    InMemoryFeed,
    begin_learner,
    count_learned,
    patch_learning,
    read_serving,
)
from tests.training.kill_points import each_kill_point, is_killed_before
from training.commands import follow
from training.online import publication

VALUES = [b"%d" % n for n in range(7)]  # two updates
FIRST_VALUES = VALUES[:3]  # one


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    patch_learning(monkeypatch)
    return begin_learner(tmp_path / "bundles")


def run_learner(bundles: Path, values: Sequence[bytes] = VALUES) -> None:
    """A learner starts, and learns until the feed is read."""
    publication.clean_up(bundles)
    more = True
    while more:
        _, more = follow.run_update(InMemoryFeed(values), bundles, SETTINGS, SMALL_BATCH_CONFIG)


def list_files(bundles: Path) -> list[str]:
    """The names in the folders of bundles and checkpoints."""
    return sorted(path.name for folder in (bundles, bundles / "checkpoints") for path in folder.iterdir())


def test_a_learner_killed_at_any_moment_learns_each_example_once(
    bundles: Path,
) -> None:
    # given a learner that is killed before each of its file operations, and restarted
    kill_points = 0
    for kill_point in each_kill_point(bundles, lambda: run_learner(bundles)):
        kill_points = kill_point
        # then the serving bundle is complete and has learned as many examples as it has read
        read_bundle(bundles, current_version(bundles) or "")
        checkpoint = read_serving(bundles)
        assert count_learned(checkpoint) == checkpoint.metadata.positions.get("f/0", 0)

    # and the last run, which was not killed, has learned each example once and left no temporary file
    checkpoint = read_serving(bundles)
    assert kill_points > 20
    assert count_learned(checkpoint) == len(VALUES)
    assert not [name for name in list_files(bundles) if name.startswith(".") or name == publication.MARKER]
    assert {path.stem for path in (bundles / "checkpoints").iterdir()} == {
        p.parent.name for p in bundles.glob("*/READY")
    }


def test_the_run_after_a_kill_at_any_moment_recovers_fully(bundles: Path, tmp_path: Path) -> None:
    run_learner(clean := begin_learner(tmp_path / "clean"), FIRST_VALUES)

    # given runs that are each killed once, each in a folder of its own
    folders = (begin_learner(tmp_path / f"{n}") for n in range(1_000))
    kill_point = 0
    is_killed = True
    while is_killed:
        kill_point += 1
        folder = next(folders)
        is_killed = is_killed_before(kill_point, folder, partial(run_learner, folder, FIRST_VALUES))
        run_learner(folder, FIRST_VALUES)

        # then the next run ends with the same files as an undisturbed one
        assert list_files(folder) == list_files(clean)
        assert count_learned(read_serving(folder)) == len(FIRST_VALUES)
    assert kill_point > 20


@pytest.mark.parametrize("failing_write", range(12))
def test_a_disk_full_at_any_write_leaves_the_former_bundle_unchanged(
    bundles: Path, monkeypatch: pytest.MonkeyPatch, failing_write: int
) -> None:
    before, version = list_files(bundles), current_version(bundles)
    writes, sync = iter(range(1_000)), os.fsync

    def fsync(handle: int) -> None:
        if next(writes) >= failing_write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with suppress(BadBundle):  # once the pointer is replaced, a failing sync is tolerated
            follow.run_update(InMemoryFeed(VALUES), bundles, SETTINGS, SMALL_BATCH_CONFIG)

    if current_version(bundles) == version:
        assert list_files(bundles) == before
    run_learner(bundles)
    assert count_learned(read_serving(bundles)) == len(VALUES)
