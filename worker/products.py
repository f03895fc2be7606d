"""Products: keeps the catalogue of this process as the products topic has it."""

import logging

from contract.errors import BadEvent
from contract.events import Product, clamp, decode
from worker import metrics
from worker.catalogue import Catalogue
from worker.follower import Follower
from worker.intake import Record

log = logging.getLogger(__name__)
RECORDS_MAX = 5_000


class Products:
    """Reads the topic whole at start, then follows it. `ready` once everything that was there at first is read."""

    def __init__(self, *, follower: Follower, catalogue: Catalogue) -> None:
        self._follower, self._catalogue = follower, catalogue
        self.ready = False

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
        if not self.ready and not self._follower.behind:
            self.ready = True
            log.info("The catalogue is read: %d items.", len(self._catalogue))
        return len(records)

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
