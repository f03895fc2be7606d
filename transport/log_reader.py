"""Kafka readers outside any group: one that tails topics from their beginning, one that reads ranges of offsets."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from transport.log_consumer import (
    MISSING,
    TIMEOUT_S,
    LogConsumer,
    MissingDetector,
    has_no_offset,
    position_after,
    raise_if_truncated,
    to_record,
)
from transport.records import OffsetRange, Record, TopicPartition
from transport.stall_detector import STALL_S, StallDetector
from transport.topic_watcher import TopicState, TopicWatcher, list_partitions

log = logging.getLogger(__name__)
IDLE_TIMEOUT_S: Final = 60.0  # of a read that should still return records
IDLE_CLIENT_S: Final = 15.0  # a client whose broker is back connects to it within 10 s
CHUNK_RECORDS: Final = 2_000
CHUNK_WAIT_S: Final = 0.05


class TopicTailer:
    """Reads all partitions of some topics from their beginning, and goes on with new records.

    Partitions and topics that are created later are read from their beginning too. A topic that is deleted and
    recreated is read from its beginning again: by its id where the broker reports ids, else once the next offset lies
    beyond its end. A thread asks for that every few seconds, so `poll` waits for no metadata.
    """

    def __init__(self, *, kafka: KafkaSettings, topics: Sequence[str]) -> None:
        # By default the client goes on at the end of a log that lacks the next offset.
        self._consumer = LogConsumer(kafka=kafka, overrides={"auto.offset.reset": "error"})
        self._stall = StallDetector()
        self._watcher = TopicWatcher(kafka=kafka, topics=topics)
        self.topics = topics
        self._states: dict[str, TopicState] | None = None  # of the topics as they are read; None before `open`
        self._deleted: set[str] = set()  # topics that were read, and did not exist when last asked
        self._out_of_range: set[TopicPartition] = set()  # their next offset is not in the log
        self._initial_ends: dict[TopicPartition, int] = {}  # of the partitions that are not yet read that far
        self._before_end: set[TopicPartition] = set()  # of recreated topics, not yet read to an end
        self._restarted: set[str] = set()
        self.positions: dict[TopicPartition, int] = {}  # the offset up to which each partition is read

    def open(self) -> None:
        """Start at the beginning; raises `Unavailable`. A topic that does not exist yet is read once it does."""
        offset_ranges = self._consumer.fetch_offset_ranges(self.topics)
        self._initial_ends = {partition: high for partition, (low, high) in offset_ranges.items() if high > low}
        self.positions = {partition: low for partition, (low, _) in offset_ranges.items()}
        self._consumer.client.assign([KafkaPartition(*partition, OFFSET_BEGINNING) for partition in offset_ranges])
        partitions = Counter(partition.topic for partition in offset_ranges)
        self._states = {topic: TopicState(None, count) for topic, count in partitions.items()}
        self._watcher.start()

    @property
    def partitions_behind(self) -> int:
        """The number of partitions not yet read to the end that they had when opened, or since their topic is new."""
        return len(self._initial_ends) + len(self._before_end)

    def topic_id(self, topic: str) -> str | None:
        """The id of a topic as it is read now; None if it is not known yet, or the broker has no topic ids."""
        state = (self._states or {}).get(topic)
        return state.topic_id if state else None

    def has_partition(self, partition: TopicPartition) -> bool:
        """Whether a partition is read."""
        state = (self._states or {}).get(partition.topic)
        return state is not None and partition.partition < state.partitions

    def take_restarted(self) -> set[str]:
        """The recreated topics that the last `poll` began to read again; what it returned of them is of the new one."""
        restarted, self._restarted = self._restarted, set()
        return restarted

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        """The next records; raises `Unavailable` only where it has to open first."""
        if self._states is None:
            self.open()
        if (states := self._watcher.take()) is not None:
            self._follow(states)
            self._stall.compare(self._watcher.ends, self.positions)
        messages = self._consumer.client.consume(records_max, wait_ms / 1000)
        records = [record for message in messages if (record := self._handle_message(message))]
        if self._stall.is_stalled():
            self._replace_consumer()
        return records

    def close(self) -> None:
        self._watcher.close()
        self._consumer.close()

    def _handle_message(self, message: Message) -> Record | None:
        error = message.error()
        if has_no_offset(message):
            self._out_of_range.add(TopicPartition(message.topic() or "", message.partition() or 0))
            self._watcher.query_soon()
            return None
        partition, position = position_after(message)
        if position < 0:
            return None
        self._out_of_range.discard(partition)  # it was a late reply about the log before it was recreated
        if error is not None:  # the partition's end
            self._before_end.discard(partition)
        self.positions[partition] = position
        self._stall.reset()
        if position >= self._initial_ends.get(partition, position + 1):
            del self._initial_ends[partition]
        return to_record(message) if error is None else None

    def _replace_consumer(self) -> None:
        """Go on at `positions` with a new consumer: the present one may have lost its brokers."""
        log.warning(
            "%s should be read on. Found no record for %.0f s, though there are more: they are read with a new client.",
            ", ".join(self.topics),
            STALL_S,
        )
        self._read_with_new_client(self._states or {})

    def _read_with_new_client(self, states: Mapping[str, TopicState]) -> None:
        """Go on at `positions`, at the beginning where there is none."""
        self._consumer.replace()
        self._consumer.client.assign(
            [
                KafkaPartition(*partition, self.positions.get(partition, OFFSET_BEGINNING))
                for partition in list_partitions(states)
            ]
        )
        self._out_of_range.clear()
        self._stall.reset()

    def _follow(self, states: Mapping[str, TopicState]) -> None:
        """Read what the topics have now; `states` lacks the topics that do not exist."""
        known, has_restarted = self._states, False
        assert known is not None
        self._deleted |= known.keys() - states.keys()
        for topic, state in states.items():
            before = known.get(topic, TopicState(state.topic_id, 0))
            lost = {partition for partition in self._out_of_range if partition.topic == topic}
            has_other_id = before.topic_id is not None and state.topic_id != before.topic_id
            is_replaced = has_other_id or state.partitions < before.partitions
            if is_replaced or (state.topic_id is None and (lost or topic in self._deleted)):
                self._restart(topic, before, state)
                has_restarted = True
            else:
                self._assign_added(topic, before, state)
                self._reread(lost)
            self._deleted.discard(topic)
            self._out_of_range -= lost
            known[topic] = state
        if has_restarted:
            self._read_with_new_client(known)

    def _restart(self, topic: str, before: TopicState, state: TopicState) -> None:
        """Forget how far the former topic was read.

        The new one needs a new client: a client takes the lower leader epochs of a recreated topic for outdated, see
        https://github.com/confluentinc/librdkafka/issues/4898.
        """
        log.warning("%s was deleted and recreated: it is read from its beginning again.", topic, extra={"topic": topic})
        old, new = list_partitions({topic: before}), list_partitions({topic: state})
        for partition in old:
            self._initial_ends.pop(partition, None)
            self.positions.pop(partition, None)
        self._before_end = self._before_end.difference(old) | set(new)
        self._restarted.add(topic)

    def _assign_added(self, topic: str, before: TopicState, state: TopicState) -> None:
        added = [TopicPartition(topic, number) for number in range(before.partitions, state.partitions)]
        if added:
            log.info("%s has %d new partitions: they are read from their beginning.", topic, len(added))
            self._consumer.client.incremental_assign(
                [KafkaPartition(*partition, OFFSET_BEGINNING) for partition in added]
            )

    def _reread(self, truncated: Iterable[TopicPartition]) -> None:
        for partition in truncated:
            if partition not in self._before_end:  # else a late reply about the log before it was recreated
                log.warning(
                    "%s lost records that were not read yet: it is read from its beginning again.",
                    partition.log_text(),
                    extra=partition.log_fields(),
                )
            self._consumer.restart(partition)


class LogReader:
    """Reads ranges of partitions once."""

    def __init__(
        self, *, kafka: KafkaSettings, skips_gaps: bool = False, on_poll: Callable[[], None] = lambda: None
    ) -> None:
        """`skips_gaps`: go on with the first record there is where retention deleted the next; else `LostLog`.

        `on_poll` is called after each poll, also while there is no record.
        """
        self._kafka, self._on_poll = kafka, on_poll
        # A short wait: the end behind a transaction's marker is known only from the broker's next answer.
        overrides = {"auto.offset.reset": "earliest" if skips_gaps else "error", "fetch.wait.max.ms": 10}
        self._consumer = LogConsumer(kafka=kafka, overrides=overrides)

    def fetch_offset_ranges(self, topics: Iterable[str]) -> dict[TopicPartition, OffsetRange]:
        """The present range of each partition of those topics that exist; raises `Unavailable`."""
        return self._consumer.fetch_offset_ranges(topics)

    def fetch_written_ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """The end of each partition behind the records of open transactions; raises `Unavailable`.

        A read up to there waits until each of these transactions is committed or aborted.
        """
        overrides = {"isolation.level": "read_uncommitted"}
        with closing(LogConsumer(kafka=self._kafka, overrides=overrides)) as consumer:
            return {partition: ends.high for partition, ends in consumer.fetch_offset_ranges(topics).items()}

    def offsets_for_time(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """The first offset in each partition with a Kafka timestamp of `timestamp_ms` or later; else its end.

        Partitions that do not exist any more are left out.
        """
        requested = [KafkaPartition(*partition, timestamp_ms) for partition in partitions]
        if not requested:
            return {}
        offsets = dict[TopicPartition, int]()
        with self._consumer.request("find the offsets of a time") as consumer:
            for tp in consumer.offsets_for_times(requested, TIMEOUT_S):
                if tp.error is None:
                    offsets[TopicPartition(tp.topic, tp.partition)] = tp.offset
                elif tp.error.code() not in MISSING:  # its offset is the time that was requested
                    raise KafkaException(tp.error)
        ends = self.fetch_offset_ranges({partition.topic for partition, offset in offsets.items() if offset < 0})
        return {p: ends[p].high if offset < 0 else offset for p, offset in offsets.items() if offset >= 0 or p in ends}

    def earliest_timestamp_ms(self, starts: Mapping[TopicPartition, int], *, latest_ms: int) -> int | None:
        """The earliest Kafka timestamp among the first records at or after these offsets, one of each partition.

        0 where a record has no timestamp or one after `latest_ms`; None where there is no record. Raises `Unavailable`.
        """
        offset_ranges = self.fetch_offset_ranges({partition.topic for partition in starts})
        remaining = {
            partition: max(start, offset_ranges[partition].low)
            for partition, start in starts.items()
            if partition in offset_ranges and offset_ranges[partition].high > start
        }
        timestamps_ms = [
            timestamp_ms if 0 <= (timestamp_ms := message.timestamp()[1]) <= latest_ms else 0
            for messages in self._consume_until(remaining, starts=remaining)
            for _, _, message in messages
            if message.error() is None
        ]
        return min(timestamps_ms, default=None)

    def read(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int] | None = None
    ) -> Iterator[list[Record]]:
        """Every record below `ends` (exclusive), in chunks, each partition in its order; raises `Unavailable`.

        `starts`: where to begin in a partition, if not at its first record.
        """
        start_offsets = starts or {}
        remaining = {partition: end for partition, end in ends.items() if end > start_offsets.get(partition, 0)}
        for messages in self._consume_until(remaining, start_offsets):
            records = []
            for partition, position, message in messages:
                raise_if_truncated(message, partition)
                if message.error() is None and position <= ends[partition]:
                    records.append(to_record(message))
            if records:
                yield records

    def close(self) -> None:
        self._consumer.close()

    def _consume_until(
        self, remaining: dict[TopicPartition, int], starts: Mapping[TopicPartition, int]
    ) -> Iterator[list[tuple[TopicPartition, int, Message]]]:
        """The messages of each poll with their position, until every partition has reached its offset in `remaining`.

        A partition that has reached it leaves `remaining` and is read no further. A client that returns nothing for
        `IDLE_CLIENT_S` may have lost its brokers: a new one goes on. Raises `Unavailable` after `IDLE_TIMEOUT_S`, or
        earlier where a partition does not exist any more.
        """
        positions = {partition: starts.get(partition, OFFSET_BEGINNING) for partition in remaining}
        self._assign(positions)
        last_message_s = client_since_s = time.monotonic()
        detector = MissingDetector(self._consumer)
        while remaining:
            wanted = []
            for message in self._poll(positions):
                partition, position = position_after(message)
                if position >= 0:
                    last_message_s = client_since_s = time.monotonic()
                    detector.reset()
                if partition not in remaining:
                    continue
                wanted.append((partition, position, message))
                if position >= 0:
                    positions[partition] = position
                if position >= remaining[partition]:
                    del remaining[partition], positions[partition]
                    self._consumer.client.incremental_unassign([KafkaPartition(*partition)])
            if missing := detector.find(remaining):
                names = ", ".join(partition.log_text() for partition in sorted(missing))
                raise Unavailable(f"Kafka should have the partitions that are read. Found none named {names}.")
            now_s = time.monotonic()
            if now_s > last_message_s + IDLE_TIMEOUT_S:
                unread = ", ".join(map(str, sorted(remaining)))
                self._consumer.replace()
                raise Unavailable(f"Kafka should return records of {unread}. Found none for {IDLE_TIMEOUT_S:g} s.")
            if now_s > client_since_s + IDLE_CLIENT_S:
                log.warning("Kafka should return records. Found none for %.0f s: a new client asks.", IDLE_CLIENT_S)
                self._consumer.replace()
                self._assign(positions)
                client_since_s = now_s
            self._on_poll()
            yield wanted

    def _poll(self, positions: Mapping[TopicPartition, int]) -> Iterator[Message]:
        """The next messages. Where the first offset could not be asked for, no record was lost: it is asked for again.

        That happens while a topic is deleted and recreated.
        """
        for message in self._consumer.client.consume(CHUNK_RECORDS, CHUNK_WAIT_S):
            partition = TopicPartition(message.topic() or "", message.partition() or 0)
            if has_no_offset(message) and positions.get(partition) == OFFSET_BEGINNING:
                self._consumer.restart(partition)
            else:
                yield message

    def _assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._consumer.client.assign([KafkaPartition(*partition, offset) for partition, offset in positions.items()])
