"""Bundles: whole or not there, vouched for byte by byte, and pointed to at once."""

import json
import os
from pathlib import Path
from typing import Final

import msgspec
import pytest

from contract import bundle
from contract.bundle import Manifest, current_version, point_to, publish, read_bundle
from contract.errors import BadBundle
from contract.tasks import Task

FILES: Final = {"decide.onnx": b"a graph", "golden.npz": b"golden", "empty.npz": b""}


def manifest(version: str = "v1", parent: str | None = None) -> Manifest:
    task = Task(name="fraud", kind="binary", groups=("user", "order"), graph="decide")
    return Manifest(
        version=version, parent=parent, created_ms=1, features={"amount": "abc"}, tasks=(task,), positions={"f/0": 3}
    )


def test_what_was_published_is_what_is_read(tmp_path: Path) -> None:
    # when
    written = publish(tmp_path, manifest(), FILES)
    # then
    found = read_bundle(tmp_path, "v1")
    assert (found.version, found.files, found.manifest) == ("v1", FILES, written)
    assert msgspec.structs.replace(found.manifest, files={}) == manifest()


def test_publishing_points_to_the_new_version_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    # when
    publish(tmp_path, manifest("v1"), FILES)
    publish(tmp_path, manifest("v2", parent="v1"), FILES)
    # then
    assert current_version(tmp_path) == "v2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.json", "v1", "v2"]


def test_pointing_back_is_a_rollback(tmp_path: Path) -> None:
    # given
    publish(tmp_path, manifest("v1"), FILES)
    publish(tmp_path, manifest("v2"), FILES)
    # when
    point_to(tmp_path, "v1")
    # then
    assert current_version(tmp_path) == "v1"


def test_a_version_is_published_once(tmp_path: Path) -> None:
    # given
    publish(tmp_path, manifest(), FILES)
    # then
    with pytest.raises(BadBundle, match="already there"):
        publish(tmp_path, manifest(), {"decide.onnx": b"another"})
    assert read_bundle(tmp_path, "v1").files == FILES


def test_a_publisher_that_dies_leaves_neither_a_version_nor_a_pointer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that is full at the last file
    def full(path: Path, content: bytes) -> None:
        if path.name == "READY":
            raise OSError("No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(bundle, "write_durably", full)
    # when
    with pytest.raises(OSError, match="No space"):
        publish(tmp_path, manifest(), FILES)
    # then
    assert current_version(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_pointer_is_replaced_at_once(tmp_path: Path) -> None:
    # given a reader that has opened the old pointer
    publish(tmp_path, manifest("v1"), FILES)
    with (tmp_path / "current.json").open("rb") as reader:
        # when
        publish(tmp_path, manifest("v2"), FILES)
        # then it still reads all of the old one, since the new one is another file
        assert json.loads(reader.read()) == {"version": "v1"}
        assert os.fstat(reader.fileno()).st_ino != (tmp_path / "current.json").stat().st_ino


def test_there_is_no_version_before_the_first_bundle(tmp_path: Path) -> None:
    assert current_version(tmp_path) is None
    assert current_version(tmp_path / "nowhere") is None


@pytest.mark.parametrize("pointer", [b"", b"{", b"[]", b"{}", b"3", b"\xff\xfe"])
def test_a_broken_pointer_is_a_bad_bundle(tmp_path: Path, pointer: bytes) -> None:
    (tmp_path / "current.json").write_bytes(pointer)
    with pytest.raises(BadBundle, match="should name a version"):
        current_version(tmp_path)


@pytest.mark.parametrize("name", ["decide.onnx", "golden.npz"])
@pytest.mark.parametrize("place", [0, -1])
def test_one_other_byte_in_a_file_is_noticed(tmp_path: Path, name: str, place: int) -> None:
    # given
    publish(tmp_path, manifest(), FILES)
    path = tmp_path / "v1" / name
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    # then
    with pytest.raises(BadBundle, match=f"{name} should have the digest"):
        read_bundle(tmp_path, "v1")


def test_a_file_cut_short_or_gone_is_noticed(tmp_path: Path) -> None:
    # given
    publish(tmp_path, manifest(), FILES)
    path = tmp_path / "v1" / "decide.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    # then
    with pytest.raises(BadBundle, match="digest"):
        read_bundle(tmp_path, "v1")
    path.unlink()
    with pytest.raises(BadBundle, match="should be readable"):
        read_bundle(tmp_path, "v1")


def test_a_bundle_without_ready_is_not_there_yet(tmp_path: Path) -> None:
    # given
    publish(tmp_path, manifest(), FILES)
    (tmp_path / "v1" / "READY").unlink()
    # then
    with pytest.raises(BadBundle, match="no READY"):
        read_bundle(tmp_path, "v1")


def test_a_link_is_refused_even_to_the_right_bytes(tmp_path: Path) -> None:
    # given
    publish(tmp_path, manifest(), FILES)
    path = tmp_path / "v1" / "decide.onnx"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    # then
    with pytest.raises(BadBundle, match="lie in its own folder"):
        read_bundle(tmp_path, "v1")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "..", ""])
def test_a_file_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    # given
    publish(tmp_path, manifest(), FILES)
    changed = msgspec.structs.replace(manifest(), files={name: "0" * 64})
    (tmp_path / "v1" / "manifest.json").write_bytes(msgspec.json.encode(changed))
    # then
    with pytest.raises(BadBundle):
        read_bundle(tmp_path, "v1")


def test_a_larger_file_than_agreed_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    publish(tmp_path, manifest(), FILES)
    monkeypatch.setattr(bundle, "FILE_BYTES_MAX", len(FILES["decide.onnx"]) - 1)
    # then
    with pytest.raises(BadBundle, match="at most"):
        read_bundle(tmp_path, "v1")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", msgspec.json.encode(manifest("v2"))])
def test_a_manifest_that_is_broken_or_of_another_version_is_refused(tmp_path: Path, content: bytes) -> None:
    # given
    publish(tmp_path, manifest(), FILES)
    (tmp_path / "v1" / "manifest.json").write_bytes(content)
    # then
    with pytest.raises(BadBundle):
        read_bundle(tmp_path, "v1")


@pytest.mark.parametrize("version", ["v9", "../v1", ""])
def test_a_version_that_is_not_there_is_refused(tmp_path: Path, version: str) -> None:
    publish(tmp_path / "bundles", manifest(), FILES)
    with pytest.raises(BadBundle):
        read_bundle(tmp_path / "bundles", version)
