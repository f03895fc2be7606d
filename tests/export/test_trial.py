"""Trials from the command line: started, widened, ended, and a candidate that becomes the serving bundle."""

import shutil
from pathlib import Path

import pytest

from contract.bundle import current_version
from contract.experiment import Trial, read_trial
from export.__main__ import main
from export.exporter import ExportResult, export
from tests.model.small import make_checkpoint, make_network


@pytest.fixture
def bundle_pair(bundles: Path, exported: ExportResult, tmp_path: Path) -> tuple[Path, str, str]:
    """A folder with a current bundle and a candidate: the folder and both versions."""
    current = exported.manifest.version
    shutil.copytree(bundles / current, tmp_path / current)
    (tmp_path / "current.json").write_bytes((bundles / "current.json").read_bytes())
    candidate = export(make_checkpoint(make_network(), created_ms=10**12 + 1), tmp_path, {}, as_candidate=True)
    return tmp_path, current, candidate.manifest.version


def run_export(bundles: Path, *words: str) -> int:
    return main([*words, "--bundles", str(bundles)])


def test_a_candidate_is_published_without_becoming_current(bundle_pair: tuple[Path, str, str]) -> None:
    bundles, current, candidate = bundle_pair

    assert current_version(bundles) == current
    assert (bundles / candidate / "READY").exists()


def test_a_trial_starts_as_a_shadow_becomes_a_canary_and_ends(
    bundle_pair: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    bundles, current, candidate = bundle_pair
    # when
    statuses = [run_export(bundles, "trial", candidate)]
    shadow = read_trial(bundles)
    statuses.append(run_export(bundles, "trial", candidate, "--share", "0.1"))
    canary = read_trial(bundles)
    statuses += [run_export(bundles, "trial", "--end"), run_export(bundles, "trial", "--end")]
    # then
    assert statuses == [0, 0, 0, 0]
    assert (shadow, canary) == (Trial(version=candidate), Trial(version=candidate, share=0.1))
    assert (read_trial(bundles), current_version(bundles)) == (None, current)
    assert capsys.readouterr().out.splitlines() == [
        f"{candidate} runs as a shadow of {current}.",
        f"{candidate} answers 10.00% of users, {current} the others.",
        f"The trial of {candidate} has ended.",
        "There was no trial.",
    ]


def test_serving_the_trial_bundle_ends_its_trial(bundle_pair: tuple[Path, str, str]) -> None:
    # given
    bundles, current, candidate = bundle_pair
    run_export(bundles, "trial", candidate, "--share", "0.5")
    # when
    assert run_export(bundles, "serve", candidate) == 0
    # then
    assert (current_version(bundles), read_trial(bundles)) == (candidate, None)
    # and the previous bundle can become its trial
    assert run_export(bundles, "trial", current) == 0


def test_a_trial_of_an_unsuitable_bundle_is_refused(
    bundle_pair: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    # given a truncated candidate
    bundles, current, candidate = bundle_pair
    (bundles / candidate / "decide.onnx").write_bytes(b"")
    # when
    statuses = [run_export(bundles, "trial", version) for version in (current, "v9", candidate)]
    # then
    assert statuses == [1, 1, 1]
    first, second, third = capsys.readouterr().err.splitlines()
    assert "should be of another bundle than the current one" in first
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
def test_invalid_arguments_are_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run_export(tmp_path, *words)

    assert ended.value.code == 2
