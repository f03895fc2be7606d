"""Drift: whether what is served now is still like the reference, with false alarms as rare as was asked for.

A block of rows is compared with the reference column by column. How unlikely a difference must be follows from what was
asked for: a block of E rows may raise E / `events_per_alarm` false alarms, which its questions share evenly
(Bonferroni). What an alarm has found is the reference from then on: one shift is one alarm, not one for each block.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from contract.features import FeatureSet
from contract.rows import Scored
from training.people import People
from training.references import References
from training.samples import chances
from training.streams import Column, columns_of, fits, named, versions_in
from training.watching import Watching

LEVEL_MAX: Final = 0.05  # of one block, however few events an alarm may take


@dataclass(frozen=True, slots=True)
class Alarm:
    """A column of rows of a kind that is no longer like the reference: how likely that is by chance, and when."""

    kind: str
    column: str
    p: float
    ts_ms: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A block that is complete, and what is no longer like the reference in it; mostly nothing."""

    kind: str
    alarms: tuple[Alarm, ...]


class Drift:
    """Takes scored rows as they come, those of each kind by themselves."""

    def __init__(self, *, features: FeatureSet, watching: Watching, folder: Path | None = None) -> None:
        """`folder`: where references are kept for the next watcher."""
        self._features, self._watching = features, watching
        self._open: dict[str, People] = {}
        self._references = References(digest=features.digest, folder=folder)
        self._drawn = 0

    def take(self, row: Scored) -> Compared | None:
        """Take a row of these features; returns what came of the block that it completes, if it does."""
        block = self._open.get(row.kind)
        if block is None:
            self._drawn += 1
            block = self._open[row.kind] = People(size=self._watching.block, number=self._drawn)
        block.add(row)
        if len(block) < self._watching.block or block.span_ms < self._watching.block_s * 1_000:
            return None
        del self._open[row.kind]
        return self._compare(row.kind, block)

    def _compare(self, kind: str, block: People) -> Compared | None:
        """Ask of every column of the block whether it is still that of the reference."""
        now = columns_of([row for row in block if fits(row, self._features)], self._features)
        reference = self._references.read(kind)
        if reference is None:
            self._references.write(kind, now)
            return None
        chance, names = np.random.default_rng(block.number), sorted(now.keys() & reference.keys())
        asked = [one for name in names for one in chances(name, reference[name], now[name], chance)]
        level = min(block.rows / self._watching.events_per_alarm, LEVEL_MAX) / max(len(asked), 1)
        found = dict(sorted([one for one in asked if one[1] < level], reverse=True))  # of a column's chances the least
        alarms = tuple(Alarm(kind, named(name), p, block.last_ms) for name, p in sorted(found.items()))
        self._references.write(kind, now if alarms else renewed(reference, now))
        return Compared(kind, alarms)


def renewed(reference: Mapping[str, Column], now: Mapping[str, Column]) -> dict[str, Column]:
    """The reference, with what it lacks, without the scores of models that serve no more."""
    present = versions_in(now)
    kept = {name: column for name, column in reference.items() if not versions_in({name: column}) - present}
    return {**now, **kept}
