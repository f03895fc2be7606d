"""The group consumer: a member that starts each partition at the offset that recovery gives."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeVar

from confluent_kafka import OFFSET_END, OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import StaleState, Unavailable
from contract.settings.servers import KafkaSettings
from transport.client_log import create_client
from transport.headers import decode_headers
from transport.log_consumer import MISSING
from transport.records import NO_METADATA, PartitionOffsets, Record, TopicPartition, as_bytes
from worker.kafka.consumer_client import build_configuration, close_client
from worker.kafka.instance_name import InstanceName, MemberId
from worker.kafka.missing_partitions import WAITING_S, MissingPartitions
from worker.ops import metrics

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0
REJOIN_WAIT_S: Final = 1.0
REJOIN_WAIT_MAX_S: Final = 16.0
# A client forgets brokers that their cluster does not list, such as one that has just started, and never asks again:
# https://github.com/confluentinc/librdkafka/issues/5301
CLIENT_AWAY_S: Final = 10.0
AWAY: Final = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
START_PENDING: Final = OFFSET_END  # of a partition whose start `seek` will set
T = TypeVar("T")


class RebalanceListener(Protocol):
    """Called for assigned and revoked partitions, within `GroupConsumer.poll` and `heartbeat` only.

    It may not call the consumer: the client would end the process at its next callback within the same poll.
    """

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The start offset of each new partition; `START_PENDING` where `seek` will set it."""

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        """These partitions are revoked now."""


