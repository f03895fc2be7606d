"""docs/architecture.md and docs/where-is-what.md name folders, modules and definitions that exist."""

import ast
import re
import tomllib

import pytest

from tests.checkout import ROOT
from tests.docs.pages import PAGES, MarkdownPage, strip_code_marks

ARCHITECTURE = MarkdownPage(ROOT / "docs" / "architecture.md")
WHERE_IS_WHAT = MarkdownPage(ROOT / "docs" / "where-is-what.md")
DEFINITION = re.compile(r"`([\w/]+\.py):([\w.]+)`")
DEFINITIONS = sorted({match for page in PAGES for match in DEFINITION.findall(page.text)})
CONSTANTS_IN_FILE = re.compile(r"((?:`[A-Z_]{4,}`(?:, | and )?)+) (?:and the check )?in `([\w/]+\.py)`")


def find_definitions(path: str) -> set[str]:
    """Names of classes, functions, constants and methods (`Class.method`) of a module."""
    names = set[str]()
    for node in ast.parse((ROOT / path).read_text()).body:
        match node:
            case ast.FunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name, body=body):
                names |= {name, *(f"{name}.{member.name}" for member in body if isinstance(member, ast.FunctionDef))}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


@pytest.mark.parametrize(("path", "name"), DEFINITIONS, ids=[f"{path}:{name}" for path, name in DEFINITIONS])
def test_a_named_definition_exists_in_its_module(path: str, name: str) -> None:
    assert name in find_definitions(path)


def test_both_walks_name_a_definition_in_every_step() -> None:
    for heading in ("Walk: one order", "Walk: one example"):
        steps = re.findall(r"^\d+\. (.*)$", ARCHITECTURE.section(heading), re.MULTILINE)

        assert len(steps) == 10
        assert [step for step in steps if not DEFINITION.search(step)] == []


def test_constants_that_where_is_what_names_are_in_their_modules() -> None:
    constants = CONSTANTS_IN_FILE.findall(WHERE_IS_WHAT.text)

    assert len(constants) >= 8
    for names, path in constants:
        assert set(re.findall(r"[A-Z_]+", names)) <= find_definitions(path), path


def test_the_map_of_folders_has_every_package_of_the_checkout() -> None:
    (table,) = ARCHITECTURE.tables("Folders")
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert packages <= {strip_code_marks(row["folder"]).rstrip("/") for row in table}


@pytest.mark.parametrize(
    ("heading", "package"),
    [("Inside the worker", "worker"), ("Inside training", "training"), ("Inside the contract", "contract")],
)
def test_the_map_of_a_package_has_every_sub_package(heading: str, package: str) -> None:
    (table,) = ARCHITECTURE.tables(heading)
    documented = {path for row in table for path in re.findall(rf"`({package}/\w+)/`", row["folder"])}

    assert documented == {f"{package}/{path.parent.name}" for path in (ROOT / package).glob("*/__init__.py")}


def test_allowed_imports_are_those_of_the_layers() -> None:
    # given the layers that import-linter checks
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = [c for c in config["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    (table,) = ARCHITECTURE.tables("Folders")

    # then no folder is documented to import a layer above it
    for row in table:
        folder, imports = strip_code_marks(row["folder"]).rstrip("/"), re.findall(r"`(\w+)/`", row["may import"])
        for layers in (contract["layers"] for contract in contracts if folder in contract["layers"]):
            allowed = layers[layers.index(folder) + 1 :]
            assert [name for name in imports if name in layers and name not in allowed] == []
