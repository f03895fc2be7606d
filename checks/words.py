"""Words that are not plain technical English: the ones that were common in this repository."""

import re
from collections.abc import Iterator
from typing import Final

from checks.finding import Finding

# Words, as regular expressions, and what to write instead.
DIALECT: Final = {
    r"nobody|anybody|somebody|whoever": "name the subject: the worker, the group, the reader",
    r"anew": "again, or: recreated",
    r"aside": "separately, or: the name of the place",
    r"beside": "next to, in addition to, compared with",
    r"by and by": "over time",
    r"for ever": "forever, or: without end",
    r"so many|so-manieth": "a number, or: as many as",
    r"reckon(?:s|ed|ing)?": "compute",
    r"heed(?:s|ed)?": "use",
    r"for good": "permanently, or: without end",
    r"in good order": "gracefully",
    r"meanwhiles?": "during this time, or: in the meantime",
}
# Texts that readers of `--json` rely on, and that therefore keep their words.
PROMISED: Final = ("topic created anew",)


def find_dialect(path: str, text: str) -> Iterator[Finding]:
    """Listed words in code, comments and pages."""
    for promised in PROMISED:
        text = text.replace(promised, "")
    for number, line in enumerate(text.splitlines(), start=1):
        for words, instead in DIALECT.items():
            for match in re.finditer(rf"(?<![\w-])(?:{words})(?![\w-])", line, re.IGNORECASE):
                yield Finding(path, number, f"`{match.group()}`: {instead}")
