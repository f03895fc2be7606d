"""The columns that drift tests compare: each declared feature and each task's score, as numbers or bins.

Ids are binned by hash and not by frequency: bins chosen as frequent in the reference would be less frequent in every
later block (regression to the mean). Features that depend on the clock alone (hour, weekday) are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.features.declaration import Block, FeatureSet, Span
from contract.hashing import hash_texts
from training.monitor.user_sample import SampledRow

BINS: Final = 15  # in addition to that of no id
CLOCK_SOURCES: Final = ("event.hour", "event.weekday")
SCORE: Final = "score"


@dataclass(frozen=True, slots=True, eq=False)
class RowOwners:
    """Hashes of the users (as entities) of N rows, and the rows' times; columns of the same rows share one object."""

    users: npt.NDArray[np.uint64]
    ts_ms: npt.NDArray[np.int64]

    @classmethod
    def of_rows(cls, rows: Sequence[SampledRow]) -> "RowOwners":
        return cls(hash_texts(f"user:{row.user_id}" for row in rows), np.array([row.ts_ms for row in rows], np.int64))

    def find_erased(self, until_ms: Mapping[int, int]) -> npt.NDArray[np.bool_]:
        """The rows (N,) that erasures cover, given the times of these by the hash of the user."""
        pairs = zip(self.users.tolist(), self.ts_ms.tolist(), strict=True)
        return np.array([ts_ms <= until_ms.get(user, -1) for user, ts_ms in pairs], np.bool_)


@dataclass(frozen=True, slots=True)
class DriftColumn:
    """Values (N,): float64 numbers, NaN where unknown; or int64 bins; and whose they are."""

    values: npt.NDArray[Any]
    owners: RowOwners

    @property
    def is_binned(self) -> bool:
        return self.values.dtype == np.int64


def extract_columns(rows: Sequence[SampledRow], features: FeatureSet) -> dict[str, DriftColumn]:
    """Every column of rows of one kind, by name; scores as `score.TASK@VERSION`."""
    columns = dict[str, DriftColumn]()
    for group in {group: None for row in rows for group in row.groups}:
        owners = RowOwners.of_rows([row for row in rows if group in row.groups])
        values_by_name = extract_group_columns(unpack_block(group, rows, features), group, features)
        columns |= {name: DriftColumn(values, owners) for name, values in values_by_name.items()}
    for version in {row.version: None for row in rows if row.version}:
        version_rows = [row for row in rows if row.version == version]
        owners = RowOwners.of_rows(version_rows)
        for task in {task: None for row in version_rows for task in row.scores}:
            scores = np.array([row.scores.get(task, np.nan) for row in version_rows], np.float64)
            columns[f"{SCORE}.{task}@{version}"] = DriftColumn(scores, owners)
    return columns


def unpack_block(group: str, rows: Sequence[SampledRow], features: FeatureSet) -> Block:
    """The group's block of the rows that have it."""
    packed = [row.groups[group] for row in rows if group in row.groups]
    n, m = features.widths(group)
    numbers = np.frombuffer(b"".join(block.numbers for block in packed), "<f4")
    ids = np.frombuffer(b"".join(block.ids for block in packed), "<i8")
    return Block(numbers.reshape(len(packed), n), ids.reshape(len(packed), m))


def has_declared_widths(row: SampledRow, features: FeatureSet) -> bool:
    """Whether a row's blocks are as wide as the features declare."""
    return all(
        (len(packed.numbers), len(packed.ids)) == (4 * n, 8 * m)
        for group, packed in row.groups.items()
        for n, m in [features.widths(group)]
    )


def extract_group_columns(block: Block, group: str, features: FeatureSet) -> dict[str, npt.NDArray[Any]]:
    """The values of the columns of one group's features."""
    columns = {
        feature.name: block.numbers[:, position].astype(np.float64)
        for position, feature in enumerate(features.numbers(group))
        if feature.source not in CLOCK_SOURCES
    }
    for span in features.vectors(group):
        part = block.numbers[:, span.start : span.start + span.width].astype(np.float64)
        columns[f"{span.feature.name}.length"] = np.sqrt(np.square(part).sum(1))
    for span in features.spans(group):
        columns |= dict(extract_span_columns(block.ids[:, span.start : span.start + span.width], span))
    return columns


def extract_span_columns(ids: npt.NDArray[np.int64], span: Span) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The id of a category; the first id of a text or sequence, and its length."""
    name = span.feature.name
    yield name, np.where(ids[:, 0] == 0, 0, 1 + ids[:, 0] % BINS)
    if span.width > 1:
        yield f"{name}.length", (ids != 0).sum(1).astype(np.float64)


def strip_version(column: str) -> str:
    """The column's name without the model version."""
    return column.partition("@")[0]


def list_versions(columns: Mapping[str, DriftColumn]) -> set[str]:
    """The model versions of the score columns."""
    return {column.partition("@")[2] for column in columns if "@" in column}
