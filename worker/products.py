"""Products: keeps the catalogue of this process as the products topic has it."""

import logging
import time
from typing import Final

from contract.errors import BadEvent
from contract.events import Product, clamp, decode
from worker import metrics
from worker.catalogue import Catalogue
from worker.follower import Follower
from worker.intake import Record

log = logging.getLogger(__name__)
RECORDS_MAX = 5_000
TELL_S: Final = 5.0  # between two sentences about how far the first reading is


class Products:
    """Reads the topic whole at start, then follows it. `ready` once everything that was there at first is read."""

    def __init__(self, *, follower: Follower, catalogue: Catalogue) -> None:
        self._follower, self._catalogue = follower, catalogue
        self._tell_s = time.monotonic() + TELL_S
        self.ready = False

    @property
    def progress(self) -> str:
        """How far the first reading is, as a sentence."""
        if self.ready:
            return f"The catalogue is read: {len(self._catalogue)} items."
        return (
            f"The catalogue is being read: {len(self._catalogue)} items, {self._follower.behind} partitions to go on."
        )

    def open(self) -> None:
        """Ask Kafka where the topic ends now; raises `Unavailable`."""
        self._follower.open()

    def follow(self) -> int:
        """Take in what has come; returns how many records that were."""
        records = self._follower.poll(RECORDS_MAX, 0 if self.ready else 200)
        for record in records:
            if record.value is None and record.key:
                self._catalogue.delist(record.key.decode(errors="replace"))
            elif (product := read(record)) is not None:
                self._catalogue.put(product)
        self._catalogue.settle()
        metrics.CATALOGUE.set(len(self._catalogue))
        if not self.ready:
            self._tell_how_far()
        return len(records)

    def _tell_how_far(self) -> None:
        self.ready = not self._follower.behind
        if self.ready or time.monotonic() >= self._tell_s:
            self._tell_s = time.monotonic() + TELL_S
            log.info(self.progress)

    def close(self) -> None:
        self._follower.close()


def read(record: Record) -> Product | None:
    """The product of a record; what is none is counted and left out, since the topic is read by every worker."""
    try:
        event, _ = clamp(decode("products", record.value), record.kafka_ms)
    except BadEvent as error:
        metrics.BAD_PRODUCTS.labels(error.reason).inc()
        return None
    return event if isinstance(event, Product) else None
