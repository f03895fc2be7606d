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

from contract.features.declaration import FeatureSet
from contract.messages import ScoredRow
from contract.settings import MonitorConfig
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

LEVEL_MAX: Final = 0.05  # of one block, however few events an alarm may take


@dataclass(frozen=True, slots=True)
class Alarm:
    """A column of rows of a kind that is no longer like the reference: how likely that is by chance, and when."""

    kind: str
    column: str
    p: float
    ts_ms: int


@dataclass(frozen=True, slots=True)
class BlockComparison:
    """A block that is complete, and what is no longer like the reference in it; mostly nothing."""

    kind: str
    alarms: tuple[Alarm, ...]


class DriftDetector:
    """Takes scored rows as they come, those of each kind by themselves."""

    def __init__(self, *, features: FeatureSet, config: MonitorConfig, folder: Path | None = None) -> None:
        """`folder`: where references are kept for the next watcher."""
        self._features, self._config = features, config
        self._open_blocks: dict[str, UserSample] = {}
        self._references = DriftReferences(digest=features.digest, folder=folder)
        self._blocks_begun = 0

    def observe(self, row: ScoredRow) -> BlockComparison | None:
        """Take a row of these features; returns what came of the block that it completes, if it does."""
        block = self._open_blocks.get(row.kind)
        if block is None:
            self._blocks_begun += 1
            block = self._open_blocks[row.kind] = UserSample(size=self._config.block, seed=self._blocks_begun)
        block.add(row)
        if len(block) < self._config.block or block.span_ms < self._config.block_s * 1_000:
            return None
        del self._open_blocks[row.kind]
        return self._compare(row.kind, block)

    def _compare(self, kind: str, block: UserSample) -> BlockComparison | None:
        """Ask of every column of the block whether it is still that of the reference."""
        current = extract_columns([row for row in block if has_declared_widths(row, self._features)], self._features)
        reference = self._references.read(kind)
        if reference is None:
            self._references.write(kind, current)
            return None
        rng, names = np.random.default_rng(block.seed), sorted(current.keys() & reference.keys())
        tests = [test for name in names for test in compare_column(name, reference[name], current[name], rng)]
        level = min(block.rows / self._config.events_per_alarm, LEVEL_MAX) / max(len(tests), 1)
        rejected = dict(
            sorted([test for test in tests if test[1] < level], reverse=True)
        )  # of a column's chances the least
        alarms = tuple(Alarm(kind, strip_version(name), p, block.last_ms) for name, p in sorted(rejected.items()))
        self._references.write(kind, current if alarms else update_reference(reference, current))
        return BlockComparison(kind, alarms)


def update_reference(
    reference: Mapping[str, DriftColumn], current: Mapping[str, DriftColumn]
) -> dict[str, DriftColumn]:
    """The reference, with what it lacks, without the scores of models that serve no more."""
    versions = list_versions(current)
    still_valid = {name: column for name, column in reference.items() if not list_versions({name: column}) - versions}
    return {**current, **still_valid}
