"""What drift is looked for in: each declared feature, and each task's score, as a column of numbers or of bins.

Ids become bins by their hash, whatever is frequent: bins that were chosen for being frequent in the reference would be
less so in every block to come. Features that the clock alone decides (hour, weekday) are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.features.declaration import Block, FeatureSet, Span
from training.monitor.user_sample import SampledRow

BINS: Final = 15  # beside that of no id
CLOCK_SOURCES: Final = ("event.hour", "event.weekday")
SCORE: Final = "score"


@dataclass(frozen=True, slots=True)
class DriftColumn:
    """Values (N,): float64 numbers, NaN where unknown; or int64 bins."""

    values: npt.NDArray[Any]

    @property
    def is_binned(self) -> bool:
        return self.values.dtype == np.int64


def extract_columns(rows: Sequence[SampledRow], features: FeatureSet) -> dict[str, DriftColumn]:
    """Every column of some rows of one kind, by name; scores as `score.TASK@VERSION`."""
    columns = dict[str, DriftColumn]()
    for group in {group: None for row in rows for group in row.groups}:
        columns |= extract_group_columns(unpack_block(group, rows, features), group, features)
    for version in {row.version: None for row in rows if row.version}:
        version_scores = [row.scores for row in rows if row.version == version]
        for task in {task: None for scores in version_scores for task in scores}:
            values = [scores.get(task, np.nan) for scores in version_scores]
            columns[f"{SCORE}.{task}@{version}"] = DriftColumn(np.array(values, np.float64))
    return columns


def unpack_block(group: str, rows: Sequence[SampledRow], features: FeatureSet) -> Block:
    """The group's block of those rows that have it."""
    packed = [row.groups[group] for row in rows if group in row.groups]
    n, m = features.widths(group)
    numbers = np.frombuffer(b"".join(row_block.numbers for row_block in packed), "<f4")
    return Block(
        numbers.reshape(len(packed), n),
        np.frombuffer(b"".join(row_block.ids for row_block in packed), "<i8").reshape(len(packed), m),
    )


def has_declared_widths(row: SampledRow, features: FeatureSet) -> bool:
    """Whether a row's blocks are as wide as the features say."""
    return all(
        (len(packed.numbers), len(packed.ids)) == (4 * n, 8 * m)
        for group, packed in row.groups.items()
        for n, m in [features.widths(group)]
    )


def extract_group_columns(block: Block, group: str, features: FeatureSet) -> dict[str, DriftColumn]:
    """The columns of one group's features."""
    columns = {
        feature.name: DriftColumn(block.numbers[:, position].astype(np.float64))
        for position, feature in enumerate(features.numbers(group))
        if feature.source not in CLOCK_SOURCES
    }
    for span in features.vectors(group):
        part = block.numbers[:, span.start : span.start + span.width].astype(np.float64)
        columns[f"{span.feature.name}.length"] = DriftColumn(np.sqrt(np.square(part).sum(1)))
    for span in features.spans(group):
        columns |= dict(extract_span_columns(block.ids[:, span.start : span.start + span.width], span))
    return columns


def extract_span_columns(ids: npt.NDArray[np.int64], span: Span) -> Iterator[tuple[str, DriftColumn]]:
    """Of a category its id; of a text or a sequence the first id, and how many there are."""
    name = span.feature.name
    yield name, DriftColumn(np.where(ids[:, 0] == 0, 0, 1 + ids[:, 0] % BINS))
    if span.width > 1:
        yield f"{name}.length", DriftColumn((ids != 0).sum(1).astype(np.float64))


def strip_version(column: str) -> str:
    """A column's name without the version."""
    return column.partition("@")[0]


def list_versions(columns: Mapping[str, DriftColumn]) -> set[str]:
    return {column.partition("@")[2] for column in columns if "@" in column}
