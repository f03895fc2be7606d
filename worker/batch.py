"""A batch: records decoded into arrivals, or into rejects that will be dead letters. Pure."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contract.errors import BadEvent
from contract.events import UserEvent, clamp, decode
from contract.rows import DEAD_LETTER_HEADER, DeadLetter, to_json
from contract.touches import Arrival
from worker import metrics
from worker.intake import Place, Record
from worker.publisher import Outgoing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that gets no answer, and why; `attempts` is how often it was tried."""

    record: Record
    reason: str
    error: str
    detail: str
    attempts: int = 1

    def letter(self, topic: str, model_version: str) -> Outgoing:
        """The dead letter: the original bytes, key and headers, and one header that tells the rest."""
        place, offset = self.record.place, self.record.offset
        told = DeadLetter(
            reason=self.reason,
            error=self.error,
            detail=self.detail[:1_000],
            topic=place.topic,
            partition=place.partition,
            offset=offset,
            attempts=self.attempts,
            model_version=model_version,
        )
        headers = [*self.record.headers, (DEAD_LETTER_HEADER, to_json(told))]
        return Outgoing(topic, self.record.key, self.record.value, headers)


@dataclass(slots=True)
class Batch:
    """What one poll brought. `arrivals` are folded in this order; `watched` are only reacted to."""

    records: Sequence[Record] = ()
    arrivals: list[Arrival] = field(default_factory=list)
    watched: list[Arrival] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    begins: dict[Place, int] = field(default_factory=dict)  # the first offset of each partition
    ends: dict[Place, int] = field(default_factory=dict)  # exclusive
    _found: dict[tuple[str, int, int], Record] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def user(self, row: int) -> str:
        """Whose event an arrival is; empty for a product."""
        event = self.arrivals[row].event
        return event.user_id if isinstance(event, UserEvent) else ""

    def record(self, arrival: Arrival) -> Record:
        """The record that an event came in."""
        if not self._found:  # few batches ask
            self._found = {(*record.place, record.offset): record for record in self.records}
        return self._found[arrival.topic, arrival.partition, arrival.offset]

    def reject(self, arrival: Arrival, error: Exception, attempts: int) -> Reject:
        """The dead letter of an event that was folded but cannot be scored."""
        return Reject(self.record(arrival), "cannot_score", type(error).__name__, str(error), attempts)


def open_records(
    records: Sequence[Record],
    kinds: Mapping[str, str],
    sources: Mapping[Place, str],
    watches: Sequence[str],
    inspects: Sequence[str] = (),
) -> Batch:
    """Decode each record; whatever is wrong with one concerns no other. Of inspected kinds only the rejects stay."""
    batch, by_place = Batch(records), dict[Place, list[Record]]()
    for record in records:
        by_place.setdefault(record.place, []).append(record)
    for place, own in by_place.items():
        kind = kinds[place.topic]
        metrics.EVENTS.labels(kind).inc(len(own))
        batch.begins[place], batch.ends[place] = min(record.offset for record in own), own[-1].offset + 1
        if kind in inspects:
            own = [record for record in own if record.value is not None]  # how one is deleted from a compacted topic
        arrivals, rejects = decoded(own, kind, sources.get(place, kind))
        if kind in watches:
            batch.watched += arrivals
            continue  # the lane that folds this kind writes its dead letters
        batch.arrivals += [] if kind in inspects else arrivals
        batch.rejects += rejects
    return batch


def decoded(records: Sequence[Record], kind: str, source: str) -> tuple[list[Arrival], list[Reject]]:
    """The events of one partition's records, and what is none."""
    arrivals, rejects, clamped = list[Arrival](), list[Reject](), 0
    for place, offset, _, value, _, kafka_ms in records:
        try:
            event, moved = clamp(decode(kind, value), kafka_ms)
        except BadEvent as error:
            rejects.append(
                Reject(records[len(arrivals) + len(rejects)], error.reason, type(error).__name__, str(error))
            )
            continue
        clamped += moved
        arrivals.append(Arrival(source, offset, event, place.topic, place.partition))
    metrics.CLAMPED.inc(clamped)
    return arrivals, rejects


def count(rejects: Sequence[Reject]) -> None:
    """Tell of dead letters that are out."""
    for reject in rejects:
        metrics.DEAD_LETTERS.labels(reject.reason).inc()
    if rejects:
        place, offset, detail = rejects[0].record.place, rejects[0].record.offset, rejects[0].detail
        log.warning("%d dead letters, the first from %s/%d at %d: %s", len(rejects), *place, offset, detail)
