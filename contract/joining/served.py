"""Rows as served become examples: one row of each group, and the labels of one stage.

A revision is not a running number. It names what is known, so the same revision of an example always says the same, in
whatever order its parts arrived and however often they are read again after a crash.
"""

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum

from msgspec.structs import replace

from contract.rows import Example, Packed, Scored


class Stage(IntEnum):
    """What is known of an item that was shown; the revision of its example."""

    NOT_CLICKED = 0
    CLICKED = 1
    NOT_BOUGHT = 2  # clicked, and not bought so far
    BOUGHT = 3


class Relevance(IntEnum):
    """What is known of an item of a search that somebody clicked in; the revision of its example."""

    PASSED_OVER = 0
    CHOSEN = 1


def fits(row: Scored) -> bool:
    """Whether the item block of a row has one row for each of its items."""
    block = row.groups.get("item")
    if block is None or not row.items or block.rows != len(row.items):
        return False
    return len(block.numbers) % block.rows == 0 and len(block.ids) % block.rows == 0


def one_row(block: Packed, at: int) -> Packed:
    """One row of a block."""
    numbers, ids = len(block.numbers) // block.rows, len(block.ids) // block.rows
    return Packed(1, block.numbers[at * numbers : (at + 1) * numbers], block.ids[at * ids : (at + 1) * ids])


def whole(row: Scored, labels: dict[str, float | str], known_ms: dict[str, int], revision: int) -> Example:
    """The example of a row that was judged as a whole."""
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
        served=said_of(row.scores, 0),
        shadow=said_of(row.shadow, 0),
    )


def said_of(scores: Mapping[str, Sequence[float]], at: int) -> dict[str, float]:
    """What a model said, by task, of the row at this place; what is not finite says nothing."""
    return {task: of[at] for task, of in scores.items() if at < len(of) and math.isfinite(of[at])}


def pair(row: Scored, item_id: str, ts_ms: int, groups: Sequence[str]) -> Example:
    """The example, without labels yet, of one of a row's items; `groups` are those kept beside the item's."""
    kept = {group: row.groups[group] for group in groups if group in row.groups}
    at = row.items.index(item_id)
    item = one_row(row.groups["item"], at)
    example = whole(row, {}, {}, 0)
    return replace(
        example,
        example_id=f"{row.event_id}~{item_id}",
        ts_ms=ts_ms,
        groups={**kept, "item": item},
        item_id=item_id,
        propensity=row.propensities[at] if at < len(row.propensities) else 1.0,
        served=said_of(row.scores, at),
        shadow=said_of(row.shadow, at),
    )


def labelled(example: Example, revision: int, labels: dict[str, tuple[float, int]]) -> Example:
    """The example with further labels, each a value and the time at which it became known."""
    return replace(
        example,
        revision=int(revision),
        labels=example.labels | {task: value for task, (value, _) in labels.items()},
        known_ms=example.known_ms | {task: ms for task, (_, ms) in labels.items()},
    )
