"""Bundles: published atomically, checked by digests, and made current atomically."""

import errno
import json
import os
import resource
from pathlib import Path
from typing import Final

import msgspec
import pytest

from contract import bundle
from contract.bundle import Manifest, current_version, publish, read_bundle, set_current
from contract.errors import BadBundle
from contract.tasks import Task

FILES: Final = {"decide.onnx": b"a graph", "golden.npz": b"golden", "empty.npz": b""}


def make_manifest(version: str = "v1", parent: str | None = None) -> Manifest:
    task = Task(name="fraud", kind="binary", groups=("user", "order"), graph="decide")
    return Manifest(
        version=version, parent=parent, created_ms=1, features={"amount": "abc"}, tasks=(task,), positions={"f/0": 3}
    )


def test_a_published_bundle_is_read_back(tmp_path: Path) -> None:
    # when
    written = publish(tmp_path, make_manifest(), FILES)
    # then
    actual = read_bundle(tmp_path, "v1")
    assert (actual.version, actual.files, actual.manifest) == ("v1", FILES, written)
    assert msgspec.structs.replace(actual.manifest, files={}) == make_manifest()


def test_publishing_makes_the_version_current_and_leaves_no_other_files(tmp_path: Path) -> None:
    # when
    publish(tmp_path, make_manifest("v1"), FILES)
    publish(tmp_path, make_manifest("v2", parent="v1"), FILES)
    # then
    assert current_version(tmp_path) == "v2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.json", "v1", "v2"]


def test_an_earlier_version_can_be_made_current(tmp_path: Path) -> None:
    # given
    publish(tmp_path, make_manifest("v1"), FILES)
    publish(tmp_path, make_manifest("v2"), FILES)
    # when
    set_current(tmp_path, "v1")
    # then
    assert current_version(tmp_path) == "v1"


def test_a_version_is_published_only_once(tmp_path: Path) -> None:
    # given
    publish(tmp_path, make_manifest(), FILES)
    # then
    with pytest.raises(BadBundle, match="already there"):
        publish(tmp_path, make_manifest(), {"decide.onnx": b"another"})
    assert read_bundle(tmp_path, "v1").files == FILES


SYNCS: Final = len(FILES) + 4  # each file, the manifest, READY, the folder, the pointer


def fail_fsync_from(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """The disk is full from the `first`-th fsync on, after the content was written."""
    count, sync = iter(range(1_000)), os.fsync

    def fsync(handle: int) -> None:
        if next(count) >= first:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("failing_sync", range(SYNCS))
def test_a_disk_full_at_any_write_leaves_only_the_previous_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_sync: int
) -> None:
    # given
    publish(tmp_path, make_manifest("v1"), FILES)
    with monkeypatch.context() as full:
        fail_fsync_from(full, failing_sync)
        # when
        with pytest.raises(BadBundle, match=r"v2 should be .*Found: .*No space left on device"):
            publish(tmp_path, make_manifest("v2"), FILES)
    # then
    assert current_version(tmp_path) == "v1"
    assert read_bundle(tmp_path, "v1").files == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.json", "v1"]


def test_a_failed_fsync_after_the_pointer_was_replaced_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    publish(tmp_path, make_manifest("v1"), FILES)
    fail_fsync_from(monkeypatch, SYNCS)
    # when
    publish(tmp_path, make_manifest("v2"), FILES)
    # then
    assert current_version(tmp_path) == "v2"


def test_publishing_can_be_retried_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    with monkeypatch.context() as full:
        fail_fsync_from(full, SYNCS - 1)
        with pytest.raises(BadBundle, match="No space"):
            publish(tmp_path, make_manifest(), FILES)
    # when
    publish(tmp_path, make_manifest(), FILES)
    # then
    assert read_bundle(tmp_path, "v1").files == FILES


