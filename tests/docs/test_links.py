"""Every link, file path and make target on the pages exists."""

import re

import pytest

from tests.checkout import ROOT
from tests.docs.pages import PAGES, MarkdownPage

IDS = [str(page.path.relative_to(ROOT)) for page in PAGES]


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
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z]+)\b(?=[`\s]*(?:ARGS|#|`|$))", page.text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_file_path_on_a_page_exists(page: MarkdownPage) -> None:
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.[a-z]+)?)`", page.prose)

    assert [name for name in named if not (ROOT / name).exists()] == []
