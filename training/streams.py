"""What drift is looked for in: each declared feature, and each task's score, as a column of numbers or of bins.

Ids become bins by their hash, whatever is frequent: bins that were chosen for being frequent in the reference would be
less so in every block to come. Features that the clock alone decides (hour, weekday) are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.features import Block, FeatureSet, Span
from training.people import Taken

BINS: Final = 15  # beside that of no id
CLOCKED: Final = ("event.hour", "event.weekday")
SCORE: Final = "score"


@dataclass(frozen=True, slots=True)
class Column:
    """Values (N,): float64 numbers, NaN where unknown; or int64 bins."""

    values: npt.NDArray[Any]

    @property
    def is_binned(self) -> bool:
        return self.values.dtype == np.int64


def columns_of(rows: Sequence[Taken], features: FeatureSet) -> dict[str, Column]:
    """Every column of some rows of one kind, by name; scores as `score.TASK@VERSION`."""
    found = dict[str, Column]()
    for group in {group: None for row in rows for group in row.groups}:
        found |= columns_in(block_of(group, rows, features), group, features)
    for version in {row.version: None for row in rows if row.version}:
        own = [row.scores for row in rows if row.version == version]
        for task in {task: None for scores in own for task in scores}:
            values = [scores.get(task, np.nan) for scores in own]
            found[f"{SCORE}.{task}@{version}"] = Column(np.array(values, np.float64))
    return found


def block_of(group: str, rows: Sequence[Taken], features: FeatureSet) -> Block:
    """The group's block of those rows that have it."""
    packed = [row.groups[group] for row in rows if group in row.groups]
    n, m = features.widths(group)
    numbers = np.frombuffer(b"".join(one.numbers for one in packed), "<f4")
    return Block(
        numbers.reshape(len(packed), n),
        np.frombuffer(b"".join(one.ids for one in packed), "<i8").reshape(len(packed), m),
    )


def fits(row: Taken, features: FeatureSet) -> bool:
    """Whether a row's blocks are as wide as the features say."""
    return all(
        (len(packed.numbers), len(packed.ids)) == (4 * n, 8 * m)
        for group, packed in row.groups.items()
        for n, m in [features.widths(group)]
    )


def columns_in(block: Block, group: str, features: FeatureSet) -> dict[str, Column]:
    """The columns of one group's features."""
    found = {
        feature.name: Column(block.numbers[:, at].astype(np.float64))
        for at, feature in enumerate(features.numbers(group))
        if feature.source not in CLOCKED
    }
    for span in features.vectors(group):
        part = block.numbers[:, span.start : span.start + span.width].astype(np.float64)
        found[f"{span.feature.name}.length"] = Column(np.sqrt(np.square(part).sum(1)))
    for span in features.spans(group):
        found |= dict(columns_in_span(block.ids[:, span.start : span.start + span.width], span))
    return found


def columns_in_span(ids: npt.NDArray[np.int64], span: Span) -> Iterator[tuple[str, Column]]:
    """Of a category its id; of a text or a sequence the first id, and how many there are."""
    name = span.feature.name
    yield name, Column(np.where(ids[:, 0] == 0, 0, 1 + ids[:, 0] % BINS))
    if span.width > 1:
        yield f"{name}.length", Column((ids != 0).sum(1).astype(np.float64))


def named(column: str) -> str:
    """A column's name without the version."""
    return column.partition("@")[0]


def versions_in(columns: Mapping[str, Column]) -> set[str]:
    return {column.partition("@")[2] for column in columns if "@" in column}
