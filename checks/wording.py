"""`python -m checks.wording`: reports names and words that the style rules out; part of `make check`.

Four counts, each of which should be 0; the rules are in `checks.names` and `checks.words`.
"""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from checks.finding import Finding
from checks.names import find_duplicate_classes, find_empty_names, find_participles
from checks.words import find_dialect

TEXTS: Final = (".py", ".md", ".yml", ".yaml", ".toml", "Makefile", "Dockerfile")
UNCHECKED: Final = ("checks/", "tests/checks/", "CHANGELOG.md", "LICENSE")


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
        "variables that do not say what they hold": [
            finding for path, tree in trees for finding in find_empty_names(path, tree)
        ],
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
