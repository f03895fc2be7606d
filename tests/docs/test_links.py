"""Every link, file path, make target and bench on the pages exists."""

import re
from pathlib import Path
from typing import Final

import pytest

from bench.__main__ import BENCHES
from tests.checkout import ROOT
from tests.docs.pages import PAGES, MarkdownPage

IDS: Final = [str(page.path.relative_to(ROOT)) for page in PAGES]
TOP_LEVEL: Final = {path.name for path in ROOT.iterdir()} - {"bundles", "reports"}
SOURCES: Final = (".py", ".toml", ".yml", ".yaml", ".md", ".svg", ".txt")
CODE: Final = re.compile(r"`([^`\n]+)`")
FOLDERS: Final = re.compile(r"(?:[a-z_]+/)+[a-z_]*(?:\.[a-z]+)?")
TABLE_OR_FORMULA: Final = re.compile(r"^(?:    |\|).*$", re.MULTILINE)
LINE_END: Final = re.compile(r"[.:;!?)>|\"]\**$|^#|^- \[|^<")
RUNTIME_FILES: Final = {"best.toml", "evaluation.md", "lumen.py"}


def is_file_path(code: str) -> bool:
    """Whether a piece of code names something in the checkout, rather than a file that a process writes."""
    if not re.fullmatch(r"[\w.-]+(?:/[\w.-]*)*", code) or code in RUNTIME_FILES:
        return False
    return bool(FOLDERS.fullmatch(code)) or code.split("/")[0] in TOP_LEVEL or code.endswith(SOURCES)


def exists(page: MarkdownPage, code: str) -> bool:
    """Whether a path exists from the root or from the page's folder."""
    return any((folder / code).exists() for folder in (ROOT, page.path.parent))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_relative_link_leads_to_an_existing_file_and_heading(page: MarkdownPage) -> None:
    for link in page.links():
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in MarkdownPage(target).anchors(), link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_make_target_on_a_page_exists(page: MarkdownPage) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z-]+)(?=[`\s]*(?:ARGS|#|`|$))", page.text, re.MULTILINE)) <= targets


def test_the_contribution_guide_lists_every_make_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    (table,) = MarkdownPage(ROOT / "CONTRIBUTING.md").tables("Set up")

    assert {row["command"] for row in table} == {f"`make {target}`" for target in phony.split() if target != "env"}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_file_path_on_a_page_exists(page: MarkdownPage) -> None:
    paths = [code for code in CODE.findall(page.prose) if is_file_path(code)]

    assert [path for path in paths if not exists(page, path)] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_bench_on_a_page_exists(page: MarkdownPage) -> None:
    assert set(re.findall(r"python -m bench ([a-z_-]+)", page.text)) <= set(BENCHES)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_python_module_on_a_page_exists(page: MarkdownPage) -> None:
    modules = {code for code in CODE.findall(page.prose) if re.fullmatch(r"\w+(?:\.\w+){2,}", code)}
    ours = {name for name in modules if name.split(".")[0] in TOP_LEVEL}

    assert [name for name in sorted(ours) if not find_module(name)] == []


def find_module(name: str) -> bool:
    """Whether a dotted name is a module, or something that a module defines."""
    path = Path(*name.split("."))
    if (ROOT / path).with_suffix(".py").exists() or (ROOT / path / "__init__.py").exists():
        return True
    module = (ROOT / path.parent).with_suffix(".py")
    return module.exists() and bool(re.search(rf"^(?:def |class )?{path.name}\b", module.read_text(), re.MULTILINE))


def test_no_sentence_on_a_page_is_wrapped() -> None:
    for page in PAGES:
        lines = TABLE_OR_FORMULA.sub("", page.prose).splitlines()
        assert [line for line in lines if line.strip() and not LINE_END.search(line.rstrip())] == [], page.path.name
