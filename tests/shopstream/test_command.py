"""The command `shopstream`: it runs every program from any folder, installed or from a checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from shopstream import command
from shopstream.command import PROGRAMS, main
from tests.checkout import ROOT

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv[:1])


def install(target: Path, source: Path) -> None:
    """Build the package from a copy of the checkout, and install it without what it needs."""
    packages = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    for name in {*packages, "requirements"} - {"tests", "bench", "testkit", "checks"}:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "shop.toml", "features.toml"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", str(target), str(source)], check=True)


def run_installed(target: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPSTREAM_")}
    environment["PYTHONPATH"] = str(target)
    return subprocess.run(
        [sys.executable, str(target / "bin" / "shopstream"), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_installed_command_runs_from_an_empty_folder(tmp_path: Path) -> None:
    # given
    target, folder = tmp_path / "installed", tmp_path / "shop"
    install(target, tmp_path / "source")
    folder.mkdir()
    # when there are no settings, and when it has written some
    before = run_installed(target, folder, "export", "inspect")
    written = run_installed(target, folder, "init")
    after = run_installed(target, folder, "export", "inspect")
    # then
    assert (before.returncode, written.returncode, after.returncode) == (2, 0, 1)
    assert "`shopstream init` writes a first one" in before.stderr
    assert (folder / "shop.toml").read_text() == (ROOT / "shop.toml").read_text()
    assert after.stderr.strip() == "bundles should have a current bundle. Found none."
    for program in PROGRAMS:
        assert f"usage: shopstream {program}" in run_installed(target, folder, program, "--help").stdout


def test_a_command_that_does_not_exist_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wroker"]) == 2
    assert "Found `wroker`; the nearest is `worker`." in capsys.readouterr().err


@pytest.mark.parametrize(("words", "status"), [([], 2), (["--help"], 0)])
def test_without_a_command_all_commands_are_listed(
    words: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == status
    printed = capsys.readouterr().out
    assert all(f"shopstream {program}" in printed for program in (*PROGRAMS, "init"))


def test_a_program_whose_packages_are_not_installed_says_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def import_nothing(name: str) -> ModuleType:
        raise ModuleNotFoundError(name="torch.nn")

    monkeypatch.setattr(command, "import_module", import_nothing)
    assert main(["training", "fit"]) == 2
    assert "Found no `torch`: install `shopstream[training]`" in capsys.readouterr().err


def test_the_extras_that_a_hint_names_exist() -> None:
    extras = {extra.strip("[]") for extra in command.EXTRAS.values()}
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()
    assert command.EXTRAS.keys() <= {*PROGRAMS}


def test_init_keeps_files_that_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop.toml").write_text("# mine\n")
    assert main(["init", str(tmp_path)]) == 0
    assert (tmp_path / "shop.toml").read_text() == "# mine\n"
    assert "stays as it is" in capsys.readouterr().out


def test_init_in_a_place_that_cannot_be_written_ends_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / "file")]) == 2
    assert "should be able to write its files" in capsys.readouterr().err


def test_the_package_needs_what_the_groups_of_a_checkout_name() -> None:
    groups, project = PROJECT["dependency-groups"], PROJECT["project"]
    own = {name: [entry for entry in entries if isinstance(entry, str)] for name, entries in groups.items()}

    assert project["dependencies"] == own["contract"] + own["worker"]
    for extra, needed in project["optional-dependencies"].items():
        if extra == "s3":  # a store's client, which no checkout needs
            continue
        assert needed == [entry for entry in own[extra] if entry not in project["dependencies"]]
