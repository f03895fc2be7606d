"""A folder that cannot be written to is a mistake of the settings, found before the work."""

from pathlib import Path

import pytest

from contract.errors import BadConfig
from contract.folders import check_writable
from contract.object_folder import open_folder


def test_a_folder_that_does_not_exist_yet_is_no_mistake_and_nothing_is_created(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b", "bundles")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    check_writable(tmp_path, "bundles")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_of_an_object_store_is_left_as_it_was() -> None:
    store = open_folder("memory://writable/bundles")
    check_writable(store, "bundles")
    assert not store.exists()


def test_a_folder_that_cannot_be_written_to_is_refused_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match="`bundles` should be a folder that this process may write to"):
        check_writable(tmp_path / "file" / "bundles", "bundles")
