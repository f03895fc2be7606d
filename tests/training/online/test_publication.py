"""What a learner leaves that is killed, or whose disk is full, at any moment."""

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
    """A learner starts, and learns until there is nothing more."""
    publication.clean_up(bundles)
    more = True
    while more:
        _, more = follow.run_update(InMemoryFeed(values), bundles, SETTINGS, SMALL_BATCH_CONFIG)


def list_files(bundles: Path) -> list[str]:
    """What lies in the folders of bundles and checkpoints."""
    return sorted(path.name for folder in (bundles, bundles / "checkpoints") for path in folder.iterdir())


def test_a_learner_killed_at_any_moment_leaves_whole_bundles_and_the_next_learns_each_example_once(
    bundles: Path,
) -> None:
    # Given a learner that is killed before each of its touches of a file, and starts anew
    met = 0
    for at in each_kill_point(bundles, lambda: run_learner(bundles)):
        met = at
        # Then what serves is whole, and stands behind as many examples as were read for it
        read_bundle(bundles, current_version(bundles) or "")
        checkpoint = read_serving(bundles)
        assert count_learned(checkpoint) == checkpoint.metadata.positions.get("f/0", 0)

    # And the last life, which came to its end, has learned all of them once and left nothing half done
    checkpoint = read_serving(bundles)
    assert met > 20
    assert count_learned(checkpoint) == len(VALUES)
    assert not [name for name in list_files(bundles) if name.startswith(".") or name == publication.MARKER]
    assert {path.stem for path in (bundles / "checkpoints").iterdir()} == {
        p.parent.name for p in bundles.glob("*/READY")
    }


def test_a_first_death_at_any_moment_is_made_good_by_the_next_life(bundles: Path, tmp_path: Path) -> None:
    run_learner(clean := begin_learner(tmp_path / "clean"), FIRST_VALUES)

    # Given lives that each die once, each in a folder of its own
    folders = (begin_learner(tmp_path / f"{n}") for n in range(1_000))
    at, died = 0, True
    while died:
        at, folder = at + 1, next(folders)
        died = is_killed_before(at, folder, partial(run_learner, folder, FIRST_VALUES))
        run_learner(folder, FIRST_VALUES)

        # Then the next life comes to where an undisturbed one does
        assert list_files(folder) == list_files(clean)
        assert count_learned(read_serving(folder)) == len(FIRST_VALUES)
    assert at > 20


@pytest.mark.parametrize("at", range(12))
def test_a_disk_that_fills_up_at_any_write_leaves_the_former_bundle_and_no_checkpoint(
    bundles: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    before, version = list_files(bundles), current_version(bundles)
    writes, sync = iter(range(1_000)), os.fsync

    def fsync(handle: int) -> None:
        if next(writes) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with suppress(
            BadBundle
        ):  # where the pointer is replaced already, a disk that cannot promise to keep it is borne
            follow.run_update(InMemoryFeed(VALUES), bundles, SETTINGS, SMALL_BATCH_CONFIG)

    if current_version(bundles) == version:
        assert list_files(bundles) == before
    run_learner(bundles)
    assert count_learned(read_serving(bundles)) == len(VALUES)
