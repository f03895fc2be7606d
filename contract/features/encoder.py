"""Encoding a folded batch: what was known before or after its events, as the blocks that a model reads.

The worker serves from it and `training replay` rebuilds history with it, so a feature has one meaning.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from contract.events.model import Product, UserEvent
from contract.features.columns import CountAbsent, ProfileAggregates, ignore_absent
from contract.features.declaration import Block, FeatureSet
from contract.profiles.store import FoldedBatch

T = TypeVar("T", np.float64, np.uint64)
EMPTY_AGGREGATES: Final = ProfileAggregates({}, {})


class UnknownItem(NamedTuple):
    """An item that is not on the product topic: only its id is known."""

    item_id: str


class Encoder:
    """Turns the aggregates of a `FoldedBatch` into the blocks of a feature set.

    `count_absent` is called for attributes of events that are missing or of another type.
    """

    def __init__(self, features: FeatureSet, count_absent: CountAbsent = ignore_absent) -> None:
        self.features, self._count_absent = features, count_absent
        self.kinds = tuple(dict.fromkeys(f.entity_kind for f in features.features if f.entity_kind))

    def encode_before(self, folded: FoldedBatch, rows: Sequence[int], groups: Sequence[str]) -> dict[str, Block]:
        """Blocks of N rows for the batch's arrivals `rows`, as known before each of them."""
        events = [folded.updates.arrivals[row].event for row in rows]
        aggregates = self.gather_aggregates(folded, rows)
        return {group: self.features.encode(group, events, aggregates, self._count_absent) for group in groups}

    def encode_after(self, folded: FoldedBatch, events: Sequence[UserEvent], groups: Sequence[str]) -> dict[str, Block]:
        """Blocks of N rows for users as they are after the batch, each at the time of its given event."""
        users = [f"user:{event.user_id}" for event in events]
        user_aggregates, recent_ids = folded.read_at(users, [event.ts_ms for event in events])
        aggregates = ProfileAggregates({"user": user_aggregates}, {"user": recent_ids})
        return {group: self.features.encode(group, events, aggregates) for group in groups}

    def encode_items(self, products: Sequence[Product | UnknownItem]) -> Block:
        """The item block of N products; of an `UnknownItem` all but the id is absent."""
        return self.features.encode("item", products, EMPTY_AGGREGATES)  # type: ignore[arg-type]

    def gather_aggregates(self, folded: FoldedBatch, rows: Sequence[int]) -> ProfileAggregates:
        """What profiles knew of the first entity of each kind that an event updates; NaN and 0 where there is none."""
        firsts = {kind: folded.updates.find_first(kind)[np.asarray(rows, np.int64)] for kind in self.kinds}
        return ProfileAggregates(
            {kind: gather_rows(folded.aggregates_before, first, np.nan) for kind, first in firsts.items()},
            {kind: gather_rows(folded.recent_ids, first, 0) for kind, first in firsts.items()},
        )


def gather_rows(rows: npt.NDArray[T], indices: npt.NDArray[np.int64], absent: float) -> npt.NDArray[T]:
    """The rows (N, C) at `indices`, filled with `absent` where an index is -1."""
    is_absent = indices < 0
    if is_absent.all():
        return np.full((len(indices), rows.shape[1]), absent, rows.dtype)
    gathered: npt.NDArray[T] = rows[indices]  # -1 takes the last row, which is overwritten below
    gathered[is_absent] = absent
    return gathered


def list_entities(folded: FoldedBatch, rows: Sequence[int]) -> list[tuple[str, ...]]:
    """The entities (`kind:id`) that each of these arrivals of the batch updates."""
    names, start = folded.updates.entities, folded.updates.start.tolist()
    update_entities = [names[entity] for entity in folded.updates.entity.tolist()]
    return [tuple(update_entities[start[row] : start[row + 1]]) for row in rows]
