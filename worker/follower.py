"""The door for topics that are read by assignment, from their beginning, outside any group: to follow or to recount."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from contract.errors import LostLog, Unavailable
from contract.settings import Kafka
from worker.intake import Place, Record, as_bytes

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0
SILENCE_S: Final = 60.0  # how long a log that should go on may give nothing
CHUNK: Final = 2_000


class Follower:
    """Reads all partitions of some topics from their beginning, and knows when it has read what was there at first."""

    def __init__(self, *, kafka: Kafka, topics: Sequence[str]) -> None:
        self._consumer = consumer(kafka)
        self._topics = topics
        self._ends: dict[Place, int] = {}
        self._opened = False

    def open(self) -> None:
        """Begin at the beginning; raises `Unavailable`. A topic that does not exist yet is followed once it does."""
        extents = extents_of(self._consumer, self._topics)
        self._ends = {place: extent.high for place, extent in extents.items() if extent.high > extent.low}
        self._consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in extents])
        self._opened = len({place.topic for place in extents}) == len(self._topics)

    @property
    def behind(self) -> int:
        """In how many partitions something that was there at first is still unread."""
        return len(self._ends)

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        """What has come since; asks anew for topics that did not exist."""
        if not self._opened:
            self.open()
        records = []
        for message in self._consumer.consume(records_max, wait_ms / 1000):
            place, reached = progress(message)
            if message.error() is None:
                records.append(record_of(message))
            if reached >= self._ends.get(place, reached + 1):
                del self._ends[place]
        return records

    def close(self) -> None:
        self._consumer.close()


class Extent(NamedTuple):
    """The first offset that a partition still holds, and its next one."""

    low: int
    high: int


class Log:
    """Reads partitions from their beginning to given ends, once."""

    def __init__(self, *, kafka: Kafka) -> None:
        # A broker that has nothing more says so at once: the end behind a transaction is told by an answer alone.
        self._consumer = consumer(kafka, {"auto.offset.reset": "error", "fetch.wait.max.ms": 10})

    def extents(self, topics: Iterable[str]) -> dict[Place, Extent]:
        """What there is now in each partition of those topics that exist; raises `Unavailable`."""
        return extents_of(self._consumer, topics)

    def offsets_at(self, places: Iterable[Place], ms: int) -> dict[Place, int]:
        """The first offset in each partition whose record Kafka was given at `ms` or later; else its end."""
        asked = [TopicPartition(*place, ms) for place in places]
        if not asked:
            return {}
        try:
            found = {
                Place(tp.topic, tp.partition): tp.offset for tp in self._consumer.offsets_for_times(asked, TIMEOUT_S)
            }
            ends = extents_of(self._consumer, {place.topic for place, offset in found.items() if offset < 0})
        except KafkaException as error:
            raise Unavailable(f"Kafka should tell where a time begins. Found: {error.args[0].str()}") from error
        return {place: offset if offset >= 0 else ends[place].high for place, offset in found.items()}

    def first_ms(self, starts: Mapping[Place, int]) -> int | None:
        """Kafka's time of the first record at or after these offsets, the earliest one of all partitions.

        0 where a record has no time; None where there is no record. Raises `Unavailable`.
        """
        extents = self.extents({place.topic for place in starts})
        left = {
            p: max(start, extents[p].low) for p, start in starts.items() if p in extents and extents[p].high > start
        }
        self._consumer.assign([TopicPartition(*place, start) for place, start in left.items()])
        times, heard_s = list[int](), time.monotonic()
        while left:
            for message in self._consumer.consume(CHUNK, 0.05):
                place, reached = progress(message)
                if reached >= left.get(place, reached + 1):
                    if message.error() is None:
                        times.append(max(0, message.timestamp()[1]))
                    del left[place]
                    self._consumer.incremental_unassign([TopicPartition(*place)])
                heard_s = time.monotonic()
            if time.monotonic() > heard_s + SILENCE_S:
                raise Unavailable(f"Kafka should give a record of {sorted(left)}. Found {SILENCE_S:g} s of none.")
        return min(times, default=None)

    def read(self, ends: Mapping[Place, int], starts: Mapping[Place, int] | None = None) -> Iterator[list[Record]]:
        """Every record below `ends` (exclusive), in chunks, each partition in its order; raises `Unavailable`.

        `starts`: where to begin in a partition, if not at its first record.
        """
        first = starts or {}
        left = {place: end for place, end in ends.items() if end > first.get(place, 0)}
        self._consumer.assign([TopicPartition(*place, first.get(place, OFFSET_BEGINNING)) for place in left])
        heard_s = time.monotonic()
        while left:
            records, messages = list[Record](), self._consumer.consume(CHUNK, 0.05)
            for message in messages:
                place, reached = progress(message)
                refuse_gone(message, place)
                if message.error() is None and reached <= left.get(place, 0):
                    records.append(record_of(message))
                if reached >= left.get(place, reached + 1):
                    del left[place]
                    self._consumer.incremental_unassign([TopicPartition(*place)])
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() > heard_s + SILENCE_S:
                raise Unavailable(
                    f"Kafka should go on giving records of {sorted(left)}. Found {SILENCE_S:g} s of none."
                )
            if records:
                yield records

    def close(self) -> None:
        self._consumer.close()


def refuse_gone(message: Message, place: Place) -> None:
    """Raise `LostLog` where the record that should be read next is no more."""
    error = message.error()
    if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise LostLog(f"{place.topic}/{place.partition} should hold every record to its end. Found: {error.str()}")


def consumer(kafka: Kafka, more: Mapping[str, Any] | None = None) -> Consumer:
    """A reader of committed records that belongs to no group and tells when it has come to a partition's end."""
    configuration: dict[str, Any] = {
        "isolation.level": "read_committed",
        **kafka.connection(),
        "group.id": f"{kafka.group_prefix}-unused",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": 3,
        "error_cb": lambda error: None,  # the intake tells of brokers that are away, once
        **(more or {}),
    }
    return Consumer(configuration)


def extents_of(reader: Consumer, topics: Iterable[str]) -> dict[Place, Extent]:
    try:
        known = reader.list_topics(timeout=TIMEOUT_S).topics
        places = [Place(topic, number) for topic in topics if topic in known for number in known[topic].partitions]
        found = {}
        for place in places:
            low, high = reader.get_watermark_offsets(TopicPartition(*place), timeout=TIMEOUT_S)
            found[place] = Extent(low, high)
    except KafkaException as error:
        raise Unavailable(f"Kafka should tell its topics' ends. Found: {error.args[0].str()}") from error
    return found


def progress(message: Message) -> tuple[Place, int]:
    """Up to where (exclusive) a partition is read with this message; -1 if it says nothing of it.

    The last offsets of a partition may be markers of transactions, which are no records: its end says so.
    """
    place, error = Place(message.topic() or "", message.partition() or 0), message.error()
    if error is None:
        return place, (message.offset() or 0) + 1
    if error.code() == KafkaError._PARTITION_EOF:
        return place, message.offset() or 0
    log.warning("Kafka has no record now, reading goes on by itself: %s", error.str())
    return place, -1


def record_of(message: Message) -> Record:
    """The record in a message, without its headers: nobody here asks for them."""
    place, value = Place(message.topic() or "", message.partition() or 0), as_bytes(message.value())
    return Record(place, message.offset() or 0, as_bytes(message.key()), value, [], message.timestamp()[1])
