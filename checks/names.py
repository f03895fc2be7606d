"""Names: functions are verbs, classes are unique in their package, and variables say what they hold."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from checks.finding import Finding

# Base forms that end in -ed.
VERBS: Final = re.compile(
    r"bleed|embed|exceed|feed|need|proceed|seed|shed|speed|succeed|weed|wed|bed|red|sled|"
    r"thread"
)
# Irregular participles that are not base forms too, as read, set, put, cut, split, let and hit are.
IRREGULAR: Final = re.compile(
    r"become|begun|bought|broken|brought|built|caught|chosen|done|drawn|driven|fallen|felt|"
    r"found|frozen|given|gone|grown|heard|held|hidden|kept|known|laid|learnt|led|left|lent|"
    r"lost|made|meant|met|paid|proven|said|seen|sent|shaken|shown|shrunk|sold|sought|spent|"
    r"spoken|stolen|sworn|taken|taught|thought|thrown|told|torn|understood|won|worn|written"
)
# Variables and parameters of these names do not say what they hold.
EMPTY_NAMES: Final = frozenset({"of", "one", "found", "said", "told", "at"})


def is_participle(name: str) -> bool:
    """Whether a function name is a participle (`moved`, `kept_rows`) and not a verb (`move`)."""
    word = name.strip("_").split("_")[0]
    return bool(IRREGULAR.fullmatch(word)) or (len(word) > 3 and word.endswith("ed") and not VERBS.fullmatch(word))


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


def find_empty_names(path: str, tree: ast.Module) -> Iterator[Finding]:
    """Variables and parameters that are named by a preposition, a number or a participle."""
    for node in ast.walk(tree):
        name = node.arg if isinstance(node, ast.arg) else ""
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        if name in EMPTY_NAMES:
            yield Finding(path, getattr(node, "lineno", 0), f"variable `{name}` should say what it holds")
