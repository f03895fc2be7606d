"""Drift detection: compares served rows with a reference, at a configured rate of false alarms.

Each block of rows is compared with the reference column by column. A block of E rows may raise E / `events_per_alarm`
false alarms, a budget that its tests share evenly (Bonferroni). After an alarm the block becomes the reference, so that
one shift raises one alarm and not one per block.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from contract.features.declaration import FeatureSet
from contract.messages import ScoredRow
from contract.profiles.erasures import Erasures
from contract.settings.monitor import MonitorConfig
from training.monitor.compared_until import ComparedUntil
from training.monitor.drift_columns import (
    DriftColumn,
    extract_columns,
    has_declared_widths,
    list_versions,
    strip_version,
)
from training.monitor.drift_reference import DriftReferences
from training.monitor.two_sample_tests import compare_column
from training.monitor.user_sample import UserSample

LEVEL_MAX: Final = 0.05  # significance level of one block, however small `events_per_alarm` is


@dataclass(frozen=True, slots=True)
class Alarm:
    """A column of one kind of rows that differs from the reference, with its p-value and event time."""

    kind: str
    column: str
    p: float
    ts_ms: int


@dataclass(frozen=True, slots=True)
class BlockComparison:
    """A completed block and its alarms, usually none."""

    kind: str
    alarms: tuple[Alarm, ...]


class DriftDetector:
    """Compares scored rows, each kind in blocks of its own."""

    def __init__(self, *, features: FeatureSet, config: MonitorConfig, folder: Path | None = None) -> None:
        """`folder`: stores the references, and up to when rows were compared, over restarts."""
        self._features, self._config = features, config
        self._open_blocks: dict[str, UserSample] = {}
        self._references = DriftReferences(digest=features.digest, folder=folder)
        self._compared = ComparedUntil(folder=folder)
        self._blocks_begun = 0

    def has_compared(self, row: ScoredRow) -> bool:
        """Whether the row is older than the last complete block of its kind, maybe of an earlier process."""
        return self._compared.has_passed(row.kind, row.ts_ms)

    def observe(self, row: ScoredRow) -> BlockComparison | None:
        """Add a row of these features; returns the comparison of the block that it completes, if any.

        A row that is older than the last complete block is ignored.
        """
        if self.has_compared(row):
            return None
        block = self._open_blocks.get(row.kind)
        if block is None:
            self._blocks_begun += 1
            block = self._open_blocks[row.kind] = UserSample(size=self._config.block, seed=self._blocks_begun)
        block.add(row)
        if len(block) < self._config.block or block.span_ms < self._config.block_s * 1_000:
            return None
        del self._open_blocks[row.kind]
        comparison = self._compare(row.kind, block)
        self._compared.advance(row.kind, block.last_ms)
        return comparison

    def erase(self, erasures: Erasures) -> None:
        """Remove the rows of erased people from open blocks and references; raises `BadBundle`."""
        for block in self._open_blocks.values():
            block.erase(erasures)
        self._references.erase(erasures)

    def _compare(self, kind: str, block: UserSample) -> BlockComparison | None:
        """Test every column of the block; None if the block becomes the first reference."""
        current = extract_columns([row for row in block if has_declared_widths(row, self._features)], self._features)
        reference = self._references.read(kind)
        if reference is None:
            self._references.write(kind, current)
            return None
        rng = np.random.default_rng(block.seed)
        names = sorted(current.keys() & reference.keys())
        tests = [test for name in names for test in compare_column(name, reference[name], current[name], rng)]
        level = min(block.rows / self._config.events_per_alarm, LEVEL_MAX) / max(len(tests), 1)
        rejected = sorted([test for test in tests if test[1] < level], reverse=True)
        p_values = dict(rejected)  # the last and lowest of each name
        alarms = tuple(Alarm(kind, strip_version(name), p, block.last_ms) for name, p in sorted(p_values.items()))
        self._references.write(kind, current if alarms else update_reference(reference, current))
        return BlockComparison(kind, alarms)


def update_reference(
    reference: Mapping[str, DriftColumn], current: Mapping[str, DriftColumn]
) -> dict[str, DriftColumn]:
    """The reference with new columns added, and the scores of models that no longer serve removed."""
    versions = list_versions(current)
    valid = {name: column for name, column in reference.items() if not list_versions({name: column}) - versions}
    return {**current, **valid}
