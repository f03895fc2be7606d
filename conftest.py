"""Rules for every test run: a skip fails in CI, and Hypothesis generates the same inputs each time.

Servers and other fixtures are in tests/conftest.py.
"""

import os
from collections.abc import Generator
from typing import TypeVar

import hypothesis
import pytest

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# A deadline would be a timing assertion. `derandomize` derives the seed from the test, so a failure is reproducible.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("house")


def fail_skip_in_ci(report: Report, *, in_ci: bool) -> Report:
    """Turn a skip into a failure with its reason if in CI; an expected failure (xfail) stays as it is."""
    if in_ci and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} should run in CI. Found: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return fail_skip_in_ci((yield), in_ci=IN_CI)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return fail_skip_in_ci((yield), in_ci=IN_CI)
