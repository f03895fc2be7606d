"""Keeps the catalogue of this process in step with the products topic."""

import logging
import time
from typing import Final

from contract.errors import BadEvent
from contract.events.decoding import decode_document
from contract.events.model import Product, clamp
from contract.events.reading import READERS, EventReader
from contract.events.values import Unreadable, read_text
from contract.settings.intake import IntakeSettings
from transport.kafka_times import KafkaTimes
from transport.log_reader import TopicTailer
from transport.record_reader import RecordReader, Skipped
from transport.records import Record, TopicPartition
from worker.catalogue.catalogue import Catalogue
from worker.ops import metrics

log = logging.getLogger(__name__)
DEFAULTS: Final = IntakeSettings()
RECORDS_MAX: Final = 5_000
PROGRESS_LOG_S: Final = 5.0  # between two log lines while the topic is loaded


class ProductConsumer:
    """Reads the whole topic at start, then follows it; `is_ready` once everything that it held at start is read.

    Where the topic is recreated, the items that the new one lacks become unavailable once it is read.
    """

    def __init__(
        self,
        *,
        tailer: TopicTailer,
        catalogue: Catalogue,
        reader: EventReader = READERS["products"],
        record_reader: RecordReader | None = None,
        placeholders: frozenset[str] = DEFAULTS.folded_placeholders,
    ) -> None:
        """`record_reader`: of the topics that maps read. `placeholders`: see `IntakeSettings`."""
        self._tailer, self._placeholders = tailer, placeholders
        self._reader, self._record_reader = reader, record_reader
        self._catalogue = catalogue
        self._next_log_s = time.monotonic() + PROGRESS_LOG_S
        self._is_reloading = False
        self._kafka_times = KafkaTimes()
        self.is_ready = False

    @property
    def progress(self) -> str:
        """How far the topic is loaded, as a sentence."""
        items = len(self._catalogue)
        if self.is_ready:
            return f"Catalogue loaded: {items} items."
        return f"Catalogue loading: {items} items, {self._tailer.partitions_behind} partitions not read to their ends."

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The offset up to which each partition is read."""
        return self._tailer.positions

    def open(self) -> None:
        """Query where the topic ends now; raises `Unavailable`."""
        self._tailer.open()

    def poll(self) -> int:
        """Apply new records; returns their number."""
        records = self._tailer.poll(RECORDS_MAX, 0 if self.is_ready else 200)
        if self._tailer.take_restarted():
            self._catalogue.begin_reload()
            self._is_reloading = True
        for record in records:
            if record.value is None and record.key:
                if self._record_reader is None or self._record_reader.is_deletion(record):
                    self._catalogue.delist(record.key.decode(errors="replace"))
            elif (product := self._parse(record)) is not None:
                self._catalogue.put(product)
            elif item_id := self._find_item_id(record):
                self._catalogue.suspend(item_id)  # what is known of it is out of date: it may be sold out
        self._catalogue.encode_pending()
        metrics.CATALOGUE_ITEMS.set(len(self._catalogue))
        if self._is_reloading and not self._tailer.partitions_behind:
            self._is_reloading = False
            log.info("Catalogue loaded again: %d items that the new topic lacks left it.", self._catalogue.end_reload())
        if not self.is_ready:
            self._log_progress()
        return len(records)

    def _parse(self, record: Record) -> Product | None:
        if self._record_reader is None or self._record_reader.is_plain(record.topic_partition.topic):
            return parse_product(record, self._kafka_times, self._reader)
        return parse_mapped_product(record, self._kafka_times, self._record_reader)

    def _find_item_id(self, record: Record) -> str:
        if self._record_reader is None or self._record_reader.is_plain(record.topic_partition.topic):
            return find_item_id(record, self._placeholders)
        return find_mapped_item_id(record, self._record_reader, self._placeholders)

    def _log_progress(self) -> None:
        self.is_ready = not self._tailer.partitions_behind
        if self.is_ready or time.monotonic() >= self._next_log_s:
            self._next_log_s = time.monotonic() + PROGRESS_LOG_S
            log.info(self.progress)

    def close(self) -> None:
        self._tailer.close()


def find_item_id(record: Record, placeholders: frozenset[str]) -> str:
    """The item that a record is about which cannot be read: that of its document, else its key; empty for none."""
    try:
        document = decode_document(record.value or b"")
    except BadEvent:
        document = None
    return name_item(document, placeholders) or name_key(record)


def name_item(document: object, placeholders: frozenset[str]) -> str:
    """The id of the item in a document; empty where it has none."""
    try:
        item_id = read_text(document["item_id"]) if isinstance(document, dict) else ""
    except (Unreadable, KeyError):
        return ""
    return "" if item_id.strip().lower() in placeholders else item_id


def name_key(record: Record) -> str:
    """The item that the key of a record names; empty where it has none."""
    return record.key.decode(errors="replace") if record.key else ""


def parse_product(record: Record, kafka_times: KafkaTimes, reader: EventReader) -> Product | None:
    """The product of a record; None for an invalid one, which is only counted because every worker reads the topic.

    `kafka_times`: of the records before it.
    """
    try:
        (kafka_ms,) = kafka_times.fill(record.topic_partition, [record.kafka_ms])
        event, _ = clamp(reader.read(record.value), kafka_ms)
    except BadEvent as error:
        metrics.BAD_PRODUCTS.labels(error.reason).inc()
        return None
    return event if isinstance(event, Product) else None


def parse_mapped_product(record: Record, kafka_times: KafkaTimes, reader: RecordReader) -> Product | None:
    """The product of a record that is not plain; None also for one of another kind."""
    try:
        (kafka_ms,) = kafka_times.fill(record.topic_partition, [record.kafka_ms])
        event, _ = clamp(reader.read(record)[1], kafka_ms)
    except Skipped:
        return None
    except BadEvent as error:
        metrics.BAD_PRODUCTS.labels(error.reason).inc()
        return None
    return event if isinstance(event, Product) else None


def find_mapped_item_id(record: Record, reader: RecordReader, placeholders: frozenset[str]) -> str:
    """The item that a record is about which cannot be read: by its map, else its key; empty for none.

    A record that no map reads says nothing about an item.
    """
    try:
        kind, document = reader.find_kind(record)
    except Skipped:
        return ""
    except BadEvent:
        return name_key(record)
    return (name_item(document, placeholders) or name_key(record)) if kind == "products" else ""
