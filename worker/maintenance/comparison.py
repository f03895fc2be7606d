"""Compares slices, histories and logins of Redis with those that the log gives. No I/O."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from contract.hashing import bucket_of
from contract.history.sources import is_history_source
from contract.profiles.histories import find_history_defect
from contract.profiles.logins import find_logins_defect
from contract.profiles.record import RECORD
from transport.records import OffsetRange
from worker.maintenance.record_diff import (
    find_defect,
    find_first_difference,
    find_first_different_entry,
    find_first_different_login,
)

DIFFERENCES_MAX: Final = 10
SliceKey: TypeAlias = tuple[str, str]  # entity and source


class Unchecked(StrEnum):
    """Why a slice or a history cannot be checked."""

    TRUNCATED = "retention deleted the beginning of their log"
    ORPHANED = "their topic was deleted"
    HISTORIC = "they are from a history, not from a log"
    EXPIRED = "not written for so long that Redis may have expired them"
    ERASING = "a worker has not yet carried out an erasure"
    BEYOND_LOG = "the merged offset of their bucket is beyond the log"
    LATE = "their histories begin later than the state: rebuild it to have them whole"


class RecordKind(NamedTuple):
    """How records that go with slices are compared."""

    missing: str
    superfluous: str
    find_defect: Callable[[bytes], str | None]
    find_difference: Callable[[bytes, bytes], str | None]


class RecordPair(NamedTuple):
    """The records of one kind in Redis, and those that the log gives."""

    actual: Mapping[SliceKey, bytes]
    expected: Mapping[SliceKey, bytes]


HISTORY: Final = RecordKind(
    "the history should be there, is missing",
    "the history should not be there: no event of its log is an entry",
    find_history_defect,
    find_first_different_entry,
)
LOGINS: Final = RecordKind(
    "the logins should be there, are missing",
    "the logins should not be there: no event of their log tells one",
    find_logins_defect,
    find_first_different_login,
)


@dataclass(slots=True)
class VerificationResult:
    """Counts of what was compared, the first mismatches in words, and remarks for the reader."""

    differences_max: int = DIFFERENCES_MAX
    entities: int = 0
    slices: int = 0
    histories: int = 0
    logins: int = 0
    mismatches: int = 0
    unchecked_by_reason: Counter[Unchecked] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def unchecked(self) -> int:
        return self.unchecked_by_reason.total()

    def add(self, key: SliceKey, outcome: str | None) -> None:
        """Count one slice; `outcome` None: it is correct."""
        self.slices += 1
        self._add_outcome(key, outcome)

    def add_history(self, key: SliceKey, outcome: str | None) -> None:
        """Count one history; `outcome` None: it is correct."""
        self.histories += 1
        self._add_outcome((f"history of {key[0]}", key[1]), outcome)

    def add_logins(self, key: SliceKey, outcome: str | None) -> None:
        """Count one record of logins; `outcome` None: it is correct."""
        self.logins += 1
        self._add_outcome((f"logins of {key[0]}", key[1]), outcome)

    def _add_outcome(self, key: SliceKey, outcome: str | None) -> None:
        if isinstance(outcome, Unchecked):
            self.unchecked_by_reason[outcome] += 1
        elif outcome is not None:
            self.add_mismatch(*key, outcome)

    def add_mismatch(self, name: str, source: str, problem: str) -> None:
        """Count a mismatch of an entity or a bucket."""
        self.mismatches += 1
        if len(self.differences) < self.differences_max:
            self.differences.append(f"{name}, {source}: {problem}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateComparison:
    """The `actual` slices, the `expected` ones recomputed from the log, and the offset range of each source.

    The same of histories and logins. `has_all_histories`: of which sources the state has them from the first offset on.
    `merged_beyond`: the merged offsets beyond the end of their log, by bucket and source. How many events a slice of
    these buckets should hold is unknown.
    """

    actual: Mapping[SliceKey, bytes]
    expected: Mapping[SliceKey, bytes]
    offset_ranges: Mapping[str, OffsetRange]
    may_have_expired: Callable[[SliceKey], bool]
    actual_histories: Mapping[SliceKey, bytes] = field(default_factory=dict)
    expected_histories: Mapping[SliceKey, bytes] = field(default_factory=dict)
    actual_logins: Mapping[SliceKey, bytes] = field(default_factory=dict)
    expected_logins: Mapping[SliceKey, bytes] = field(default_factory=dict)
    has_all_histories: Callable[[str], bool] = lambda _: True
    is_erasing: Callable[[SliceKey], bool] = lambda _: False
    merged_beyond: Mapping[tuple[int, str], int] = field(default_factory=dict)
    differences_max: int = DIFFERENCES_MAX

    def compare(self) -> VerificationResult:
        """Compare all slices, in the order of entities and sources."""
        result = VerificationResult(
            differences_max=self.differences_max,
            remarks=[
                f"The log of {source} begins at {low}, no longer at 0: older slices of it cannot be checked."
                for source, (low, _) in sorted(self.offset_ranges.items())
                if low > 0
            ],
        )
        for (bucket, source), offset in sorted(self.merged_beyond.items()):
            end = self.offset_ranges[source].high
            result.add_mismatch(
                f"bucket {bucket}", source, f"its merged offset should be at most the log's end at {end}, is {offset}"
            )
        keys = sorted({*self.actual, *self.expected})
        for key in keys:
            result.add(key, self.check_slice(key))
        for key in sorted({*self.actual_histories, *self.expected_histories}):
            result.add_history(key, self.check_history(key))
        for key in sorted({*self.actual_logins, *self.expected_logins}):
            result.add_logins(key, self.check_logins(key))
        result.entities = len({entity for entity, _ in keys})
        if not keys:
            result.remarks.append("Neither Redis nor the merged part of the log holds any entity of this sample.")
        return result

    def check_slice(self, key: SliceKey) -> str | None:
        """What is wrong with one slice; None: nothing, `Unchecked`: unknown."""
        return self._excuse(key, self._find_problem(key))

    def check_history(self, key: SliceKey) -> str | None:
        """What is wrong with one history; None: nothing, `Unchecked`: unknown."""
        records = RecordPair(self.actual_histories, self.expected_histories)
        return self._excuse(key, self._find_record_problem(key, HISTORY, records))

    def check_logins(self, key: SliceKey) -> str | None:
        """What is wrong with one record of logins; None: nothing, `Unchecked`: unknown."""
        records = RecordPair(self.actual_logins, self.expected_logins)
        return self._excuse(key, self._find_record_problem(key, LOGINS, records))

    def _excuse(self, key: SliceKey, problem: str | None) -> str | None:
        if problem is not None and self.is_erasing(key):
            return Unchecked.ERASING
        if problem is not None and (bucket_of(key[0]), key[1]) in self.merged_beyond:
            return Unchecked.BEYOND_LOG
        return problem

    def _find_problem(self, key: SliceKey) -> str | None:
        actual, expected, source = self.actual.get(key), self.expected.get(key), key[1]
        if actual is None:
            return Unchecked.EXPIRED if self.may_have_expired(key) else "the slice should be there, is missing"
        if problem := find_defect(source, actual):
            return problem
        if source not in self.offset_ranges:
            return self._check_orphaned(source)
        low, high = self.offset_ranges[source]
        if (offset := slice_offset(actual)) >= high:
            return f"offset should be below the log's end at {high}, is {offset}"
        if actual == expected:
            return None
        if low > 0:
            return Unchecked.TRUNCATED
        if expected is None:
            return "the slice should not be there: no event of its log concerns the entity"
        return find_first_difference(expected, actual)

    def _find_record_problem(self, key: SliceKey, kind: RecordKind, records: RecordPair) -> str | None:
        """What is wrong with a record that goes with a slice."""
        actual, expected, source = records.actual.get(key), records.expected.get(key), key[1]
        if actual == expected:
            return None
        if actual is None:
            if self.may_have_expired(key):
                return Unchecked.EXPIRED
            problem: str | None = kind.missing
        else:
            if defect := kind.find_defect(actual):
                return defect
            if source not in self.offset_ranges:
                return self._check_orphaned(source)
            problem = kind.superfluous if expected is None else kind.find_difference(expected, actual)
        if self.offset_ranges[source].low > 0:
            return Unchecked.TRUNCATED
        return problem if self.has_all_histories(source) else Unchecked.LATE

    def _check_orphaned(self, source: str) -> str:
        """A slice of a deleted topic expires; one of a partition that its topic never had is wrong."""
        if is_history_source(source):
            return Unchecked.HISTORIC
        if source_topic(source) in map(source_topic, self.offset_ranges):
            return f"its topic should have the partition `{source}`, has none"
        return Unchecked.ORPHANED


def source_topic(source: str) -> str:
    return source.rpartition("/")[0]


def slice_offset(record: bytes) -> int:
    """The offset of the last event in a slice of full length."""
    return int(np.frombuffer(record, RECORD)["offset"][0])
