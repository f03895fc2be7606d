"""A folder that cannot be written to is a mistake of the settings, found before the work."""

from pathlib import Path

import pytest

from contract.errors import BadConfig
from contract.folders import check_writable


def test_a_folder_that_does_not_exist_is_created_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b", "bundles")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_refused_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match="`bundles` should be a folder that this process may write to"):
        check_writable(tmp_path / "file" / "bundles", "bundles")
