"""The project's pages as data: tables by heading, examples by kind, links and anchors."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from tests.checkout import ROOT

FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING: Final = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK: Final = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)|src="([^"]+)"')
Row: TypeAlias = dict[str, str]


@dataclass(frozen=True, slots=True)
class MarkdownPage:
    """One Markdown file."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def prose(self) -> str:
        """The page without its code blocks, where `#` is no heading and brackets are no links."""
        return FENCE.sub("", self.text)

    def section(self, heading: str) -> str:
        """The text under a heading, down to the next one of its level or above; raises KeyError if it is missing."""
        prose = self.prose
        for match in HEADING.finditer(prose):
            if match[2] == heading:
                tail = prose[match.end() :]
                end = re.search(rf"^#{{1,{len(match[1])}}} ", tail, re.MULTILINE)
                return tail[: end.start()] if end else tail
        raise KeyError(f"{self.path.name} should have the heading {heading!r}.")

    def tables(self, heading: str) -> list[list[Row]]:
        """The tables under a heading, each row by the names of its columns."""
        blocks = re.findall(r"(?:^\|.*\|\n)+", self.section(heading), re.MULTILINE)
        return [parse_rows(block) for block in blocks]

    def examples(self) -> list[tuple[str, str]]:
        """Each block of JSON with the kind in its info string."""
        return [(info.split()[1], body) for info, body in FENCE.findall(self.text) if info.startswith("json ")]

    def code_block(self, info: str) -> str:
        """The only code block with exactly this info string."""
        (body,) = (body for fence, body in FENCE.findall(self.text) if fence == info)
        return str(body)

    def links(self) -> list[str]:
        """The targets of its links and pictures."""
        return [a or b for a, b in LINK.findall(self.prose)]

    def anchors(self) -> set[str]:
        """The anchors of its headings."""
        return {to_anchor(match[2]) for match in HEADING.finditer(self.prose)}


def parse_rows(block: str) -> list[Row]:
    """A table's rows; a cell keeps its own code marks."""
    lines = [[cell.strip() for cell in line.strip("|").split(" |")] for line in block.splitlines()]
    head = lines[0]
    return [dict(zip(head, cells + [""] * (len(head) - len(cells)), strict=True)) for cells in lines[2:]]


def to_anchor(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")


def strip_code_marks(cell: str) -> str:
    """The code of a cell, without the marks."""
    return cell.strip("`")


PAGES: Final = [MarkdownPage(path) for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md")))]
EVENTS: Final = MarkdownPage(ROOT / "docs" / "events.md")
KEYS: Final = MarkdownPage(ROOT / "docs" / "keys.md")
METRICS: Final = MarkdownPage(ROOT / "docs" / "metrics.md")
OPERATIONS: Final = MarkdownPage(ROOT / "docs" / "operations.md")
READING: Final = MarkdownPage(ROOT / "docs" / "reading.md")
README: Final = MarkdownPage(ROOT / "README.md")
