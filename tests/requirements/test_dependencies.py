"""Every distribution that pyproject.toml declares is used by the packages that its group is for."""

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from typing import Any, Final

import pytest

from tests.checkout import ROOT

DISTRIBUTIONS: Final = packages_distributions()
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: Final = PROJECT["dependency-groups"]
# Which packages a group is for: the ones that import its distributions.
PACKAGES: Final = {
    "contract": ("contract",),
    "worker": ("worker", "transport"),
    "training": ("training", "model", "export", "transport"),
    "schemas": ("transport",),
    "demo": ("demo", "devservers"),
    "bench": ("bench", "testkit"),
    "dev": ("tests", "checks", "testkit", "conftest.py", "requirements"),
}
# What is run and not imported: by the Makefile, by pytest, or by mypy.
COMMANDS: Final = {"import-linter": "lint-imports", "mypy": "-m mypy", "ruff": "-m ruff"}
PLUGINS: Final = {"pytest-timeout": "timeout", "pytest-xdist": "-n "}


def name_of_distribution(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def find_imports(packages: tuple[str, ...]) -> set[str]:
    """Top-level modules that these packages import."""
    files = [path for package in packages for path in ([ROOT / package] if package.endswith(".py") else [])]
    files += [path for package in packages for path in (ROOT / package).rglob("*.py")]
    modules = set[str]()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    return modules


def list_declared() -> list[tuple[str, str]]:
    return [
        (group, name_of_distribution(entry))
        for group, entries in GROUPS.items()
        for entry in entries
        if isinstance(entry, str)
    ]


@pytest.mark.parametrize(("group", "distribution"), list_declared())
def test_a_declared_distribution_is_used(group: str, distribution: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    options: dict[str, Any] = PROJECT["tool"]["pytest"]["ini_options"]
    if distribution.startswith("types-"):
        return  # read by mypy, next to the library that it describes
    if distribution in COMMANDS:
        assert COMMANDS[distribution] in makefile
        return
    if distribution in PLUGINS:
        assert PLUGINS[distribution] in makefile or PLUGINS[distribution] in options
        return

    modules = {
        module
        for module, names in DISTRIBUTIONS.items()
        if distribution in {name.lower().replace("_", "-") for name in names}
    }

    assert modules & find_imports(PACKAGES[group]), f"`{distribution}` should be imported in {PACKAGES[group]}."


def test_every_group_has_packages() -> None:
    assert GROUPS.keys() == PACKAGES.keys()
