"""docs/performance.md names the parts of a batch that `worker score --profile` prints."""

import re

from tests.checkout import ROOT
from tests.docs.pages import MarkdownPage

PAGE = MarkdownPage(ROOT / "docs" / "performance.md")
MEASURED = re.compile(r'(?:PROFILER|_time_step)\("(\w+)(?: \w+)?"\)')


def test_the_profile_of_a_batch_has_every_measured_part() -> None:
    sources = (path.read_text() for path in (ROOT / "worker").glob("**/*.py"))
    measured = {part for source in sources for part in MEASURED.findall(source)} - {"recover", "swap"}
    table = PAGE.tables("Profile of a batch")[1]

    assert {part for row in table for part in re.findall(r"`(\w+)`", row["part"])} == measured