class GroupConsumer:
    """Reads records of the assigned partitions."""

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        group: str,
        instance: str,
        skips_gaps: bool = True,
        strategy: Literal["cooperative-sticky", "range"] = "cooperative-sticky",
    ) -> None:
        """`skips_gaps`: where the next record was deleted, go on with the first one left; else `StaleState`.

        `strategy`: "range" gives one member the same partitions of all topics that have as many, and revokes all
        partitions at each rebalance; "cooperative-sticky" revokes only those that move.
        """
        self._is_eager = strategy == "range"
        self._session_s = kafka.session_timeout_ms / 1000
        self._name = InstanceName(group=group, instance=instance, session_s=self._session_s)
        self._member_id, self._has_new_partitions = MemberId(), False
        self.timeout_s = TIMEOUT_S
        self._listener: RebalanceListener | None = None
        self.assignment: set[TopicPartition] = set()
        self._partitions_by_name: dict[tuple[str, int], TopicPartition] = {}
        self._denial = ""
        self.brokers_down = False
        self._client_due_s = time.monotonic() + CLIENT_AWAY_S  # when to try a new client if no broker answers this one
        self._paused_for_heartbeat: set[TopicPartition] = set()  # while the worker waits for a server
        self._paused_by_caller: set[TopicPartition] = set()
        self._closing = self._is_fenced = False
        self._topics: list[str] = []
        self._rejoin_due_s: float | None = None  # of a fenced member
        self._rejoin_wait_s = REJOIN_WAIT_S
        self.at_end: dict[TopicPartition, int] = {}  # read to this end as of the last poll: the last stable offset
        self.starts: dict[TopicPartition, int] = {}  # where each assigned partition was started or sought last
        self._just_assigned: set[TopicPartition] = set()
        self._missing = MissingPartitions()
        self._gap: StaleState | None = None  # found by a heartbeat
        self._configuration = build_configuration(
            kafka, self._name, skips_gaps=skips_gaps, strategy=strategy, on_error=self._on_error
        )
        self._consumer = create_client(Consumer, self._configuration)

    def subscribe(self, topics: Iterable[str], listener: RebalanceListener) -> None:
        """Join the group for these topics; one that is created later is subscribed to then."""
        self._listener, self._topics = listener, list(topics)
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        """At most `records_max` records: those that have arrived, else the first that arrive within `wait_ms`.

        So the load sets the size of a batch, and no record waits for it to fill. Raises `StaleState` where the next
        record of a partition was deleted, unless gaps are skipped.
        """
        if self._rejoin_due_s is not None and not self._rejoin():
            time.sleep(wait_ms / 1000)
            return []
        if (gap := self._gap) is not None:
            self._gap = None
            raise gap
        self._resume()
        if self._needs_broker_check():
            self._check_brokers()
            if self._rejoin_due_s is not None:
                return []
        self._leave_missing()
        consume = self._consumer.consume
        messages = consume(records_max, 0) or consume(1, wait_ms / 1000)
        if len(messages) == 1 < records_max:
            self._just_assigned.clear()
            arrived = consume(records_max - 1, 0)  # those that arrived with the first
            # A partition that was assigned again in between goes on at its start.
            messages = [m for m in messages if self._intern_partition(m) not in self._just_assigned] + arrived
        records = [record for message in messages if (record := self._handle_message(message))]
        if self._has_new_partitions:
            self._has_new_partitions = False
            self._check_member()
        # This very call may have revoked some partitions.
        return [record for record in records if record.topic_partition in self.assignment]

    @property
    def denial(self) -> str:
        """The error by which Kafka has denied the group to this process; empty where it is a member with partitions."""
        return "" if self.assignment else self._denial

    def heartbeat(self) -> None:
        """Stay a member of the group while the worker waits for a server; reads no record."""
        if self._rejoin_due_s is not None and not self._rejoin():
            return
        if self._needs_broker_check():
            self._check_brokers()
            if self._rejoin_due_s is not None:
                return
        if unpaused := self.assignment - self._paused_for_heartbeat:  # also those assigned during the wait
            self._consumer.pause([KafkaPartition(*partition) for partition in unpaused])
            self._paused_for_heartbeat |= unpaused
        try:
            if (message := self._consumer.poll(0)) is not None:
                self._handle_message(message)  # all partitions are paused, but it may be a fatal error
        except StaleState as error:  # the next poll raises it: a wait has no way to recover
            self._gap = error
        if self._check_member():
            self._missing.query_within(WAITING_S)
            self._leave_missing()

    @property
    def missing(self) -> frozenset[TopicPartition]:
        """The partitions that the group assigns to this member, and that do not exist."""
        return frozenset(self._missing.partitions)

    def request_rebalance(self, reason: str) -> None:
        """Have the group assign its partitions again; `reason` is logged.

        A cooperative rebalance takes two rounds, and a static member that restarts between them gets what the first one
        gave it: the partitions that were moving then stay without a member. The broker begins another rebalance for a
        member whose subscription or partitions have changed since it joined.
        """
        if self._listener and self._rejoin_due_s is None:
            log.warning("Asking the group for another rebalance: %s", reason)
            self._consumer.unsubscribe()
            self.subscribe(self._topics, self._listener)

    def replace_client(self, reason: str) -> None:
        """Join with a new client, which reads on where the group has committed; not within a batch."""
        if self._rejoin_due_s is None:
            self._replace_client(reason)

    def pause_only(self, partitions: Iterable[TopicPartition]) -> None:
        """Pause exactly these partitions until the next call."""
        wanted = self.assignment.intersection(partitions)
        self._consumer.pause([KafkaPartition(*partition) for partition in wanted - self._paused_by_caller])
        self._consumer.resume(
            [KafkaPartition(*partition) for partition in self._paused_by_caller - wanted - self._paused_for_heartbeat]
        )
        self._paused_by_caller = wanted

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Go on reading at these offsets."""
        for partition, offset in offsets.items():
            self.at_end.pop(partition, None)
            self.starts[partition] = offset
            try:
                self._consumer.seek(KafkaPartition(*partition, offset))
            except KafkaException:  # the client had stopped there: records were deleted, or the topic was recreated
                self._request("start at another offset", partial(self._reassign, KafkaPartition(*partition, offset)))

    def _reassign(self, partition: KafkaPartition) -> None:
        if self._is_eager:
            others = self.assignment - {TopicPartition(partition.topic, partition.partition)}
            positions = self._consumer.position([KafkaPartition(*other) for other in others])
            self._consumer.assign([*positions, partition])
            return
        self._consumer.incremental_unassign([partition])
        self._consumer.incremental_assign([partition])

    def query_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, PartitionOffsets]:
        """Committed offsets and offset ranges of these partitions."""
        requested = [KafkaPartition(*partition) for partition in partitions]
        if not requested:
            return {}  # the client would wait in vain for an empty answer
        committed = self._request(
            "return committed offsets", lambda: self._consumer.committed(requested, timeout=self.timeout_s)
        )
        offsets = {}
        for tp in committed:
            query = partial(self._consumer.get_watermark_offsets, tp, timeout=self.timeout_s)
            low, high = self._request("return the ends of a partition", query)
            offsets[TopicPartition(tp.topic, tp.partition)] = PartitionOffsets(
                tp.offset if tp.offset >= 0 else None, low, high, tp.metadata or ""
            )
        return offsets

    def count_partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """The number of partitions of those of the topics that exist."""
        counts = self._request("list its topics", lambda: self._count_partitions(self.timeout_s))
        return {topic: counts[topic] for topic in topics if topic in counts}

    def _count_partitions(self, timeout_s: float) -> dict[str, int]:
        metadata = self._consumer.list_topics(timeout=timeout_s)
        return {name: len(topic.partitions) for name, topic in metadata.topics.items()}

    def end_offsets(self) -> dict[TopicPartition, int]:
        """The high watermark of each assigned partition as of the last fetch; sends no request.

        Where no fetch has been answered so far, it is the offset at which the partition starts. An open transaction
        holds back what follows it, but not the high watermark.
        """
        starts = {partition: max(0, self.starts.get(partition, 0)) for partition in self.assignment}
        return starts | self._read_cached_ends(self.assignment)

    @property
    def held_back(self) -> dict[TopicPartition, tuple[int, int]]:
        """Position and end of partitions that are read as far as they can be now, while their logs go on.

        A transaction is open there, or records have arrived since the last poll. The end is as of the last fetch.
        """
        ends = self._read_cached_ends(self.at_end)
        return {
            partition: (position, ends[partition])
            for partition, position in self.at_end.items()
            if ends.get(partition, position) > position
        }

    def _read_cached_ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        offsets = {}
        for partition in partitions:
            watermarks = self._consumer.get_watermark_offsets(KafkaPartition(*partition), cached=True)
            if watermarks[1] >= 0:
                offsets[partition] = watermarks[1]
        return offsets

    def commit(
        self, positions: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str] = NO_METADATA
    ) -> None:
        """Commit offsets outside a transaction."""
        offsets = [
            KafkaPartition(*partition, offset, metadata=metadata.get(partition, ""))
            for partition, offset in positions.items()
        ]
        self._require_member()
        self._request("commit offsets", lambda: self._consumer.commit(offsets=offsets, asynchronous=False))

    def group_metadata(self) -> Any:
        """With it a transactional producer commits for this member, as long as it is one.

        Raises `Unavailable` where this is not, or not yet, the member that the partitions were assigned to.
        """
        metadata = self._consumer.consumer_group_metadata()
        self._require_member()  # afterwards: what was joined since then is no part of this metadata
        return metadata

    def close(self) -> None:
        """Leave the group; partitions assigned from now on are paused, since the listener may be gone.

        First serves a pending rebalance. Otherwise `Consumer.close()` would trigger a second revocation callback, never
        get its acknowledgement, and block forever while holding the GIL.
        """
        self._closing = True
        close_client(self._consumer, self.assignment)

    def _leave_fenced(self, reason: str) -> None:
        """Replace the client of a fenced member; raises `InstanceFenced` if another process has its name."""
        self._name.record_fence()
        self._replace_client(f"the broker fenced this member: {reason}")

    def _replace_client(self, reason: str) -> None:
        """Drop the partitions of a client that is of no more use, and plan to join with a new one."""
        log.warning("Joining the group again in %.0f s, %s", self._rejoin_wait_s, reason)
        metrics.REJOINS.inc()
        with suppress(KafkaException):
            close_client(self._consumer, self.assignment)  # which revokes the partitions
        if self.assignment:
            self._forget(list(self.assignment))
        self._missing.forget(self.missing)
        self._paused_by_caller.clear()
        self._paused_for_heartbeat.clear()
        self._consumer = create_client(Consumer, self._configuration)
        self._is_fenced, self._client_due_s = False, time.monotonic() + CLIENT_AWAY_S
        self._name.record_client()
        self._rejoin_due_s = time.monotonic() + self._rejoin_wait_s
        self._rejoin_wait_s = min(2 * self._rejoin_wait_s, REJOIN_WAIT_MAX_S)

    def _check_member(self) -> bool:
        """Join with a new client, which revokes the partitions, if they are those of a former member of this client."""
        if not self.assignment:
            return True
        member_id = self._consumer.memberid()
        if self._member_id.is_kept(member_id):
            return True
        if member_id:
            self._replace_client("its partitions are those of a member that the group has removed since")
        return False

    def _require_member(self) -> None:
        if not self._check_member():
            raise Unavailable(
                "Kafka should take offsets of the member that read the records. Found that it joins again."
            )

    def _rejoin(self) -> bool:
        """Join once it is due; whether it is."""
        if self._rejoin_due_s is None or time.monotonic() < self._rejoin_due_s:
            return False
        self._rejoin_due_s = None
        if self._listener:
            self.subscribe(self._topics, self._listener)
        return True

    def _handle_message(self, message: Message) -> Record | None:
        error, partition = message.error(), self._intern_partition(message)
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
            self._leave_fenced(error.str())
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

    def _on_assign(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        assign = self._consumer.assign if self._is_eager else self._consumer.incremental_assign
        if self._closing:
            assign(partitions)
            self._consumer.pause(partitions)
            return
        self._rejoin_wait_s = REJOIN_WAIT_S
        self._has_new_partitions = True
        self._missing.query_within(0.0)
        self._start_reading([TopicPartition(tp.topic, tp.partition) for tp in partitions], assign)

    def _start_reading(self, new: list[TopicPartition], assign: Callable[[list[KafkaPartition]], None]) -> None:
        starts = self._listener.on_assigned(new) if self._listener else {}
        self.assignment.update(new)
        self._just_assigned.update(new)
        self.starts.update((partition, starts.get(partition, OFFSET_INVALID)) for partition in new)
        assign([KafkaPartition(*p, starts.get(p, OFFSET_INVALID)) for p in new])
        # The client remembers that a partition was paused when it was revoked, and would not read from it again.
        self._consumer.resume([KafkaPartition(*partition) for partition in new])

    def _on_revoke(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        revoked = [TopicPartition(tp.topic, tp.partition) for tp in partitions]
        self._forget([partition for partition in revoked if partition not in self._missing.partitions])
        self._missing.forget(revoked)
        if self._is_eager:
            self._consumer.unassign()
        else:
            self._consumer.incremental_unassign(partitions)

    def _forget(self, leaving: list[TopicPartition]) -> None:
        if self._listener:
            self._listener.on_revoked(leaving)
        self.assignment.difference_update(leaving)
        if not self.assignment:
            self._client_due_s = time.monotonic() + CLIENT_AWAY_S
            self._member_id.forget()
        for partition in leaving:
            self.at_end.pop(partition, None)
            self.starts.pop(partition, None)
        self._paused_by_caller.difference_update(leaving)
        self._paused_for_heartbeat.difference_update(leaving)

    def _leave_missing(self) -> None:
        """Go on without the assigned partitions that do not exist, and ask the group to assign those that do."""
        if self.assignment and self._missing.take_query() and self._check_member():
            try:
                counts = self._count_partitions(timeout_s=1)
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
        if self._is_eager:
            self._forget(list(self.assignment))
            self._start_reading(list(kept), self._consumer.assign)
        else:
            self._consumer.pause([KafkaPartition(*partition) for partition in missing])
            self._forget(list(missing))
        self._missing.partitions |= missing

    def _on_lost(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        if not self._is_fenced:  # the session ran out
            self._name.record_outage()
        for tp in partitions:
            partition = TopicPartition(tp.topic, tp.partition)
            log.warning(
                "Lost %s: the session ran out, or another member joined under this name.",
                partition.log_text(),
                extra=partition.log_fields(),
            )
        self._on_revoke(consumer, partitions)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._is_fenced = True
        elif error.code() in AWAY:
            self._name.record_outage()
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self.brokers_down:
            servers = self._configuration["bootstrap.servers"]
            log.warning("No Kafka broker of %s answers, the client retries: %s", servers, error.str())
            metrics.WAITING.labels("kafka").set(1)
            self.brokers_down = True
            # Of a member with partitions the session is to have ended: it would lose them to a short absence otherwise.
            self._client_due_s = time.monotonic() + max(CLIENT_AWAY_S, self._session_s if self.assignment else 0.0)

    def _needs_broker_check(self) -> bool:
        """Also of a member without partitions: a client that has forgotten all brokers may not report that."""
        return self.brokers_down or (not self.assignment and time.monotonic() >= self._client_due_s)

    def _check_brokers(self) -> None:
        try:
            self._consumer.list_topics(timeout=1)
        except KafkaException as error:
            if time.monotonic() >= self._client_due_s:
                self._replace_client(f"no broker answers this client: {error.args[0].str()}")
            return
        self._client_due_s = time.monotonic() + CLIENT_AWAY_S
        if self.brokers_down:
            log.info("Kafka answers again.")
            metrics.WAITING.labels("kafka").set(0)
            self.brokers_down = False

    def _resume(self) -> None:
        if self._paused_for_heartbeat:
            self._consumer.resume(
                [KafkaPartition(*partition) for partition in self._paused_for_heartbeat - self._paused_by_caller]
            )
            self._paused_for_heartbeat.clear()

    def _request(self, action: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except KafkaException as error:
            raise Unavailable(f"Kafka should {action}. Found: {error.args[0].str()}") from error
