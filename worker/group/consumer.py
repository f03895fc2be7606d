"""The group consumer: reads what its member is assigned, each partition from the offset that recovery gives."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import StaleState
from contract.settings.servers import KafkaSettings
from transport.client_errors import translate_errors
from transport.headers import decode_headers
from transport.log_consumer import MISSING
from transport.records import NO_METADATA, PartitionOffsets, Record, TopicPartition, as_bytes
from worker.group.confirmed_starts import ConfirmedStarts
from worker.group.listener import START_PENDING, RebalanceListener
from worker.group.member import AssignmentCallbacks, GroupMember, Strategy
from worker.group.missing_partitions import WAITING_S, MissingPartitions
from worker.group.offsets import commit_offsets, count_partitions, query_offsets, read_cached_ends
from worker.group.pauses import PartitionPauses
from worker.ops import metrics

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0


class GroupConsumer:
    """Reads records of the assigned partitions."""

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        group: str,
        instance: str,
        skips_gaps: bool = True,
        strategy: Strategy = "cooperative-sticky",
    ) -> None:
        """`skips_gaps`: where the next record was deleted, go on with the first one left; else `StaleState`.

        `strategy`: "range" gives one member the same partitions of all topics that have as many, and revokes all
        partitions at each rebalance; "cooperative-sticky" revokes only those that move.
        """
        self._member = GroupMember(
            kafka=kafka,
            group=group,
            instance=instance,
            skips_gaps=skips_gaps,
            strategy=strategy,
            callbacks=AssignmentCallbacks(assigned=self._on_assigned, revoked=self._on_revoked, closed=self._on_closed),
        )
        self.timeout_s = TIMEOUT_S
        self._listener: RebalanceListener | None = None
        self.assignment = self._member.assignment  # the same set, which is changed in place
        self._has_new_partitions = False
        self._just_assigned: set[TopicPartition] = set()
        self._partitions_by_name: dict[tuple[str, int], TopicPartition] = {}
        self._denial = ""
        self._pauses = PartitionPauses(self._member)
        self.at_end: dict[TopicPartition, int] = {}  # read to this end as of the last poll: the last stable offset
        self.starts: dict[TopicPartition, int] = {}  # where each assigned partition was started or sought last
        self._missing, self._confirmed_starts = MissingPartitions(), ConfirmedStarts()
        self._gap: StaleState | None = None  # found by a heartbeat

    def subscribe(self, topics: Iterable[str], listener: RebalanceListener) -> None:
        """Join the group for these topics; one that is created later is subscribed to then."""
        self._listener = listener
        self._member.subscribe(topics)

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        """At most `records_max` records: those that have arrived, else the first that arrive within `wait_ms`.

        So the load sets the size of a batch, and no record waits for it to fill. Raises `StaleState` where the next
        record of a partition was deleted, unless gaps are skipped.
        """
        if not self._member.rejoin_when_due():
            time.sleep(wait_ms / 1000)
            return []
        if (gap := self._gap) is not None:
            self._gap = None
            raise gap
        self._pauses.end_wait()
        if not self._member.check_brokers():
            return []
        self._leave_missing()
        consume = self._member.client.consume
        messages = consume(records_max, 0) or consume(1, wait_ms / 1000)
        if len(messages) == 1 < records_max:
            self._just_assigned.clear()
            arrived = consume(records_max - 1, 0)  # those that arrived with the first
            # A partition that was assigned again in between goes on at its start.
            messages = [m for m in messages if self._intern_partition(m) not in self._just_assigned] + arrived
        if self._confirmed_starts.sought:
            messages = list(self._drop_skipping(messages))
        records = [record for message in messages if (record := self._handle_message(message))]
        if self._confirmed_starts.is_watching():
            records = list(self._drop_after_gaps(records))
        if self._has_new_partitions:
            self._has_new_partitions = False
            self._member.check_id()
        # This very call may have revoked some partitions.
        return [record for record in records if record.topic_partition in self.assignment]

    @property
    def denial(self) -> str:
        """The error by which Kafka has denied the group to this process; empty where it is a member with partitions."""
        return "" if self.assignment else self._denial

    def heartbeat(self) -> None:
        """Stay a member of the group while the worker waits for a server; reads no record."""
        if not self._member.rejoin_when_due() or not self._member.check_brokers():
            return
        self._pauses.begin_wait()
        try:
            message = self._member.client.poll(0)
            # All partitions are paused, but it may be a fatal error, or of a partition assigned in this very call.
            if message is not None and (record := self._handle_message(message)) is not None:
                self._seek(record.topic_partition, record.offset)
        except StaleState as error:  # the next poll raises it: a wait has no way to recover
            self._gap = error
        if self._member.check_id():
            self._missing.query_within(WAITING_S)
            self._leave_missing()

    @property
    def missing(self) -> frozenset[TopicPartition]:
        """The partitions that the group assigns to this member, and that do not exist."""
        return frozenset(self._missing.partitions)

    def request_rebalance(self, reason: str) -> None:
        """Have the group assign its partitions again, as some have no member or do not exist; `reason` is logged."""
        self._member.request_rebalance(reason)

    def replace_client(self, reason: str) -> None:
        """Join with a new client, which reads on where the group has committed; not within a batch."""
        self._member.replace_client(reason)

    def pause_only(self, partitions: Iterable[TopicPartition]) -> None:
        """Pause exactly these partitions until the next call."""
        self._pauses.pause_only(partitions)

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Go on reading at these offsets."""
        for partition, offset in offsets.items():
            self._seek(partition, offset)
            self._pauses.start(partition)

    def _seek(self, partition: TopicPartition, offset: int) -> None:
        self._confirmed_starts.seek(partition, offset)
        self._seek_client(partition, offset)

    def _seek_client(self, partition: TopicPartition, offset: int) -> None:
        self.at_end.pop(partition, None)
        self.starts[partition] = offset
        try:
            self._member.client.seek(KafkaPartition(*partition, offset))
        except KafkaException:  # the client had stopped there: records were deleted, or the topic was recreated
            with translate_errors("start at another offset"):
                self._member.reassign(KafkaPartition(*partition, offset))

    def query_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, PartitionOffsets]:
        """Committed offsets and offset ranges of these partitions."""
        return query_offsets(self._member.client, partitions, self.timeout_s)

    def count_partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """The number of partitions of those of the topics that exist."""
        with translate_errors("list its topics"):
            counts = count_partitions(self._member.client, self.timeout_s)
        return {topic: counts[topic] for topic in topics if topic in counts}

    def end_offsets(self) -> dict[TopicPartition, int]:
        """The high watermark of each assigned partition as of the last fetch; sends no request.

        Where no fetch has been answered so far, it is the offset at which the partition starts. An open transaction
        holds back what follows it, but not the high watermark.
        """
        starts = {partition: max(0, self.starts.get(partition, 0)) for partition in self.assignment}
        return starts | read_cached_ends(self._member.client, self.assignment)

    @property
    def held_back(self) -> dict[TopicPartition, tuple[int, int]]:
        """Position and end of partitions that are read as far as they can be now, while their logs go on.

        A transaction is open there, or records have arrived since the last poll. The end is as of the last fetch.
        """
        ends = read_cached_ends(self._member.client, self.at_end)
        return {
            partition: (position, ends[partition])
            for partition, position in self.at_end.items()
            if ends.get(partition, position) > position
        }

    def commit(
        self, positions: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str] = NO_METADATA
    ) -> None:
        """Commit offsets outside a transaction."""
        self._member.require_id()
        commit_offsets(self._member.client, positions, metadata)

    def group_metadata(self) -> Any:
        """With it a transactional producer commits for this member, as long as it is one.

        Raises `Unavailable` where this is not, or not yet, the member that the partitions were assigned to.
        """
        return self._member.fetch_metadata()

    def close(self) -> None:
        """Leave the group; partitions assigned from now on are paused, since the listener may be gone."""
        self._member.close()

    def _drop_skipping(self, messages: Iterable[Message]) -> Iterator[Message]:
        """The messages without those of partitions that did not begin where they were sought: they are sought again."""
        skipping = set[TopicPartition]()
        for message in messages:
            error, partition = message.error(), self._intern_partition(message)
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                if partition in skipping:
                    continue
                position = message.offset() or 0
                if (sought := self._confirmed_starts.find_skipped(partition, position)) is not None:
                    log.info("%s should begin at %d. Found %d: asking again.", partition.log_text(), sought, position)
                    skipping.add(partition)
                    self._seek_client(partition, sought)
                    continue
            yield message

    def _drop_after_gaps(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records up to the first gap of their partition, soon after its start: what is missing is sought again."""
        skipping = set[TopicPartition]()
        for record in records:
            partition = record.topic_partition
            if skipping and partition in skipping:
                continue
            if (expected := self._confirmed_starts.find_gap(partition, record.offset)) is None:
                yield record
                continue
            log.info("%s should go on at %d. Found %d: asking again.", partition.log_text(), expected, record.offset)
            skipping.add(partition)
            self._seek_client(partition, expected)

    def _handle_message(self, message: Message) -> Record | None:
        error, partition = message.error(), self._intern_partition(message)
        if self._pauses.unstarted and partition in self._pauses.unstarted:
            return None  # it was fetched before the client knew of the pause
        if error is None:
            if self.at_end:
                self.at_end.pop(partition, None)
            key, value = as_bytes(message.key()), as_bytes(message.value())
            headers = decode_headers(message, metrics.DROPPED_HEADERS.inc)
            return Record(partition, message.offset() or 0, key, value, headers, message.timestamp()[1])
        if error.code() == KafkaError._PARTITION_EOF:
            self.at_end[partition] = message.offset() or 0
            return None
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._member.replace_fenced(error.str())
            return None
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise StaleState(f"{partition} should go on where it was read to. Found: {error.str()}")
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._denial = error.str()
        if error.code() in MISSING and partition in self.assignment:
            self._missing.query_within(0.0)
        log.warning(
            "No record of %s for now, the client retries: %s",
            partition.log_text(),
            error.str(),
            extra=partition.log_fields(),
        )
        return None

    def _intern_partition(self, message: Message) -> TopicPartition:
        """One object per partition, since every record refers to one."""
        name = (message.topic() or "", message.partition() or 0)
        return self._partitions_by_name.get(name) or self._partitions_by_name.setdefault(name, TopicPartition(*name))

    def _on_assigned(self, new: list[TopicPartition]) -> None:
        self._has_new_partitions = True
        self._missing.query_within(0.0)
        self._start_reading(new)

    def _start_reading(self, new: list[TopicPartition]) -> None:
        given = self._listener.on_assigned(new) if self._listener else {}
        starts = {partition: given.get(partition, OFFSET_INVALID) for partition in new}
        self._just_assigned.update(new)
        self.starts.update(starts)
        pending = [partition for partition, start in starts.items() if start == START_PENDING]
        # An offset that needs no request of the client: see `PartitionPauses`.
        self._member.assign(starts | dict.fromkeys(pending, 0))
        self._pauses.hold(pending)

    def _on_revoked(self, revoked: list[TopicPartition]) -> None:
        self._forget([partition for partition in revoked if partition not in self._missing.partitions])
        self._missing.forget(revoked)

    def _on_closed(self) -> None:
        """Drop what the closed client was assigned and did not revoke."""
        if self.assignment:
            self._forget(list(self.assignment))
        self._missing.forget(self.missing)

    def _forget(self, leaving: list[TopicPartition]) -> None:
        if self._listener:
            self._listener.on_revoked(leaving)
        self._member.forget(leaving)
        self._confirmed_starts.forget(leaving)
        for partition in leaving:
            self.at_end.pop(partition, None)
            self.starts.pop(partition, None)
        self._pauses.forget(leaving)

    def _leave_missing(self) -> None:
        """Go on without the assigned partitions that do not exist, and ask the group to assign those that do."""
        if self.assignment and self._missing.take_query() and self._member.check_id():
            try:
                counts = count_partitions(self._member.client, timeout_s=1)
            except KafkaException:
                return  # what needs Kafka reports an unreachable broker
            if missing := self._missing.find(self.assignment, counts):
                self._drop(missing)
        if self._missing.take_rebalance():
            names = ", ".join(partition.log_text() for partition in sorted(self.missing))
            self.request_rebalance(f"partitions that are assigned should exist. Found that {names} do not.")

    def _drop(self, missing: set[TopicPartition]) -> None:
        """Take these partitions for revoked; the client of a cooperative member keeps them until the group does so."""
        kept = self.assignment - missing
        if self._member.is_eager:
            self._forget(list(self.assignment))
            self._start_reading(list(kept))
        else:
            self._member.client.pause([KafkaPartition(*partition) for partition in missing])
            self._forget(list(missing))
        self._missing.partitions |= missing
