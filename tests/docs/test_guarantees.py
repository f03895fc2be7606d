"""docs/guarantees.md: its tests and counts exist, and its faults are those that the bench plays."""

import ast
import re

from testkit.chaos.catalogue import CHAOS_FAULTS
from testkit.chaos.promise_audit import Findings
from tests.checkout import ROOT
from tests.docs.pages import MarkdownPage, strip_code_marks

GUARANTEES = MarkdownPage(ROOT / "docs" / "guarantees.md")
CODE = re.compile(r"`([^`]+)`")


def find_test_names() -> set[str]:
    """The names of all test functions of the checkout."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_promise_names_a_count_of_the_bench_and_tests_that_exist() -> None:
    (table,) = GUARANTEES.tables("Promises")
    tests = find_test_names()

    assert {strip_code_marks(row["count"]) for row in table} == set(Findings.__struct_fields__)
    for row in table:
        names = CODE.findall(row["tests"])
        assert names, row["promise"]
        assert set(names) <= tests, row["promise"]


def test_the_faults_are_those_of_the_bench() -> None:
    (table,) = GUARANTEES.tables("Faults")
    documented = {name for row in table for name in CODE.findall(row["fault"])}

    assert documented == {re.sub(r" in \w+$", " in STEP", name) for name in CHAOS_FAULTS}
