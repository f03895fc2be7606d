"""Skipped tests: reported with their reason on a developer's machine, failed in CI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest

def test_with_a_missing_broker():
    pytest.skip("there is no broker")

@pytest.fixture
def broker():
    pytest.skip("there is no fixture")

def test_with_a_skipping_fixture(broker): ...

@pytest.mark.skipif(True, reason="there is no mark")
def test_with_a_mark(): ...

@pytest.mark.xfail(reason="expected", strict=True)
def test_with_an_expected_failure():
    assert False

def test_with_no_skip(): ...
"""
WHOLE_FILE = "import pytest\npytest.skip('there is no module', allow_module_level=True)"


def run_pytest(folder: Path, test_file: str, *, ci: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", folder)
    (folder / "test_file.py").write_text(test_file)
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "CI": ci})


@pytest.mark.parametrize("ci", ["", "false", "0"])
def test_outside_ci_a_skip_is_a_skip(tmp_path: Path, ci: str) -> None:
    result = run_pytest(tmp_path, SKIPPING, ci=ci)

    assert result.returncode == 0
    assert "1 passed, 3 skipped, 1 xfailed" in result.stdout


def test_in_ci_a_skip_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, SKIPPING, ci="true")

    assert result.returncode == 1
    assert "1 passed, 1 xfailed" in result.stdout
    for missing in ("broker", "fixture", "mark"):
        assert f"should run in CI. Found: Skipped: there is no {missing}" in result.stdout


def test_in_ci_a_skipped_module_is_an_error(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, WHOLE_FILE, ci="true")

    assert result.returncode != 0
    assert "should run in CI. Found: Skipped: there is no module" in result.stdout
