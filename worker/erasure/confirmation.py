"""Confirms an erasure on a topic of its own once Redis holds no erased data of the user.

The orders worker that owns the erasure's partition confirms it. It waits until every partition of every lane that ever
ran has recorded progress past the erasure, checks that the profile holds nothing older, and publishes the confirmation
in one transaction with the group's position. So the position says what is confirmed, and readers of committed records
see each confirmation once, whatever process crashes and whatever Redis loses.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from contract.mapping.event_topics import EventTopics
from contract.messages import ErasureConfirmation, to_json
from contract.profiles.logins import LOGINS, has_erased_logins, split_logins
from contract.profiles.record import FAMILIES
from transport.records import TopicPartition
from worker.erasure.owners import ErasureOwners, OwnerOffsets, describe_owners, read_owner_offsets
from worker.erasure.progress import ErasureProgress
from worker.erasure.slice_eraser import has_erased_entries, plan_deletion
from worker.erasure.surviving import build_copy
from worker.erasure.topic import ErasureConsumer, ErasureRecord
from worker.kafka.admin import KafkaAdmin
from worker.kafka.outgoing import OutgoingRecord
from worker.ops import metrics
from worker.pipeline.batch_pipeline import BatchPipeline
from worker.records.batch import Reject, report_rejects
from worker.redis.client import to_pairs
from worker.state.history_registry import HistoryRegistry
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import RedisProfileStore, locate_sources

log = logging.getLogger(__name__)
CONFIRMATIONS_MAX: Final = 1_000
WAITING_LOG_S: Final = 60.0
NO_OWNER_OFFSETS: Final = OwnerOffsets({})


class ErasureConfirmer:
    """Finds the erasures that can be confirmed, and publishes their confirmations."""

    def __init__(
        self,
        *,
        topics: EventTopics,
        erasure_consumer: ErasureConsumer,
        progress: ErasureProgress,
        profiles: RedisProfileStore,
        offsets: OffsetTracker,
        admin: KafkaAdmin,
        owners: Sequence[ErasureOwners],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`owners`: all that have to execute an erasure before it is confirmed."""
        self._topics, self._event_topics = topics.settings, topics
        self._erasure_consumer = erasure_consumer
        self._progress = progress
        self._profiles = profiles
        self._offsets = offsets
        self._admin = admin
        self._owners = owners
        self._clock_s = clock_s
        self._waiting_since_s: float | None = None
        self._topics_read = erasure_consumer.topics_read
        self._rewound_from = dict[TopicPartition, int]()  # records before were dead-lettered already

    def confirm(self, pipeline: BatchPipeline) -> None:
        """Publish the confirmations that are due from this worker; raises `Unavailable`, or `BatchRevoked`."""
        self._rewind(pipeline)
        ready = self.find_confirmable()
        if ready:
            pipeline.publish_extra(
                self.build_records(ready), {record.topic_partition: record.offset + 1 for record in ready}
            )
            report_rejects(self._find_rejects(ready))
            metrics.ERASURES_CONFIRMED.inc(sum(record.requested_erasure is not None for record in ready))

    def find_confirmable(self) -> list[ErasureRecord]:
        """The records that this worker can confirm now, in the order of each partition; raises `Unavailable`."""
        waiting = self._find_unconfirmed()
        metrics.ERASURES_PENDING.set(sum(record.requested_erasure is not None for record in waiting))
        if not waiting:
            self._report_waiting([], NO_OWNER_OFFSETS)
            return []
        owner_offsets = self.find_completed_offsets()
        completed = owner_offsets.find_completed()
        self._report_waiting(waiting, owner_offsets)
        passed = [
            record
            for record in waiting
            if record.erasure
            and record.offset < completed.get(self._progress.partition_name(record.topic_partition), 0)
        ]
        without_erasure = [record for record in waiting if not record.erasure]
        return self._drop_blocked(waiting, [*without_erasure, *self._filter_erased(passed)])[:CONFIRMATIONS_MAX]

    def build_records(self, ready: Sequence[ErasureRecord]) -> list[OutgoingRecord]:
        """The confirmations, a dead letter for each record that is no valid erasure, and copies of erasures.

        Compaction may remove the erasure of a `displaced_user`: unless it survives under another key, it is written
        once more, by the only worker that may commit past this record, in the transaction that does.
        """
        confirmations = [
            ErasureConfirmation(event_id=erasure.event_id, user_id=erasure.user_id, ts_ms=erasure.ts_ms)
            for record in ready
            if (erasure := record.requested_erasure)
        ]
        outgoing = [
            OutgoingRecord(self._topics.erased, confirmation.user_id, to_json(confirmation))
            for confirmation in confirmations
        ]
        outgoing += [reject.to_dead_letter(self._topics.dead_letters, "") for reject in self._find_rejects(ready)]
        surviving = self._erasure_consumer.surviving
        displaced = {user: record for record in ready if (user := record.displaced_user) is not None}
        for user, record in displaced.items():
            if not surviving.survives(user):
                log.warning(
                    "Record %s would make compaction remove a wider erasure: this is written once more.",
                    record.topic_partition.log_text(record.offset),
                    extra=record.topic_partition.log_fields(record.offset),
                )
                outgoing.append(build_copy(surviving.widest[user], record.topic_partition))
        return outgoing

    def find_completed_offsets(self) -> OwnerOffsets:
        """How far all owners have executed the erasures topic; raises `Unavailable`."""
        return read_owner_offsets(self._owners)

    def _find_rejects(self, ready: Sequence[ErasureRecord]) -> list[Reject]:
        """The records that are no valid erasure, without those dead-lettered before the group was set back."""
        return [
            record.reject
            for record in ready
            if record.reject and record.offset >= self._rewound_from.get(record.topic_partition, 0)
        ]

    def _rewind(self, pipeline: BatchPipeline) -> None:
        """Set the group back where erasures have to be confirmed again; raises `Unavailable`, or `BatchRevoked`."""
        owned = [partition for partition in self._offsets.committed if partition.topic == self._topics.erasures]
        rewound = dict[TopicPartition, int]()
        if self._topics_read != self._erasure_consumer.topics_read:  # recreated
            rewound = {partition: 0 for partition in owned if self._erasure_consumer.has_partition(partition)}
            self._rewound_from.clear()
        requests = self._progress.read_requests() if owned else {}
        partitions = {name: p for p in owned if (name := self._progress.partition_name(p)) in requests}
        for name, partition in partitions.items():
            if requests[name] < self._offsets.committed[partition] and partition not in rewound:
                rewound[partition] = requests[name]
                self._rewound_from[partition] = self._offsets.committed[partition]
        if rewound:
            log.warning(
                "Erasures are confirmed again from %s on.", ", ".join(p.log_text(o) for p, o in rewound.items())
            )
            pipeline.publish_extra([], rewound)
            self._offsets.committed |= rewound
        served = {name: requests[name] for name in partitions}
        self._progress.remove_requests(served)
        self._topics_read = self._erasure_consumer.topics_read

    def _find_unconfirmed(self) -> list[ErasureRecord]:
        """The records of owned partitions that are not confirmed yet."""
        return [
            record
            for partition, committed in self._offsets.committed.items()
            if partition.topic == self._topics.erasures
            for record in self._erasure_consumer.records_since(partition, committed, CONFIRMATIONS_MAX)
        ]

    def _report_waiting(self, waiting: Sequence[ErasureRecord], owner_offsets: OwnerOffsets) -> None:
        """Show for which owners the pending erasures wait; log it for each `WAITING_LOG_S` that they do."""
        needed = dict[str, int]()
        for record in waiting:
            if record.erasure:
                needed[self._progress.partition_name(record.topic_partition)] = record.offset + 1
        lagging = owner_offsets.find_lagging(needed)
        for owners in self._owners:
            metrics.ERASURES_WAITING.labels(owners.name).set(len(lagging.get(owners.name, ())))
        if not any(lagging.values()):
            self._waiting_since_s = None
        elif self._waiting_since_s is None:
            self._waiting_since_s = self._clock_s()
        elif self._clock_s() >= self._waiting_since_s + WAITING_LOG_S:
            self._waiting_since_s = self._clock_s()
            log.warning("Erasures cannot be confirmed yet; they wait for %s.", describe_owners(lagging))

    def _drop_blocked(self, waiting: Sequence[ErasureRecord], done: Sequence[ErasureRecord]) -> list[ErasureRecord]:
        """The records in `done` before which no record of their partition still waits."""
        ready = set(map(id, done))
        blocked = set[TopicPartition]()
        in_order = list[ErasureRecord]()
        for record in waiting:
            if id(record) not in ready:
                blocked.add(record.topic_partition)
            elif record.topic_partition not in blocked:
                in_order.append(record)
        return in_order

    def _filter_erased(self, passed: Sequence[ErasureRecord]) -> list[ErasureRecord]:
        """The records whose user has nothing older in Redis; also deletes what no worker owns."""
        users = [f"user:{erasure_record.erasure.user_id}" for erasure_record in passed if erasure_record.erasure]
        live = self._live_sources() if users else set()
        keys = [self._profiles.keys.profile(user) for user in users], self._profiles.keys.histories(users)
        replies = self._profiles.client.pipeline([("HGETALL", key) for own_keys in keys for key in own_keys])
        hashes = [{name.decode(): record for name, record in to_pairs(reply)} for reply in replies]
        erased = list[ErasureRecord]()
        for number, (erasure_record, user) in enumerate(zip(passed, users, strict=True)):
            slices, (histories, logins) = hashes[number], split_logins(hashes[len(users) + number])
            self._delete_orphaned(keys[0][number], [source for source in slices if source not in live])
            self._delete_orphaned(keys[1][number], [source for source in histories if source not in live])
            self._delete_orphaned(keys[1][number], [LOGINS + source for source in logins if source not in live])
            until_ms = self._erasure_consumer.erasures.until_ms[user]
            if (
                any(plan_deletion(user, s, until_ms, record, False) for s, record in slices.items() if s in live)
                or any(has_erased_entries(record, until_ms) for s, record in histories.items() if s in live)
                or any(has_erased_logins(record, until_ms) for s, record in logins.items() if s in live)
            ):
                partition, offset = erasure_record.topic_partition, erasure_record.offset
                log.warning(
                    "Erasure %s is not confirmed yet: Redis still holds older slices.",
                    partition.log_text(offset),
                    extra=partition.log_fields(offset),
                )
            else:
                erased.append(erasure_record)
        return erased

    def _delete_orphaned(self, key: str, sources: Sequence[str]) -> None:
        """Delete what partitions that no longer exist have left under a key."""
        if sources:
            self._profiles.client.pipeline([("HDEL", key, *sources)])

    def _live_sources(self) -> set[str]:
        topics = self._event_topics.names_of(FAMILIES)
        partitions, topic_ids = self._admin.list_partitions(topics), self._admin.fetch_topic_ids(topics)
        logs = locate_sources(self._event_topics, FAMILIES, partitions, topic_ids)
        return logs.keys() | HistoryRegistry(self._profiles).read().keys()
