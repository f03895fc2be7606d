"""docs/performance.md names the parts of a batch that `worker score --profile` prints."""

import re

from tests.checkout import ROOT
from tests.docs.pages import MarkdownPage
from worker.ops.steps import Step

PAGE = MarkdownPage(ROOT / "docs" / "performance.md")
MEASURED = re.compile(r'PROFILER\("(\w+)(?: \w+)?"\)|_mark_step\.time\(Step\.([A-Z]+)\)')


def test_the_profile_of_a_batch_has_every_measured_part() -> None:
    sources = (path.read_text() for path in (ROOT / "worker").glob("**/*.py"))
    names = [name for source in sources for name in MEASURED.findall(source)]
    measured = {part or Step[step].value for part, step in names} - {"recover", "swap"}
    table = PAGE.tables("Profile of a batch")[1]

    assert {part for row in table for part in re.findall(r"`(\w+)`", row["part"])} == measured
