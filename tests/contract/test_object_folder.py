"""Bundles in an object store: complete or not there, found by pointers, and kept like those of the learner's folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from contract import object_folder
from contract.bundle import current_version, publish, read_bundle, read_manifest, remove_bundle, set_current
from contract.bundle_mirror import push, synchronize
from contract.errors import BadBundle, BadConfig
from contract.experiment import Trial, end_trial, read_trial, set_trial
from contract.object_folder import Folder, ObjectFolder, open_folder
from export.__main__ import main as export_main
from export.releases import locate_bundle, rollback, serve
from tests.contract.test_bundle import FILES, make_manifest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectFolder]:
    folder = open_folder(f"memory://{tmp_path.name}/bundles")
    assert isinstance(folder, ObjectFolder)
    yield folder
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=["folder", "object store"])
def bundles(request: pytest.FixtureRequest, tmp_path: Path, store: ObjectFolder) -> Folder:
    return store if request.param == "object store" else tmp_path


def test_a_published_bundle_is_read_back_and_serves(bundles: Folder) -> None:
    written = publish(bundles, make_manifest("v1"), FILES)

    bundle = read_bundle(bundles, "v1")

    assert (current_version(bundles), bundle.files, bundle.manifest) == ("v1", FILES, written)
    with pytest.raises(BadBundle, match="published once"):
        publish(bundles, make_manifest("v1"), FILES)


def test_pointers_move_back_and_trials_start_and_end(bundles: Folder) -> None:
    publish(bundles, make_manifest("v1"), FILES)
    publish(bundles, make_manifest("v2", parent="v1"), FILES)

    assert rollback(bundles) == "v1"
    assert serve(bundles, "v2") == "v1"
    set_trial(bundles, Trial(version="v1", share=0.5))
    assert read_trial(bundles) == Trial(version="v1", share=0.5)
    assert end_trial(bundles) == Trial(version="v1", share=0.5)
    assert read_trial(bundles) is None


def test_no_bundle_and_a_changed_byte_are_told_apart(bundles: Folder) -> None:
    assert current_version(bundles) is None
    publish(bundles, make_manifest("v1"), FILES)
    (bundles / "v1" / "decide.onnx").write_bytes(b"another graph")

    with pytest.raises(BadBundle, match=r"decide\.onnx should have the digest"):
        read_bundle(bundles, "v1")
    with pytest.raises(BadBundle, match="no such folder"):
        read_manifest(bundles, "v2")


def test_a_bundle_appears_in_a_store_with_its_last_object(store: ObjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    written, complete = list[str](), list[bool]()
    write = ObjectFolder.write_bytes

    def observe(self: ObjectFolder, content: bytes) -> None:
        complete.append((store / "v1" / "READY").exists())
        written.append(self.name)
        write(self, content)

    monkeypatch.setattr(ObjectFolder, "write_bytes", observe)
    publish(store, make_manifest("v1"), FILES)

    assert written == [*FILES, "manifest.json", "READY", "current.json"]
    assert complete == [False] * (len(written) - 1) + [True]


def test_an_interrupted_upload_is_no_bundle_and_is_written_again(store: ObjectFolder) -> None:
    (store / "v1" / "decide.onnx").write_bytes(b"half")

    with pytest.raises(BadBundle, match="no READY"):
        read_bundle(store, "v1")
    publish(store, make_manifest("v1"), FILES)

    assert read_bundle(store, "v1").files == FILES


@pytest.mark.parametrize("failing", ["golden.npz", "READY", "current.json"])
def test_a_store_that_fails_leaves_the_former_bundle_serving(
    store: ObjectFolder, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, make_manifest("v1"), FILES)
    write = ObjectFolder.write_bytes

    def fail(self: ObjectFolder, content: bytes) -> None:
        if self.name == failing:
            raise OSError("the store does not answer")
        write(self, content)

    monkeypatch.setattr(ObjectFolder, "write_bytes", fail)

    with pytest.raises(BadBundle, match="does not answer"):
        publish(store, make_manifest("v2", parent="v1"), FILES)
    assert current_version(store) == "v1"
    assert not (store / "v2" / "READY").exists()


def test_errors_of_any_client_become_bad_bundles(store: ObjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    class ClientError(Exception):
        pass

    def fail(*_: Any) -> bytes:
        raise ClientError("access denied")

    broken = ObjectFolder(type("Client", (), {"cat_file": fail, "exists": fail})(), "b", "s3://b")

    with pytest.raises(BadBundle, match="access denied"):
        current_version(broken)
    with pytest.raises(BadBundle, match="access denied"):
        read_manifest(broken, "v1")


def test_a_removed_bundle_is_gone_unless_it_serves(bundles: Folder) -> None:
    publish(bundles, make_manifest("v1"), FILES)
    publish(bundles, make_manifest("v2"), FILES, make_current=False)

    remove_bundle(bundles, "v1")
    remove_bundle(bundles, "v2")

    assert read_bundle(bundles, "v1").version == "v1"
    assert not (bundles / "v2").exists()


def test_a_url_names_a_bundle(store: ObjectFolder) -> None:
    publish(store, make_manifest("v1"), FILES)

    assert locate_bundle(Path("bundles"), f"{store}/v1") == (store, "v1")


def test_a_store_without_an_installed_client_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadConfig) as caught:
        open_folder("unheard-of://bucket/bundles")

    assert "should be installed" in caught.value.errors[0]
    assert isinstance(object_folder.open_folder("bundles"), Path)


def test_the_mirror_uploads_what_the_store_lacks_and_adopts_its_pointer(tmp_path: Path, store: ObjectFolder) -> None:
    publish(tmp_path, make_manifest("v1"), FILES)
    synchronize(tmp_path, store)
    assert read_bundle(store, "v1").files == FILES
    publish(tmp_path, make_manifest("v2", parent="v1"), FILES)
    push(tmp_path, store)
    assert current_version(store) == "v2"

    rollback(store)
    synchronize(tmp_path, store)

    assert current_version(tmp_path) == current_version(store) == "v1"


def test_a_crash_between_publication_and_upload_loses_nothing(tmp_path: Path, store: ObjectFolder) -> None:
    publish(tmp_path, make_manifest("v1"), FILES)
    push(tmp_path, store)
    publish(tmp_path, make_manifest("v2", parent="v1"), FILES)

    synchronize(tmp_path, store)

    assert current_version(tmp_path) == current_version(store) == "v2"


def test_a_bundle_published_elsewhere_is_downloaded(tmp_path: Path, store: ObjectFolder) -> None:
    publish(store, make_manifest("v1"), FILES)

    synchronize(tmp_path, store)

    assert (current_version(tmp_path), read_bundle(tmp_path, "v1").files) == ("v1", FILES)


def test_export_rolls_back_in_the_store(store: ObjectFolder, capsys: pytest.CaptureFixture[str]) -> None:
    publish(store, make_manifest("v1"), FILES)
    publish(store, make_manifest("v2", parent="v1"), FILES)

    statuses = [
        export_main(["rollback", "--bundles", str(store)]),
        export_main(["serve", "v2", "--bundles", str(store)]),
    ]

    assert statuses == [0, 0]
    assert current_version(store) == "v2"
    set_current(store, "v1")
    assert "Rolled back to v1" in capsys.readouterr().out
