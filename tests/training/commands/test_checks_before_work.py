"""What would end a command after hours is found before its work: a sentence, and the status of wrong arguments."""

from pathlib import Path
from unittest.mock import patch

import pytest

from export.__main__ import main as export_main
from training.__main__ import main
from training.erasure.arguments import OPTION

REFUSED = "should be a folder that this process may write to"


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A path that no user can make a folder of."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "bundles"


@pytest.mark.parametrize("option", ["--bundles", "--resume", "--log"])
def test_fit_refuses_a_place_that_it_cannot_write_before_it_reads_any_example(
    option: str, blocked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = [] if option == "--bundles" else ["--bundles", str(tmp_path)]
    path = blocked if option == "--bundles" else blocked / "file"
    with patch("training.commands.fit.read_erasures") as reads:
        assert main(["fit", OPTION, "none.parquet", *bundles, option, str(path)]) == 2
    assert REFUSED in capsys.readouterr().err
    assert not reads.called


def test_fit_refuses_files_that_it_cannot_read_before_it_asks_for_erasures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch("training.commands.fit.read_erasures") as reads:
        assert main(["fit", str(tmp_path / "none.parquet"), "--bundles", str(tmp_path)]) == 1
    assert "none.parquet should be Parquet" in capsys.readouterr().err
    assert not reads.called


@pytest.mark.parametrize("command", ["evaluate", "describe", "affinity", "search"])
def test_a_file_that_cannot_be_read_is_said_before_kafka_is_asked(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch("training.erasure.arguments.fetch_erasures") as asks:
        assert main([command, str(tmp_path / "none.parquet"), "--out", str(tmp_path / "out")]) == 1
    assert "none.parquet should be Parquet" in capsys.readouterr().err
    assert not asks.called


def test_replay_refuses_files_and_places_before_it_asks_for_erasures(
    blocked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch("training.erasure.arguments.fetch_erasures") as asks:
        assert main(["replay", str(tmp_path / "none"), "--out", str(tmp_path / "examples.parquet")]) == 1
        assert main(["replay", __file__, "--out", str(blocked / "examples.parquet")]) == 2
        assert main(["describe", __file__, "--out", str(tmp_path), "--write", str(blocked / "features.toml")]) == 2
    printed = capsys.readouterr().err
    assert "none should be a history or a file of events" in printed
    assert printed.count(REFUSED) == 2
    assert not asks.called


@pytest.mark.parametrize("words", [["rollback"], ["serve", "v1"], ["trial", "v1"], ["trial", "--end"]])
def test_export_refuses_a_folder_that_it_cannot_write(
    words: list[str], blocked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_main([*words, "--bundles", str(blocked)]) == 2
    assert REFUSED in capsys.readouterr().err


def test_a_command_of_export_that_does_not_exist_is_refused_with_all_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_main(["roll-back", "--bundles", str(tmp_path)]) == 2
    assert "inspect, verify, rollback, serve, trial. Found roll-back; the nearest is `rollback`." in (
        capsys.readouterr().err
    )


def test_an_error_of_the_file_system_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with patch("export.releases.locate_bundle", side_effect=PermissionError(13, "Permission denied", "current.json")):
        assert export_main(["inspect", "--bundles", str(tmp_path)]) == 2
    assert "Found: [Errno 13] Permission denied: 'current.json'." in capsys.readouterr().err
