"""A verdict: what Redis holds of some entities beside what their log makes of them. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from contract.profiles import RECORD
from worker.difference import defect, first_difference
from worker.follower import Extent

SHOWN: Final = 10
Pair: TypeAlias = tuple[str, str]  # entity and source
UNCHECKED: Final = "unchecked"


@dataclass(slots=True)
class Verdict:
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

    def note(self, pair: Pair, outcome: str | None) -> None:
        """Count one slice: None if it is as it should be."""
        self.slices += 1
        self.unchecked += outcome == UNCHECKED
        if outcome is not None and outcome != UNCHECKED:
            self.mismatches += 1
            if len(self.differences) < SHOWN:
                self.differences.append(f"{pair[0]}, {pair[1]}: {outcome}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Slices as they were `found` and as a recount says they `should` be, and what is left of the `logs` of sources."""

    found: Mapping[Pair, bytes]
    should: Mapping[Pair, bytes]
    logs: Mapping[str, Extent]
    may_be_dropped: Callable[[Pair], bool]

    def verdict(self) -> Verdict:
        """The whole, in the order of entities and sources."""
        verdict = Verdict(
            remarks=[
                f"The log of {source} begins at {log.low}, no longer at 0: older slices of it cannot be checked."
                for source, log in sorted(self.logs.items())
                if log.low > 0
            ]
        )
        pairs = sorted({*self.found, *self.should})
        for pair in pairs:
            verdict.note(pair, self.judge(pair))
        verdict.entities = len({entity for entity, _ in pairs})
        if not pairs:
            verdict.remarks.append("Neither Redis nor what is merged of the log holds anything of this sample.")
        return verdict

    def judge(self, pair: Pair) -> str | None:
        """What is wrong with one slice; None if nothing is, `UNCHECKED` if that cannot be told."""
        found, should = self.found.get(pair), self.should.get(pair)
        if found is None:
            return UNCHECKED if self.may_be_dropped(pair) else "the slice should be there, is missing"
        source = pair[1]
        if wrong := defect(source, found):
            return wrong
        if source not in self.logs:
            return self._stray(source)
        if (offset := offset_of(found)) >= self.logs[source].high:
            return f"offset should be below the log's end at {self.logs[source].high}, is {offset}"
        if found == should:
            return None
        if self.logs[source].low > 0:
            return UNCHECKED
        if should is None:
            return "the slice should not be there: no event of its log touches the entity"
        return first_difference(should, found)

    def _stray(self, source: str) -> str:
        """A slice of a topic that was deleted ages out; one of a partition that its topic never had is wrong."""
        if topic_of(source) in map(topic_of, self.logs):
            return f"its topic should have the partition `{source}`, has none"
        return UNCHECKED


def topic_of(source: str) -> str:
    return source.rpartition("/")[0]


def offset_of(record: bytes) -> int:
    """The position that stands in a whole record."""
    return int(np.frombuffer(record, RECORD)["offset"][0])
