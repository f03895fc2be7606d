"""`python -m checks.wording`: reports names and words that the style rules out.

Three counts, each of which should be 0: functions named by a participle (a function name is a verb), classes that a
top-level package defines twice (a class name should identify one class), and words that are not plain technical
English. The word list is short: it contains the words that were common in this repository.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

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
    r"meanwhiles?": "during this time, or: in the meantime",
}
# Texts that readers of `--json` rely on, and that therefore keep their words.
PROMISED: Final = ("topic created anew",)
# Base forms that end in -ed.
VERBS: Final = frozenset(
    [
        "bleed",
        "embed",
        "exceed",
        "feed",
        "need",
        "proceed",
        "seed",
        "shed",
        "speed",
        "succeed",
        "weed",
        "wed",
        "bed",
        "red",
        "sled",
        "thread",
    ]
)
# Participles that do not end in -ed, except those that are also base forms (read, set, put, cut, split, let, hit).
IRREGULAR: Final = frozenset(
    [
        "become",
        "begun",
        "bought",
        "broken",
        "brought",
        "built",
        "caught",
        "chosen",
        "done",
        "drawn",
        "driven",
        "fallen",
        "felt",
        "found",
        "frozen",
        "given",
        "gone",
        "grown",
        "heard",
        "held",
        "hidden",
        "kept",
        "known",
        "laid",
        "learnt",
        "led",
        "left",
        "lent",
        "lost",
        "made",
        "meant",
        "met",
        "paid",
        "proven",
        "said",
        "seen",
        "sent",
        "shaken",
        "shown",
        "shrunk",
        "sold",
        "sought",
        "spent",
        "spoken",
        "stolen",
        "sworn",
        "taken",
        "taught",
        "thought",
        "thrown",
        "told",
        "torn",
        "understood",
        "won",
        "worn",
        "written",
    ]
)
TEXTS: Final = (".py", ".md", ".yml", ".yaml", ".toml", "Makefile", "Dockerfile")
UNCHECKED: Final = ("checks/", "tests/checks/", "CHANGELOG.md", "LICENSE")


class Finding(NamedTuple):
    """A line that should be reworded."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def is_participle(name: str) -> bool:
    """Whether a function name is a participle (`moved`, `kept_rows`) and not a verb (`move`)."""
    word = name.strip("_").split("_")[0]
    return word in IRREGULAR or (len(word) > 3 and word.endswith("ed") and word not in VERBS)


def find_participles(path: str, tree: ast.Module) -> Iterator[Finding]:
    """Functions and methods named by a participle, except properties and pytest fixtures."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_participle(node.name):
            decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
            if not re.search(r"property|fixture|setter", decorators):
                yield Finding(path, node.lineno, f"function `{node.name}` should be named by a verb")


def find_duplicate_classes(trees: Iterable[tuple[str, ast.Module]]) -> Iterator[Finding]:
    """Classes with the name of an earlier class of the same top-level package."""
    first = defaultdict[str, dict[str, str]](dict)
    for path, tree in trees:
        package = path.partition("/")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                before = first[package].setdefault(node.name, f"{path}:{node.lineno}")
                if before != f"{path}:{node.lineno}":
                    yield Finding(path, node.lineno, f"class `{node.name}` is also defined at {before}")


def find_dialect(path: str, text: str) -> Iterator[Finding]:
    """Listed words in code, comments and pages."""
    for promised in PROMISED:
        text = text.replace(promised, "")
    for number, line in enumerate(text.splitlines(), start=1):
        for words, instead in DIALECT.items():
            for match in re.finditer(rf"(?<![\w-])(?:{words})(?![\w-])", line, re.IGNORECASE):
                yield Finding(path, number, f"`{match.group()}`: {instead}")


def list_files(root: Path) -> list[str]:
    """Paths of text files below `root` that git tracks or does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    paths = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(path for path in set(paths) if path.endswith(TEXTS) and (root / path).is_file())


def check(root: Path) -> dict[str, list[Finding]]:
    """All findings below `root`, by category."""
    paths = [path for path in list_files(root) if not path.startswith(UNCHECKED)]
    texts = {path: (root / path).read_text(encoding="utf8") for path in paths}
    trees = [(path, ast.parse(text)) for path, text in texts.items() if path.endswith(".py")]
    return {
        "participle-named functions": [finding for path, tree in trees for finding in find_participles(path, tree)],
        "classes defined twice in a package": list(find_duplicate_classes(trees)),
        "words that are not plain English": [
            finding for path, text in texts.items() for finding in find_dialect(path, text)
        ],
    }


def main(arguments: Sequence[str]) -> int:
    """Print the findings and counts of the tree in the first argument (default: here); returns 1 if there are any."""
    findings = check(Path(arguments[0] if arguments else "."))
    for category_findings in findings.values():
        for finding in category_findings:
            print(finding)
    for category, category_findings in findings.items():
        print(f"{category}: {len(category_findings)}")
    return int(any(findings.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
