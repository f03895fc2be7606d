"""Encoding: what was known around a batch's events, as the blocks that a model reads and as the rows that are logged.

The worker serves from it and `training replay` rebuilds history with it, so a feature has one meaning.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from contract.events import Event, Product, Search, UserEvent
from contract.features import Block, FeatureSet, Known
from contract.memory import Memory
from contract.profiles import ENTITY_KINDS
from contract.rows import Packed, Scored, ScoredKind, pack_each
from contract.touches import Arrival

T = TypeVar("T", np.float64, np.uint64)
NOTHING_KNOWN: Final = Known({}, {})


class UnknownItem(NamedTuple):
    """An item that is on no product topic: only its id is known."""

    item_id: str


class Encoder:
    """Turns what `memory` knew into the blocks of a feature set."""

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        heads = [f.source.split(".") for f in features.features if f.source.startswith("profile.")]
        self.kinds = tuple(kind for kind in ENTITY_KINDS if any(head[1] == kind for head in heads))

    def before(self, memory: Memory, rows: Sequence[int], groups: Sequence[str]) -> dict[str, Block]:
        """Blocks of N rows for the batch's arrivals `rows`, as known before each of them."""
        events = [memory.touches.arrivals[row].event for row in rows]
        known = self.known_before(memory, rows)
        return {group: self.features.encode(group, events, known) for group in groups}

    def after(self, memory: Memory, events: Sequence[UserEvent], groups: Sequence[str]) -> dict[str, Block]:
        """Blocks of N rows for users as they are after the batch, each at the time of its given event."""
        users = [f"user:{event.user_id}" for event in events]
        aggregates, recent = memory.look(users, [event.ts_ms for event in events])
        known = Known({"user": aggregates}, {"user": recent})
        return {group: self.features.encode(group, events, known) for group in groups}

    def items(self, products: Sequence[Product | UnknownItem]) -> Block:
        """The item block of N products; of an `UnknownItem` all but the id is absent."""
        return self.features.encode("item", products, NOTHING_KNOWN)  # type: ignore[arg-type]

    def known_before(self, memory: Memory, rows: Sequence[int]) -> Known:
        """What profiles knew: of each kind the first entity that the event touches, NaN and 0 where there is none."""
        firsts = {kind: memory.touches.first(kind)[np.asarray(rows, np.int64)] for kind in self.kinds}
        return Known(
            {kind: taken(memory.before, first, np.nan) for kind, first in firsts.items()},
            {kind: taken(memory.recent, first, 0) for kind, first in firsts.items()},
        )


def taken(rows: npt.NDArray[T], at: npt.NDArray[np.int64], absent: float) -> npt.NDArray[T]:
    """The rows (N, C) at these places, all `absent` where one is -1."""
    lacks = at < 0
    if lacks.all():
        return np.full((len(at), rows.shape[1]), absent, rows.dtype)
    found: npt.NDArray[T] = rows[at]  # -1 takes the last one, for the moment
    found[lacks] = absent
    return found


def entities_of(memory: Memory, rows: Sequence[int]) -> list[tuple[str, ...]]:
    """The entities (`kind:id`) that each of these arrivals of the batch touches."""
    names, start = memory.touches.entities, memory.touches.start.tolist()
    touched = [names[entity] for entity in memory.touches.entity.tolist()]
    return [tuple(touched[start[row] : start[row + 1]]) for row in rows]


def apart(blocks: Mapping[str, Block]) -> list[dict[str, Packed]]:
    """The row of each of N events by itself, as it is logged."""
    groups = {group: pack_each(block) for group, block in blocks.items()}
    return [dict(zip(groups, row, strict=True)) for row in zip(*groups.values(), strict=True)]


class Served(NamedTuple):
    """What is common to the rows of one batch: the feature set and the model that answered (empty: none).

    `shadow_version`: the model that was asked beside it; nobody acted on what it said.
    """

    features: str
    model_version: str
    shadow_version: str = ""

    def row(
        self,
        kind: ScoredKind,
        arrival: Arrival,
        groups: Mapping[str, Packed],
        *,
        event_id: str | None = None,
        items: tuple[str, ...] = (),
        scores: Mapping[str, tuple[float, ...]] | None = None,
        entities: tuple[str, ...] = (),
        shadow: Mapping[str, tuple[float, ...]] | None = None,
    ) -> Scored:
        """One scored row; `groups` holds one row of each group, and of `item` one for each of `items`."""
        event: Event = arrival.event
        return Scored(
            event_id=event_id or event.event_id,
            kind=kind,
            user_id=event.user_id if isinstance(event, UserEvent) else "",
            ts_ms=event.ts_ms,
            topic=arrival.topic,
            partition=arrival.partition,
            offset=arrival.offset,
            model_version=self.model_version,
            features=self.features,
            groups=dict(groups),
            items=items,
            scores=dict(scores or {}),
            entities=entities,
            query=event.query if isinstance(event, Search) else "",
            shadow_version=self.shadow_version if shadow else "",
            shadow=dict(shadow or {}),
        )
