"""`make env` refuses a Python that the locks are not for, before it creates anything."""

import subprocess
import sys
import tomllib

import pytest

from requirements.python_version import WANTED, explain
from tests.checkout import ROOT


def test_the_wanted_version_is_that_of_the_package() -> None:
    bounds = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert bounds == ">={}.{},<{}.{}".format(*WANTED, WANTED[0], WANTED[1] + 1)


def test_this_interpreter_is_accepted() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "requirements" / "python_version.py")], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 9, 18), (3, 10, 13), (3, 12, 1), (3, 13, 0), (3, 14, 0)])
def test_another_interpreter_is_refused_with_the_version_wanted(version: tuple[int, int, int]) -> None:
    text = explain(version, "/usr/bin/python3")
    assert "Python should be 3.11: make env PYTHON=" in text
    assert f"Found {'.'.join(map(str, version))} at /usr/bin/python3" in text


def test_the_version_is_checked_before_the_environment_is_created() -> None:
    recipe = (ROOT / "Makefile").read_text().split("$(MADE): ")[1].split("\n\n")[0]
    assert recipe.index("requirements/python_version.py\n") < recipe.index("-m venv")


def test_the_check_is_written_for_every_python() -> None:
    text = (ROOT / "requirements" / "python_version.py").read_text()
    assert 'f"' not in text
    assert "from __future__" not in text
