from pathlib import Path

import pytest

from contract.errors import BadData
from training.data import parquet
from training.report.pages import find_output_errors, write_pages


def test_a_full_disk_raises_bad_data_and_leaves_the_former_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a report, and a disk with room for half of the next one
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_text("former")

    def write_half(path: Path, content: bytes) -> None:
        path.write_bytes(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    # when pages are written
    monkeypatch.setattr(parquet, "write_durably", write_half)
    with pytest.raises(BadData, match=r"should be a folder that reports can be written to.*No space"):
        write_pages(tmp_path / "out", {"evaluation.json": b"new", "evaluation.md": b"new"})

    # then the former report is there, without partial files
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["evaluation.json"]
    assert (tmp_path / "out" / "evaluation.json").read_text() == "former"


def test_a_file_in_place_of_the_output_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    assert len(find_output_errors(tmp_path / "out")) == 1
    assert find_output_errors(tmp_path) == find_output_errors(tmp_path / "new") == []
