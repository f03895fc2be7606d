"""A recount: the slices of some entities as the log alone makes them, each up to a limit of its own. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from contract.erasures import NO_ERASURES, Erasures
from contract.memory import fold
from contract.touches import Arrival, columns, touches_of


class Logged(NamedTuple):
    """An arrival, and when Kafka was given its record."""

    arrival: Arrival
    kafka_ms: int


class Recount:
    """Folds what it is told of a log with the code that workers fold with.

    `wanted` says whose slices are counted; `limit` says for an entity and a source the last offset that is folded. What
    `erasures` cover is skipped.
    """

    def __init__(
        self,
        *,
        wanted: Callable[[str], bool],
        limit: Callable[[str, str], int],
        erasures: Erasures = NO_ERASURES,
    ) -> None:
        self.wanted, self.limit, self._erasures = wanted, limit, erasures
        self.slices: dict[str, dict[str, bytes]] = {}
        self.last_kafka_ms: dict[tuple[str, str], int] = {}  # of the last event in each slice

    def add(self, logged: Sequence[Logged]) -> None:
        """Fold the next records of a log; those of a source come in the order of their offsets."""
        near = [one for one in logged if any(self.wanted(entity) for entity, _ in touches_of(one.arrival.event))]
        touches = columns([one.arrival for one in near], erasures=self._erasures)
        arrival = np.repeat(np.arange(len(near)), np.diff(touches.start)).tolist()
        keep = [
            self._keeps(touches.entities[e], near[n]) for e, n in zip(touches.entity.tolist(), arrival, strict=True)
        ]
        profiles = [self.slices.get(entity, {}) for entity in touches.entities]
        for entity, slices in fold(profiles, touches, np.array(keep, np.bool_)).writes().items():
            self.slices.setdefault(entity, {}).update(slices)

    def _keeps(self, entity: str, one: Logged) -> bool:
        source = one.arrival.source
        if not self.wanted(entity) or one.arrival.offset > self.limit(entity, source):
            return False
        self.last_kafka_ms[entity, source] = one.kafka_ms
        return True
