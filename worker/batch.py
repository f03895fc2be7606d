"""A batch: records decoded into arrivals, or into rejects that will be dead letters. Pure."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from contract.errors import BadEvent
from contract.events import clamp, decode
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

    arrivals: list[Arrival] = field(default_factory=list)
    watched: list[Arrival] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    ends: dict[Place, int] = field(default_factory=dict)  # exclusive
    records: dict[tuple[Place, int], Record] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def begins(self) -> dict[Place, int]:
        """The first offset of each partition in this batch."""
        first: dict[Place, int] = {}
        for place, offset in self.records:
            first[place] = min(offset, first.get(place, offset))
        return first

    def record(self, arrival: Arrival) -> Record:
        """The record that an event came in."""
        return self.records[Place(arrival.topic, arrival.partition), arrival.offset]

    def reject(self, arrival: Arrival, error: Exception, attempts: int) -> Reject:
        """The dead letter of an event that was folded but cannot be scored."""
        return Reject(self.record(arrival), "cannot_score", type(error).__name__, str(error), attempts)


def open_records(
    records: Iterable[Record],
    kinds: Mapping[str, str],
    sources: Mapping[Place, str],
    watches: Sequence[str],
    inspects: Sequence[str] = (),
) -> Batch:
    """Decode each record; whatever is wrong with one concerns no other. Of inspected kinds only the rejects stay."""
    batch = Batch()
    for record in records:
        place = record.place
        kind = kinds[place.topic]
        batch.ends[place] = record.offset + 1
        batch.records[place, record.offset] = record
        metrics.EVENTS.labels(kind).inc()
        if kind in inspects and record.value is None:
            continue  # how a record is deleted from a compacted topic
        try:
            event, moved = clamp(decode(kind, record.value), record.kafka_ms)
        except BadEvent as error:
            if kind not in watches:  # the lane that folds this kind writes its dead letters
                batch.rejects.append(Reject(record, error.reason, type(error).__name__, str(error)))
            continue
        metrics.CLAMPED.inc(moved)
        if kind in inspects:
            continue
        arrival = Arrival(sources.get(place, kind), record.offset, event, place.topic, place.partition)
        (batch.watched if kind in watches else batch.arrivals).append(arrival)
    return batch


def count(rejects: Sequence[Reject]) -> None:
    """Tell of dead letters that are out."""
    for reject in rejects:
        metrics.DEAD_LETTERS.labels(reject.reason).inc()
    if rejects:
        place, offset, detail = rejects[0].record.place, rejects[0].record.offset, rejects[0].detail
        log.warning("%d dead letters, the first from %s/%d at %d: %s", len(rejects), *place, offset, detail)
