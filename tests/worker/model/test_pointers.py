"""The pointers of an object store are read by a thread, so that no batch waits for the store."""

import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from contract.bundle import current_version, set_current
from contract.bundle_mirror import push
from contract.errors import BadBundle
from contract.experiment import Trial, set_trial
from contract.object_folder import Folder, ObjectFolder, open_folder
from testkit.environment.tiny_bundle import publish_tiny
from tests.polling import wait_until
from tests.worker.events import FEATURES
from worker.model import pointers
from worker.model.bundle_watcher import BundleWatcher
from worker.model.pointers import Pointers


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Folder]:
    yield open_folder(f"memory://{tmp_path.name}/bundles")
    fsspec.filesystem("memory").store.clear()


def test_the_bundle_of_a_store_is_loaded_and_a_later_one_activated(
    tmp_path: Path, store: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointers, "POLL_S", 0.0)
    publish_tiny(tmp_path, "v1")
    push(tmp_path, store)
    watcher = BundleWatcher(folder=store, features=FEATURES)

    first = watcher.poll(wait=True)
    publish_tiny(tmp_path, "v2")
    push(tmp_path, store)
    wait_until(lambda: watcher.poll() is not None)

    assert first is not None
    assert first.serving is not None
    assert (first.serving.version, watcher.serving.version if watcher.serving else "") == ("v1", "v2")
    watcher.close()


def test_a_batch_does_not_wait_for_a_store_that_hangs(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, asked = threading.Event(), threading.Event()
    set_current(store, "v1")
    values = Pointers(store)
    assert values.read_version(wait=True) == "v1"

    def hang(folder: Folder) -> str | None:
        asked.set()
        answers.wait(30)
        return current_version(folder)

    monkeypatch.setattr(pointers, "current_version", hang)
    set_current(store, "v2")

    assert values.read_version(wait=False) == "v1"
    assert asked.wait(30)
    assert values.read_version(wait=False) == "v1"
    answers.set()
    wait_until(lambda: values.read_version(wait=False) == "v2")
    values.close()


def test_a_store_is_asked_no_more_often_than_its_interval(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = list[str]()

    def read(self: ObjectFolder) -> bytes:
        reads.append(self.name)
        return b'{"version": "v1"}'

    monkeypatch.setattr(ObjectFolder, "read_bytes", read)
    values = Pointers(store)

    for _ in range(50):
        values.read_version(wait=False)
    values.close()

    assert reads.count("current.json") <= 1


def test_the_trial_and_its_broken_pointer_come_from_the_store(store: Folder) -> None:
    set_current(store, "v1")
    set_trial(store, Trial(version="v2", share=0.25))
    values = Pointers(store)
    values.read_version(wait=True)
    trial = values.read_trial()

    (store / "trial.json").write_bytes(b"{")
    values.read_version(wait=True)

    assert trial == Trial(version="v2", share=0.25)
    with pytest.raises(BadBundle, match=r"trial\.json"):
        values.read_trial()
    values.close()
