"""Trials from the command line: begun, widened, ended, and what proved itself put to serve."""

import shutil
from pathlib import Path

import pytest

from contract.bundle import current_version
from contract.experiment import Trial, read_trial
from export.__main__ import main
from export.exporter import ExportResult, export
from tests.export.conftest import make_checkpoint
from tests.model.small import make_network


@pytest.fixture
def two(bundles: Path, exported: ExportResult, tmp_path: Path) -> tuple[Path, str, str]:
    """A folder with a present bundle and one that was published beside it."""
    present = exported.manifest.version
    shutil.copytree(bundles / present, tmp_path / present)
    (tmp_path / "current.json").write_bytes((bundles / "current.json").read_bytes())
    beside = export(make_checkpoint(make_network(), created_ms=10**12 + 1), tmp_path, {}, as_candidate=True)
    return tmp_path, present, beside.manifest.version


def run_export(bundles: Path, *words: str) -> int:
    return main([*words, "--bundles", str(bundles)])


def test_a_bundle_published_beside_the_present_one_serves_nobody(two: tuple[Path, str, str]) -> None:
    bundles, present, beside = two

    assert current_version(bundles) == present
    assert (bundles / beside / "READY").exists()


def test_a_trial_begins_as_a_shadow_is_widened_and_ends(
    two: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    bundles, present, beside = two
    # when
    done = [run_export(bundles, "trial", beside)]
    shadow = read_trial(bundles)
    done.append(run_export(bundles, "trial", beside, "--share", "0.1"))
    canary = read_trial(bundles)
    done += [run_export(bundles, "trial", "--end"), run_export(bundles, "trial", "--end")]
    # then
    assert done == [0, 0, 0, 0]
    assert (shadow, canary) == (Trial(version=beside), Trial(version=beside, share=0.1))
    assert (read_trial(bundles), current_version(bundles)) == (None, present)
    assert capsys.readouterr().out.splitlines() == [
        f"{beside} is asked and not heeded, beside {present}.",
        f"{beside} answers 10.00% of users, beside {present}.",
        f"The trial of {beside} has ended.",
        "Nothing was on trial.",
    ]


def test_what_proved_itself_is_put_to_serve_and_its_trial_ends(two: tuple[Path, str, str]) -> None:
    # given
    bundles, present, beside = two
    run_export(bundles, "trial", beside, "--share", "0.5")
    # when
    assert run_export(bundles, "serve", beside) == 0
    # then
    assert (current_version(bundles), read_trial(bundles)) == (beside, None)
    # and the former one can be tried beside it
    assert run_export(bundles, "trial", present) == 0


def test_what_cannot_be_tried_is_told_and_nothing_changes(
    two: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    # given a bundle that lost a byte
    bundles, present, beside = two
    (bundles / beside / "decide.onnx").write_bytes(b"")
    # when
    done = [run_export(bundles, "trial", version) for version in (present, "v9", beside)]
    # then
    assert done == [1, 1, 1]
    first, second, third = capsys.readouterr().err.splitlines()
    assert "should be of another bundle than the present one" in first
    assert "no such folder" in second
    assert "decide.onnx should have the digest" in third
    assert read_trial(bundles) is None


@pytest.mark.parametrize(
    "words",
    [
        ["trial"],
        ["trial", "v2", "--end"],
        ["trial", "v2", "--share", "1.5"],
        ["serve"],
        ["rollback", "--share", "0.1"],
        ["inspect", "--end"],
    ],
)
def test_words_that_mean_nothing_are_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run_export(tmp_path, *words)

    assert ended.value.code == 2
