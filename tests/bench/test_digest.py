"""The digest of a figure's inputs changes with them, and refuses inputs that do not exist."""

from pathlib import Path

import pytest

from bench.results.digest import digest_inputs, list_sources


def test_a_digest_changes_with_the_data_and_the_libraries(tmp_path: Path) -> None:
    # given
    data = tmp_path / "data.csv"
    data.write_text("1")
    first = digest_inputs(["bench/results"], libraries=["numpy"], files=[data])

    # when
    other_library = digest_inputs(["bench/results"], libraries=["msgspec"], files=[data])
    data.write_text("2")
    other_data = digest_inputs(["bench/results"], libraries=["numpy"], files=[data])

    # then
    assert len({first, other_library, other_data}) == 3


def test_a_folder_stands_for_its_python_files_in_order(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "notes.md"):
        (tmp_path / name).touch()

    assert [path.name for path in list_sources(tmp_path)] == ["a.py", "b.py"]


@pytest.mark.parametrize("path", ["bench/no_such_module.py", "docs"])
def test_a_missing_path_or_a_folder_without_code_is_an_error(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=path):
        digest_inputs([path])
