"""Recomputes the slices, histories and logins of some entities from the log, each up to its own last offset. No I/O."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from contract.profiles.entity_kinds import BUILT_IN_KINDS, EntityKinds
from contract.profiles.entity_updates import Arrival, extract_updates, to_updates
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.logins import LoginWrite, add_logins, list_logins
from contract.profiles.store import fold


class TimedArrival(NamedTuple):
    """An arrival, and its record's Kafka timestamp."""

    arrival: Arrival
    kafka_ms: int


class Recomputation:
    """Folds the records of a log with the workers' own fold.

    `wanted` selects the entities; `last_offset` is, by entity and source, the last offset to fold. Events that
    `erasures` cover are skipped.
    """

    def __init__(
        self,
        *,
        wanted: Callable[[str], bool],
        last_offset: Callable[[str, str], int],
        erasures: Erasures = NO_ERASURES,
        entity_kinds: EntityKinds = BUILT_IN_KINDS,
    ) -> None:
        self.wanted, self.last_offset, self._erasures = wanted, last_offset, erasures
        self._entity_kinds = entity_kinds
        self.slices: dict[str, dict[str, bytes]] = {}
        self.histories: dict[tuple[str, str], bytes] = {}  # by user and source
        self.logins: dict[tuple[str, str], bytes] = {}  # by user or guest, and source
        self.last_kafka_ms: dict[tuple[str, str], int] = {}  # of the last event in each slice

    def add(self, arrivals: Sequence[TimedArrival]) -> None:
        """Fold the next records of the log; those of one source in the order of their offsets."""
        wanted_arrivals = [timed for timed in arrivals if any(map(self.wanted, self._list_entities(timed.arrival)))]
        updates = to_updates(
            [timed.arrival for timed in wanted_arrivals], erasures=self._erasures, kinds=self._entity_kinds
        )
        arrival = np.repeat(np.arange(len(wanted_arrivals)), np.diff(updates.start)).tolist()
        is_folded = [
            self._should_fold(updates.entities[e], wanted_arrivals[n])
            for e, n in zip(updates.entity.tolist(), arrival, strict=True)
        ]
        profiles = [self.slices.get(entity, {}) for entity in updates.entities]
        writes = fold(profiles, updates, np.array(is_folded, np.bool_)).slice_writes()
        for entity, slices in writes.items():
            self.slices.setdefault(entity, {}).update(slices)
        for write in writes.list_histories():
            self.histories[write.user, write.source] = write.apply(self.histories.get((write.user, write.source), b""))
        kafka_ms = {(timed.arrival.source, timed.arrival.offset): timed.kafka_ms for timed in wanted_arrivals}
        for login in writes.logins:
            self._add_login(login, kafka_ms[login.source, login.offset])

    def _list_entities(self, arrival: Arrival) -> list[str]:
        """Every entity of which an event changes a record."""
        updated = [entity for entity, _ in extract_updates(arrival.event, self._entity_kinds)]
        logins = list_logins(arrival.event, arrival.source, arrival.offset, self._erasures)
        return [*updated, *(login.entity for login in logins)]

    def _add_login(self, login: LoginWrite, kafka_ms: int) -> None:
        key = login.entity, login.source
        if self.wanted(login.entity) and login.offset <= self.last_offset(*key):
            self.last_kafka_ms[key] = kafka_ms
            self.logins[key] = add_logins(self.logins.get(key, b""), [login])

    def _should_fold(self, entity: str, timed: TimedArrival) -> bool:
        source = timed.arrival.source
        if not self.wanted(entity) or timed.arrival.offset > self.last_offset(entity, source):
            return False
        self.last_kafka_ms[entity, source] = timed.kafka_ms
        return True
