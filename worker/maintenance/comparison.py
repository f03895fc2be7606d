"""A verdict: what Redis holds of some entities beside what their log makes of them. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from contract.profiles.record import RECORD
from transport.records import OffsetRange
from worker.maintenance.record_diff import find_defect, find_first_difference

DIFFERENCES_MAX: Final = 10
SliceKey: TypeAlias = tuple[str, str]  # entity and source
UNCHECKED: Final = "unchecked"


@dataclass(slots=True)
class VerificationResult:
    """How many entities and slices were compared; the first mismatches in words, and what the reader should know.

    `unchecked`: slices that may begin before what is left of their log, or whose log is there no more, and those that
    nobody has written for so long that Redis may have dropped them.
    """

    entities: int = 0
    slices: int = 0
    mismatches: int = 0
    unchecked: int = 0
    differences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, key: SliceKey, outcome: str | None) -> None:
        """Count one slice: None if it is as it should be."""
        self.slices += 1
        self.unchecked += outcome == UNCHECKED
        if outcome is not None and outcome != UNCHECKED:
            self.mismatches += 1
            if len(self.differences) < DIFFERENCES_MAX:
                self.differences.append(f"{key[0]}, {key[1]}: {outcome}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateComparison:
    """Slices as they were `found` and as a recount says they `should` be, and what is left of the `logs` of sources."""

    actual: Mapping[SliceKey, bytes]
    expected: Mapping[SliceKey, bytes]
    offset_ranges: Mapping[str, OffsetRange]
    may_have_expired: Callable[[SliceKey], bool]

    def compare(self) -> VerificationResult:
        """The whole, in the order of entities and sources."""
        result = VerificationResult(
            remarks=[
                f"The log of {source} begins at {offset_range.low}, no longer at 0: older slices of it cannot be checked."
                for source, offset_range in sorted(self.offset_ranges.items())
                if offset_range.low > 0
            ]
        )
        keys = sorted({*self.actual, *self.expected})
        for key in keys:
            result.add(key, self.check_slice(key))
        result.entities = len({entity for entity, _ in keys})
        if not keys:
            result.remarks.append("Neither Redis nor what is merged of the log holds anything of this sample.")
        return result

    def check_slice(self, key: SliceKey) -> str | None:
        """What is wrong with one slice; None if nothing is, `UNCHECKED` if that cannot be told."""
        actual, expected = self.actual.get(key), self.expected.get(key)
        if actual is None:
            return UNCHECKED if self.may_have_expired(key) else "the slice should be there, is missing"
        source = key[1]
        if problem := find_defect(source, actual):
            return problem
        if source not in self.offset_ranges:
            return self._check_orphaned(source)
        if (offset := slice_offset(actual)) >= self.offset_ranges[source].high:
            return f"offset should be below the log's end at {self.offset_ranges[source].high}, is {offset}"
        if actual == expected:
            return None
        if self.offset_ranges[source].low > 0:
            return UNCHECKED
        if expected is None:
            return "the slice should not be there: no event of its log touches the entity"
        return find_first_difference(expected, actual)

    def _check_orphaned(self, source: str) -> str:
        """A slice of a topic that was deleted ages out; one of a partition that its topic never had is wrong."""
        if source_topic(source) in map(source_topic, self.offset_ranges):
            return f"its topic should have the partition `{source}`, has none"
        return UNCHECKED


def source_topic(source: str) -> str:
    return source.rpartition("/")[0]


def slice_offset(record: bytes) -> int:
    """The position that stands in a whole record."""
    return int(np.frombuffer(record, RECORD)["offset"][0])