def test_a_partially_written_file_leaves_nothing(tmp_path: Path) -> None:
    # given a size limit below that of one file
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, limits[1]))
    # when
    try:
        with pytest.raises(BadBundle, match=r"Bundle v1 should be written whole. Found: .*File too large"):
            publish(tmp_path, make_manifest(), {"decide.onnx": b"x" * 6_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # then
    assert list(tmp_path.iterdir()) == []


def test_a_stale_staging_folder_is_removed(tmp_path: Path) -> None:
    # given the staging folder of a killed publisher with the same pid
    staging = tmp_path / f".v1.{os.getpid()}"
    staging.mkdir()
    (staging / "old.onnx").write_bytes(b"half")
    # when
    publish(tmp_path, make_manifest(), FILES)
    # then
    assert sorted(path.name for path in (tmp_path / "v1").iterdir()) == sorted([*FILES, "READY", "manifest.json"])
    assert not staging.exists()


def test_a_full_disk_leaves_the_old_pointer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    publish(tmp_path, make_manifest("v1"), FILES)
    publish(tmp_path, make_manifest("v2"), FILES)
    # when
    with monkeypatch.context() as full:
        fail_fsync_from(full, 0)
        with pytest.raises(BadBundle, match=r"current\.json should be written whole. Found: .*No space"):
            set_current(tmp_path, "v1")
    # then
    assert current_version(tmp_path) == "v2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.json", "v1", "v2"]


def test_the_pointer_is_replaced_atomically(tmp_path: Path) -> None:
    # given a reader that has opened the old pointer
    publish(tmp_path, make_manifest("v1"), FILES)
    with (tmp_path / "current.json").open("rb") as reader:
        # when
        publish(tmp_path, make_manifest("v2"), FILES)
        # then it still reads the complete old one, since the new one is another file
        assert json.loads(reader.read()) == {"version": "v1"}
        assert os.fstat(reader.fileno()).st_ino != (tmp_path / "current.json").stat().st_ino


def test_there_is_no_current_version_before_the_first_bundle(tmp_path: Path) -> None:
    assert current_version(tmp_path) is None
    assert current_version(tmp_path / "nowhere") is None


@pytest.mark.parametrize("pointer", [b"", b"{", b"[]", b"{}", b"3", b"\xff\xfe"])
def test_a_broken_pointer_is_refused(tmp_path: Path, pointer: bytes) -> None:
    (tmp_path / "current.json").write_bytes(pointer)
    with pytest.raises(BadBundle, match="should name a version"):
        current_version(tmp_path)


@pytest.mark.parametrize("name", ["decide.onnx", "golden.npz"])
@pytest.mark.parametrize("index", [0, -1])
def test_a_changed_byte_in_a_file_is_refused(tmp_path: Path, name: str, index: int) -> None:
    # given
    publish(tmp_path, make_manifest(), FILES)
    path = tmp_path / "v1" / name
    content = bytearray(path.read_bytes())
    content[index] ^= 1
    path.write_bytes(content)
    # then
    with pytest.raises(BadBundle, match=f"{name} should have the digest"):
        read_bundle(tmp_path, "v1")


def test_a_truncated_or_missing_file_is_refused(tmp_path: Path) -> None:
    # given
    publish(tmp_path, make_manifest(), FILES)
    path = tmp_path / "v1" / "decide.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    # then
    with pytest.raises(BadBundle, match="digest"):
        read_bundle(tmp_path, "v1")
    path.unlink()
    with pytest.raises(BadBundle, match="should be readable"):
        read_bundle(tmp_path, "v1")


def test_a_bundle_without_ready_is_incomplete(tmp_path: Path) -> None:
    # given
    publish(tmp_path, make_manifest(), FILES)
    (tmp_path / "v1" / "READY").unlink()
    # then
    with pytest.raises(BadBundle, match="no READY"):
        read_bundle(tmp_path, "v1")


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    # given
    publish(tmp_path, make_manifest(), FILES)
    path = tmp_path / "v1" / "decide.onnx"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    # then
    with pytest.raises(BadBundle, match="lie in its own folder"):
        read_bundle(tmp_path, "v1")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "..", ""])
def test_a_file_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    # given
    publish(tmp_path, make_manifest(), FILES)
    changed = msgspec.structs.replace(make_manifest(), files={name: "0" * 64})
    (tmp_path / "v1" / "manifest.json").write_bytes(msgspec.json.encode(changed))
    # then
    with pytest.raises(BadBundle):
        read_bundle(tmp_path, "v1")


def test_a_file_above_the_size_limit_is_refused_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    publish(tmp_path, make_manifest(), FILES)
    monkeypatch.setattr(bundle, "FILE_BYTES_MAX", len(FILES["decide.onnx"]) - 1)
    # then
    with pytest.raises(BadBundle, match="at most"):
        read_bundle(tmp_path, "v1")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", msgspec.json.encode(make_manifest("v2"))])
def test_a_broken_manifest_or_one_of_another_version_is_refused(tmp_path: Path, content: bytes) -> None:
    # given
    publish(tmp_path, make_manifest(), FILES)
    (tmp_path / "v1" / "manifest.json").write_bytes(content)
    # then
    with pytest.raises(BadBundle):
        read_bundle(tmp_path, "v1")


@pytest.mark.parametrize("version", ["v9", "../v1", ""])
def test_a_missing_version_is_refused(tmp_path: Path, version: str) -> None:
    publish(tmp_path / "bundles", make_manifest(), FILES)
    with pytest.raises(BadBundle):
        read_bundle(tmp_path / "bundles", version)
