"""The topic of erasures, read whole by assignment before anything else is folded or answered, and followed."""

import logging
from collections import defaultdict, deque
from typing import Final, NamedTuple

from contract.erasures import Erasures
from contract.errors import BadEvent
from contract.events import Erasure, clamp, decode
from worker import metrics
from worker.batch import Reject
from worker.follower import Follower, Log
from worker.intake import Place, Record

log = logging.getLogger(__name__)
RECORDS_MAX: Final = 5_000


class Noted(NamedTuple):
    """What one record says: an erasure, or why it says none; neither where it has no value."""

    place: Place
    offset: int
    erasure: Erasure | None = None
    reject: Reject | None = None


class ErasureLog:
    """Keeps `erasures` as the topic has them. `ready` once everything that was there at first is read.

    A record without a value takes nothing back: it is how the topic is rid of an erasure that nothing needs any more.
    """

    def __init__(self, *, follower: Follower, erasures: Erasures) -> None:
        self._follower, self.erasures = follower, erasures
        self.last: dict[str, Noted] = {}  # by user id, the last record of each
        self.unconfirmed = defaultdict[Place, deque[Noted]](deque)  # in their order; who confirms takes from the left
        self.read: dict[Place, int] = {}  # how far (exclusive) each partition is read
        self.ready = False

    def open(self) -> None:
        """Ask Kafka where the topic ends now; raises `Unavailable`."""
        self._follower.open()

    def follow(self) -> set[str]:
        """Take in what has come; returns whom it concerns."""
        noted = [read(record) for record in self._follower.poll(RECORDS_MAX, 0 if self.ready else 200)]
        for one in noted:
            self._note(one)
        if noted:
            metrics.ERASED_PEOPLE.set(len(self.erasures))
        if not self.ready and not self._follower.behind:
            self.ready = True
            log.info("The erasures are read: %d people are to be forgotten.", len(self.erasures))
        return {one.erasure.user_id for one in noted if one.erasure}

    def close(self) -> None:
        self._follower.close()

    def _note(self, one: Noted) -> None:
        self.unconfirmed[one.place].append(one)
        self.read[one.place] = one.offset + 1
        if one.erasure:
            self.erasures.note(one.erasure)
            self.last[one.erasure.user_id] = one
        elif one.reject:
            log.error("An erasure cannot be read, and is not carried out: %s", one.reject.detail)
            metrics.BAD_ERASURES.labels(one.reject.reason).inc()


def read(record: Record) -> Noted:
    """What a record of the topic says."""
    place, offset = record.place, record.offset
    if record.value is None:
        return Noted(place, offset)
    try:
        event, _ = clamp(decode("erasures", record.value), record.kafka_ms)
    except BadEvent as error:
        return Noted(place, offset, reject=Reject(record, error.reason, type(error).__name__, str(error)))
    return Noted(place, offset, erasure=event if isinstance(event, Erasure) else None)


def read_erasures(reader: Log, topic: str) -> tuple[Erasures, dict[Place, int]]:
    """The erasures on the topic now, and how far it was read; raises `Unavailable`."""
    extents = reader.extents([topic])
    ends = {place: extent.high for place, extent in extents.items() if extent.high > extent.low}
    noted = [read(record) for records in reader.read(ends) for record in records]
    return Erasures(one.erasure for one in noted if one.erasure), {place: e.high for place, e in extents.items()}
