"""What was found in a shop's files: counts, refused records with examples and places, times, ids that do not meet."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct, field

from contract.units import HOUR_MS

EXAMPLES_MAX: Final = 3  # of each kind of finding
DETAIL_CHARS_MAX: Final = 300
TO_UTF8: Final = "`iconv -f WINDOWS-1252 -t UTF-8 FILE`, or from the encoding that it has"
ABSENT: Final = "absent, since its value cannot be read"
IGNORED: Final = {  # what is not absent
    "user_id": "none, so that the user is unknown",
    "lines.unit_price": "below 0, read as 0",
    "lines.quantity": "lines of 0 or fewer pieces, left out",
}


class Example(Struct, frozen=True):
    """A record of the input; `place` is its file and the number of its record there, from 1."""

    place: str
    detail: str


class Finding(Struct):
    """How many records have something in common, and the first of them."""

    records: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, place: str, detail: str) -> None:
        self.records += 1
        self.show(place, detail)

    def show(self, place: str, detail: str) -> None:
        """Show a record that is counted already, if it is one of the first."""
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(Example(place, detail[:DETAIL_CHARS_MAX]))


class HistoryReport(Struct, kw_only=True):
    """The report of a history. `kinds`: events written; the other counts are of records of the input by kind.

    `skipped` is by map: documents of types that it does not read. `refused` is by kind (or map) and reason, `unmet` by
    what does not meet; times are event times in milliseconds. `duplicates` have the id and the content of an earlier
    record, `conflicts` its id and another content; neither is written. `out_of_order`: records dated
    before the one before them in their file, which are sorted; `late_ms` the most.
    """

    records: int = 0
    events: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    refused: dict[str, dict[str, Finding]] = field(default_factory=dict)
    skipped: dict[str, Finding] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)  # optional values that could not be read, by kind and field
    doubtful: Counter[str] = field(default_factory=Counter)  # values that look like another unit, or lack a rate
    duplicates: Counter[str] = field(default_factory=Counter)
    conflicts: Finding = field(default_factory=Finding)
    left_out: Counter[str] = field(default_factory=Counter)
    out_of_order: Counter[str] = field(default_factory=Counter)
    late_ms: int = 0
    unmet: dict[str, Finding] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None
    seconds: float = 0.0

    def refuse(self, kind: str, reason: str, place: str, detail: str) -> None:
        self.refused.setdefault(kind, {}).setdefault(reason, Finding()).add(place, detail)

    def skip(self, content: str, place: str, detail: str) -> None:
        self.skipped.setdefault(content, Finding()).add(place, detail)

    def describe_emptiness(self) -> str:
        """That there is no event, and why the first record of each reason is none."""
        findings = [finding for reasons in self.refused.values() for finding in reasons.values()]
        reasons = [f" {finding.examples[0].place}: {finding.examples[0].detail}" for finding in findings]
        return f"A history should have events. Found none in {self.records:,} records.{''.join(reasons)}"

    def count_refused(self) -> int:
        return sum(finding.records for reasons in self.refused.values() for finding in reasons.values())


def format_report(report: HistoryReport) -> Iterator[str]:
    """The report as lines of text."""
    yield f"records     {report.records:>12,}   read"
    yield f"events      {report.events:>12,}   written: {format_counts(report.kinds)}"
    if report.first_ms is not None and report.last_ms is not None:
        yield f"times       {format_time(report.first_ms)} to {format_time(report.last_ms)}"
    if report.left_out:
        yield f"left out    {report.left_out.total():>12,}   at or after --until: {format_counts(report.left_out)}"
    yield from format_repeats(report)
    if report.out_of_order:
        yield (
            f"unordered   {report.out_of_order.total():>12,}   sorted, late by {report.late_ms / HOUR_MS:,.1f} hours "
            f"at most: {format_counts(report.out_of_order)}"
        )
    yield from format_findings(report)


def format_findings(report: HistoryReport) -> Iterator[str]:
    """What was refused, skipped, ignored or is doubtful, and what does not meet."""
    for kind, reasons in sorted(report.refused.items()):
        yield from format_refused(kind, reasons)
    for content, finding in sorted(report.skipped.items()):
        yield f"skipped     {finding.records:>12,}   {content} does not read them"
        yield from format_examples(finding)
    for name, count in sorted(report.ignored.items()):
        yield f"ignored     {count:>12,}   {name}: {IGNORED.get(name.partition('.')[2], ABSENT)}"
    for name, count in sorted(report.doubtful.items()):
        yield f"doubtful    {count:>12,}   {describe_doubtful(*name.split())}"
    for name, finding in sorted(report.unmet.items()):
        yield f"unmet       {finding.records:>12,}   {name}"
        yield from format_examples(finding)


def describe_doubtful(field: str, unit: str) -> str:
    if unit == "no_rate":
        return f"{field}: taken as it is, since `intake.rates` has no rate of it"
    return f"{field}: looks like `{unit}`, which is not the declared unit (see `intake.times`)"


def format_repeats(report: HistoryReport) -> Iterator[str]:
    if report.duplicates:
        yield f"duplicates  {report.duplicates.total():>12,}   left out: {format_counts(report.duplicates)}"
    if report.conflicts.records:
        yield f"conflicts   {report.conflicts.records:>12,}   left out: other content under the id of an earlier record"
        yield from format_examples(report.conflicts)


def format_refused(kind: str, reasons: Mapping[str, Finding]) -> Iterator[str]:
    for reason, finding in sorted(reasons.items()):
        yield f"refused     {finding.records:>12,}   {kind}, {reason}"
        yield from format_examples(finding)
        if reason == "not_utf8":
            yield f"                a file in another encoding than UTF-8 is converted by {TO_UTF8}"


def format_examples(finding: Finding) -> Iterator[str]:
    for example in finding.examples:
        yield f"                {example.place}: {example.detail}"


def format_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items())) or "none"


def format_time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
