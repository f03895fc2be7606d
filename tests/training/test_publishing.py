import errno
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from contract.bundle import Manifest, current_version, publish, read_bundle
from contract.errors import BadBundle
from contract.settings import Settings
from export.bundling import Exported
from model.checkpoint import Checkpoint, describe, path_of, read_checkpoint, write_checkpoint
from tests.model.small import TASKS, make_network
from tests.training.made import PLAN
from tests.training.mortal import deaths, dies
from training import publishing
from training.commands import follow
from training.feed import Fed, Feed
from training.follow import Update

FILES = {"items.onnx": b"x" * 100, "golden.npz": b"y"}
LOG = [b"%d" % n for n in range(7)]
AT_ONCE = 4


def count(checkpoint: Checkpoint) -> int:
    """How many examples went into a checkpoint of `learned`, each as often as it did."""
    return int(checkpoint.weights["learned"])


def learned(checkpoint: Checkpoint, fed: Fed, plan: object) -> Update:
    """Learning that can be counted."""
    if not fed.values:
        return Update(0, {})
    made = checkpoint.about.created_ms + 1
    name = f"20260101-000000-{made:03d}-00000000"
    about = replace(
        checkpoint.about,
        version=name,
        parent=checkpoint.about.version,
        created_ms=made,
        positions=fed.positions,
    )
    weights = {"learned": torch.tensor(count(checkpoint) + len(fed.values))}
    return Update(len(fed.values), {}, checkpoint=Checkpoint(about=about, weights=weights))


def export(checkpoint: Checkpoint, bundles: Path, thresholds: object) -> Exported:
    """Publishing without graphs, which take seconds to make."""
    about = checkpoint.about
    manifest = Manifest(
        version=about.version,
        parent=about.parent,
        created_ms=about.created_ms,
        features={},
        tasks=(),
        positions=about.positions,
    )

    return Exported(publish(bundles, manifest, FILES), {})


class Log(Feed):
    """A topic of one partition."""

    def __init__(self) -> None:
        pass

    def read(self, positions: object, records_max: int) -> Fed:
        start = dict(positions).get("f/0", 0)  # type: ignore[call-overload]
        values = LOG[start : start + records_max]
        return Fed(values, {"f/0": start + len(values)}, more=start + len(values) < len(LOG))


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(publishing, "export", export)
    monkeypatch.setattr(follow, "update", learned)
    about = replace(
        describe(make_network(), parent=None, created_ms=1, evaluation={}, positions={}),
        version="20260101-000000-001-00000000",
    )
    begun(tmp_path / "bundles", Checkpoint(about=about, weights={"learned": torch.tensor(0)}))
    return tmp_path / "bundles"


def begun(bundles: Path, base: Checkpoint) -> None:
    write_checkpoint(bundles, base)
    export(base, bundles, {})


def life(bundles: Path) -> None:
    """A learner starts, and learns until there is nothing more."""
    plan, settings = replace(PLAN, records_max=AT_ONCE), Settings(tasks=TASKS)
    publishing.clear_away(bundles)
    more = True
    while more:
        _, more = follow.look(Log(), bundles, settings, plan)


def left(bundles: Path) -> list[str]:
    """What lies in the folders of bundles and checkpoints."""
    return sorted(path.name for folder in (bundles, bundles / "checkpoints") for path in folder.iterdir())


def test_a_learner_killed_at_any_moment_leaves_whole_bundles_and_the_next_learns_each_example_once(
    bundles: Path, tmp_path: Path
) -> None:
    # Given a learner that is killed before each of its touches of a file, and starts anew
    met = 0
    for at in deaths(bundles, lambda: life(bundles)):
        met = at
        # Then what serves is whole, and stands behind as many examples as were read for it
        version = current_version(bundles) or ""
        read_bundle(bundles, version)
        checkpoint = read_checkpoint(path_of(bundles, version))
        assert count(checkpoint) == checkpoint.about.positions.get("f/0", 0)

    # And the last life, which came to its end, has learned all of them once and left nothing half done
    checkpoint = read_checkpoint(path_of(bundles, current_version(bundles) or ""))
    assert met > 20
    assert count(checkpoint) == len(LOG)
    assert not [name for name in left(bundles) if name.startswith(".") or name == publishing.MARK]
    assert {path.stem for path in (bundles / "checkpoints").iterdir()} == {
        p.parent.name for p in bundles.glob("*/READY")
    }


def test_a_first_death_at_any_moment_is_made_good_by_the_next_life(bundles: Path, tmp_path: Path) -> None:
    base = read_checkpoint(path_of(bundles, current_version(bundles) or ""))
    life(clean := copy_of(base, tmp_path / "clean"))

    # Given lives that each die once, each in a folder of its own
    folders = (copy_of(base, tmp_path / f"{n}") for n in range(1_000))
    at, died = 0, True
    while died:
        at, folder = at + 1, next(folders)
        died = dies(at, folder, partial(life, folder))
        life(folder)

        # Then the next life comes to where an undisturbed one does
        assert left(folder) == left(clean)
        assert count(read_checkpoint(path_of(folder, current_version(folder) or ""))) == len(LOG)
    assert at > 40


def copy_of(base: Checkpoint, folder: Path) -> Path:
    begun(folder, base)
    return folder


@pytest.mark.parametrize("at", range(12))
def test_a_disk_that_fills_up_at_any_write_leaves_the_former_bundle_and_no_checkpoint(
    bundles: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    before, version = left(bundles), current_version(bundles)
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
            follow.look(Log(), bundles, Settings(tasks=TASKS), replace(PLAN, records_max=AT_ONCE))

    if current_version(bundles) == version:
        assert left(bundles) == before
    life(bundles)
    assert count(read_checkpoint(path_of(bundles, current_version(bundles) or ""))) == len(LOG)
