"""A verdict of the doctor, and the order in which verdicts are printed."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

SET_CLOCK: Final = "chronyc makestep"


class Severity(StrEnum):
    """`error`: data are lost or something cannot work; `warning`: that may become so; `ok`: as it should be."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"


class Finding(NamedTuple):
    """A verdict: what it concerns, what should hold and what was found, and the command that mends it, if any."""

    severity: Severity
    subject: str
    text: str
    command: str = ""


ORDER: Final = tuple(Severity)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, and those that are as they should be last."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))


def approve(subject: str, text: str) -> Finding:
    """The verdict that something is as it should be."""
    return Finding(Severity.OK, subject, text)
