"""The feedback topic, read from given positions to its present end, without the examples of erased people."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.settings.servers import KafkaSettings
from training.feedback.read_plan import PlannedTopic
from transport.positions import to_positions
from transport.records import Record

RecordHandler = Callable[[Record], None]


class ExampleOwner(Struct, frozen=True, gc=False):
    """The fields of an example that an erasure refers to."""

    user_id: str
    ts_ms: int


DECODE_OWNER = msgspec.msgpack.Decoder(ExampleOwner).decode


@dataclass(frozen=True, slots=True)
class FeedbackBatch:
    """The values of records, each partition in its order, and where to go on: see `read_plan`.

    `newest_ms`: the latest Kafka timestamp of these records, 0 if none. `has_more`: the limit cut the read short.
    `erased`: the number of further records, which are examples of erased people.
    """

    values: list[bytes]
    positions: dict[str, int]
    newest_ms: int = 0
    has_more: bool = False
    erased: int = 0


class FeedbackReader:
    """Reads the topic, without examples that `erasures` cover; positions are kept by the caller, in a checkpoint."""

    def __init__(self, *, kafka: KafkaSettings, topic: str, erasures: Erasures = NO_ERASURES) -> None:
        self._topic, self._erasures = PlannedTopic(kafka=kafka, topic=topic), erasures

    def read(self, positions: Mapping[str, int], records_max: int = sys.maxsize) -> FeedbackBatch:
        """The records between `positions` (a partition without one: its beginning) and the present ends.

        At most `records_max`; the next call returns the rest. A position that the topic no longer holds counts as its
        beginning. Raises `Unavailable`.
        """
        records = list[Record]()
        positions_after, has_more = self._read(positions, records.append, records_max)
        values = [value for record in records if not self._is_erased(value := record.value or b"")]
        return FeedbackBatch(
            values,
            positions_after,
            max((record.kafka_ms for record in records), default=0),
            has_more,
            len(records) - len(values),
        )

    def for_each(self, positions: Mapping[str, int], handle: Callable[[bytes], None]) -> dict[str, int]:
        """Pass each value to `handle` as it arrives and keep none; returns where to go on."""

        def handle_record(record: Record) -> None:
            if not self._is_erased(value := record.value or b""):
                handle(value)

        return self._read(positions, handle_record, sys.maxsize)[0]

    def offsets_for_time(self, timestamp_ms: int) -> dict[str, int]:
        """The first offset of that time or later in each partition, else its end; raises `Unavailable`."""
        topic_id = self._topic.fetch_id()
        partitions = self._topic.reader.fetch_offset_ranges([self._topic.name])
        return to_positions(self._topic.reader.offsets_for_time(partitions, timestamp_ms), topic_id)

    def close(self) -> None:
        self._topic.close()

    def _is_erased(self, value: bytes) -> bool:
        """Whether a record is the example of an erased person; an unreadable one is not."""
        if not len(self._erasures):
            return False
        try:
            owner = DECODE_OWNER(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return self._erasures.covers(owner.user_id, owner.ts_ms)

    def _read(self, positions: Mapping[str, int], handle: RecordHandler, limit: int) -> tuple[dict[str, int], bool]:
        """Pass records to `handle`; returns where to go on, and whether more than `limit` were there."""
        plan = self._topic.plan(positions)
        reached, count = dict(plan.starts), 0
        for records in self._topic.reader.read(plan.ends, plan.starts):
            for record in records[: limit - count]:
                handle(record)
                reached[record.topic_partition] = record.offset + 1
            count += len(records)
            if count >= limit:
                break
        else:
            reached = plan.ends
        self._topic.confirm(plan)
        return plan.advance(positions, reached), reached != plan.ends
