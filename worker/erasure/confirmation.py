"""Confirms an erasure on a topic of its own once Redis holds no erased data of the user.

The orders worker that owns the erasure's partition confirms it. It waits until every partition of every lane that ever
ran has recorded progress past the erasure, checks that the profile holds nothing older, and publishes the confirmation
in one transaction with the group's position. So the position says what is confirmed, and readers of committed records
see each confirmation once, whatever process crashes and whatever Redis loses.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from contract.messages import ErasureConfirmation, to_json
from contract.settings.servers import TopicSettings
from transport.records import TopicPartition
from worker.erasure.progress import NO_OFFSETS, ErasureOffsets, ErasureProgress, owner_field
from worker.erasure.slice_eraser import plan_deletion
from worker.erasure.topic import ErasureConsumer, ErasureRecord
from worker.kafka.admin import KafkaAdmin
from worker.kafka.outgoing import OutgoingRecord
from worker.ops import metrics
from worker.pipeline.batch_pipeline import BatchPipeline
from worker.records.lanes import LANES
from worker.redis.client import to_pairs
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import RedisProfileStore, name_sources

log = logging.getLogger(__name__)
CONFIRMATIONS_MAX: Final = 1_000


class ErasureConfirmer:
    """Finds the erasures that can be confirmed, and publishes their confirmations."""

    def __init__(
        self,
        *,
        topics: TopicSettings,
        erasure_consumer: ErasureConsumer,
        progress: ErasureProgress,
        profiles: RedisProfileStore,
        offsets: OffsetTracker,
        admin: KafkaAdmin,
    ) -> None:
        self._topics = topics
        self._erasure_consumer = erasure_consumer
        self._progress = progress
        self._profiles = profiles
        self._offsets = offsets
        self._admin = admin

    def confirm(self, pipeline: BatchPipeline) -> None:
        """Publish the confirmations that are due from this worker; raises `Unavailable`, or `BatchRevoked`."""
        ready = self.find_confirmable()
        if ready:
            pipeline.publish_extra(
                self.build_records(ready), {record.topic_partition: record.offset + 1 for record in ready}
            )
            metrics.ERASURES_CONFIRMED.inc(sum(record.erasure is not None for record in ready))

    def find_confirmable(self) -> list[ErasureRecord]:
        """The records that this worker can confirm now, in the order of each partition; raises `Unavailable`."""
        waiting = self._find_unconfirmed()
        metrics.ERASURES_PENDING.set(sum(record.erasure is not None for record in waiting))
        if not waiting:
            return []
        completed = self.find_completed_offsets()
        passed = [
            record
            for record in waiting
            if record.erasure
            and record.offset < completed.get(self._progress.partition_name(record.topic_partition), 0)
        ]
        without_erasure = [record for record in waiting if not record.erasure]
        return self._drop_blocked(waiting, [*without_erasure, *self._filter_erased(passed)])[:CONFIRMATIONS_MAX]

    def build_records(self, ready: Sequence[ErasureRecord]) -> list[OutgoingRecord]:
        """The confirmations, and a dead letter for each record that is not a valid erasure."""
        confirmations = [
            ErasureConfirmation(event_id=erasure.event_id, user_id=erasure.user_id, ts_ms=erasure.ts_ms)
            for record in ready
            if (erasure := record.erasure)
        ]
        outgoing = [
            OutgoingRecord(self._topics.erased, confirmation.user_id, to_json(confirmation))
            for confirmation in confirmations
        ]
        outgoing += [record.reject.to_dead_letter(self._topics.dead_letters, "") for record in ready if record.reject]
        return outgoing

    def find_completed_offsets(self) -> ErasureOffsets:
        """The offset up to which all owners have carried out each partition of the erasures topic.

        A partition without progress in Redis and without a commit in Kafka was never processed. Redis alone is no
        proof: it may have lost the progress of a lane whose lists are on another server. Progress of partitions that no
        longer exist does not count.
        """
        progress = self._progress.read()
        by_owner = list[ErasureOffsets]()
        for lane in LANES.values():
            partitions = self._admin.list_partitions(
                [self._topics.topic_name(kind) for kind in lane.folded_kinds + lane.watched_kinds]
            )
            partitions_worked = self._admin.filter_committed(lane.name, partitions)
            fields = {partition: owner_field(lane.name, partition) for partition in partitions}
            by_owner += [
                progress.get(field, NO_OFFSETS)
                for partition, field in fields.items()
                if field in progress or partition in partitions_worked
            ]
        names = {name for offsets in by_owner for name in offsets}
        return {name: min(offsets.get(name, 0) for offsets in by_owner) for name in names}

    def _find_unconfirmed(self) -> list[ErasureRecord]:
        """The records of owned partitions that are not confirmed yet."""
        unconfirmed = list[ErasureRecord]()
        for partition, records in self._erasure_consumer.unconfirmed.items():
            if partition in self._offsets.committed:
                while records and self._offsets.is_answered(partition, records[0].offset):
                    records.popleft()
                unconfirmed += islice(records, CONFIRMATIONS_MAX)
        return unconfirmed

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
        """The records whose user has no older slice in Redis; also deletes slices that no worker owns."""
        users = [f"user:{erasure_record.erasure.user_id}" for erasure_record in passed if erasure_record.erasure]
        live = self._live_sources() if users else set()
        replies = self._profiles.client.pipeline([("HGETALL", self._profiles.profile_key(user)) for user in users])
        erased = list[ErasureRecord]()
        for erasure_record, user, reply in zip(passed, users, replies, strict=True):
            slices = {name.decode(): record for name, record in to_pairs(reply)}
            self._delete_orphaned(user, [source for source in slices if source not in live])
            until_ms = self._erasure_consumer.erasures.until_ms[user]
            if any(plan_deletion(user, s, until_ms, record, False) for s, record in slices.items() if s in live):
                partition, offset = erasure_record.topic_partition, erasure_record.offset
                log.warning(
                    "Erasure %s is not confirmed yet: Redis still holds older slices.",
                    partition.log_text(offset),
                    extra=partition.log_fields(offset),
                )
            else:
                erased.append(erasure_record)
        return erased

    def _delete_orphaned(self, user: str, sources: Sequence[str]) -> None:
        """Delete slices whose partition no longer exists."""
        if sources:
            self._profiles.client.pipeline([("HDEL", self._profiles.profile_key(user), *sources)])

    def _live_sources(self) -> set[str]:
        kinds: Mapping[str, str] = {
            self._topics.topic_name(kind): kind for lane in LANES.values() for kind in lane.folded_kinds
        }
        ids = self._admin.fetch_topic_ids(kinds)
        return set(name_sources(self._admin.list_partitions(kinds), kinds, ids).values())
