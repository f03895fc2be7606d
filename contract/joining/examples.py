"""Scored rows become examples: one row of each group, and the labels of one stage.

A revision is not a running number. It encodes what is known, so the same revision of an example has the same content in
whatever order its events arrived and however often they are re-read after a crash.
"""

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum

from msgspec.structs import replace

from contract.features.packing import PackedBlock
from contract.messages import Example, ScoredRow


class Stage(IntEnum):
    """What is known about an item that was shown; the revision of its example."""

    NOT_CLICKED = 0
    CLICKED = 1
    NOT_BOUGHT = 2  # clicked, not bought so far
    BOUGHT = 3


class Relevance(IntEnum):
    """What is known about an item of a search with a click; the revision of its example."""

    NOT_CLICKED = 0
    CLICKED = 1


def is_well_formed(row: ScoredRow) -> bool:
    """Whether the item block of a row has one row for each of its items."""
    block = row.groups.get("item")
    if block is None or not row.items or block.rows != len(row.items):
        return False
    return len(block.numbers) % block.rows == 0 and len(block.ids) % block.rows == 0


def row_at(block: PackedBlock, index: int) -> PackedBlock:
    """One row of a block."""
    numbers, ids = len(block.numbers) // block.rows, len(block.ids) // block.rows
    return PackedBlock(
        1, block.numbers[index * numbers : (index + 1) * numbers], block.ids[index * ids : (index + 1) * ids]
    )


def example_from_row(
    row: ScoredRow, labels: dict[str, float | str], known_ms: dict[str, int], revision: int
) -> Example:
    """The example of a row without items."""
    return Example(
        example_id=row.event_id,
        revision=revision,
        event_id=row.event_id,
        user_id=row.user_id,
        ts_ms=row.ts_ms,
        model_version=row.model_version,
        features=row.features,
        groups=row.groups,
        labels=labels,
        known_ms=known_ms,
        entities=row.entities,
        shadow_version=row.shadow_version,
        served=scores_at(row.scores, 0),
        shadow=scores_at(row.shadow, 0),
        experiments=row.experiments,
    )


def scores_at(scores: Mapping[str, Sequence[float]], index: int) -> dict[str, float]:
    """A model's finite scores, by task, of the row at this index."""
    return {
        task: values[index] for task, values in scores.items() if index < len(values) and math.isfinite(values[index])
    }


def example_for_item(row: ScoredRow, item_id: str, ts_ms: int, groups: Sequence[str]) -> Example:
    """The example, without labels yet, of one item of a row; `groups`: those to keep in addition to the item's."""
    context = {group: row.groups[group] for group in groups if group in row.groups}
    index = row.items.index(item_id)
    item = row_at(row.groups["item"], index)
    example = example_from_row(row, {}, {}, 0)
    return replace(
        example,
        example_id=f"{row.event_id}~{item_id}",
        ts_ms=ts_ms,
        groups={**context, "item": item},
        item_id=item_id,
        propensity=row.propensities[index] if index < len(row.propensities) else 1.0,
        served=scores_at(row.scores, index),
        shadow=scores_at(row.shadow, index),
    )


def add_labels(example: Example, revision: int, labels: dict[str, tuple[float, int]]) -> Example:
    """The example with more labels, each a value and the event time at which it became known."""
    return replace(
        example,
        revision=int(revision),
        labels=example.labels | {task: value for task, (value, _) in labels.items()},
        known_ms=example.known_ms | {task: ms for task, (_, ms) in labels.items()},
    )
