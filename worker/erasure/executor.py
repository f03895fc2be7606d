"""Carries erasures out, between two batches, on the data that this worker alone writes.

Each worker deletes slices of its own sources, stored decisions of its own partitions, and answers that its lane caches;
it masks the links with the person in other slices of its sources; then it records its progress for each partition that
it owns. Once it has read an erasure it answers and folds no event that the erasure covers, so nothing comes back.
`worker.erasure.confirmation` checks that all workers have done so.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from contract.errors import ShopstreamError
from contract.profiles.erasures import Erasures
from contract.profiles.store import MergedOffsets
from transport.records import TopicPartition
from worker.erasure.guest_eraser import GuestEraser, Publish
from worker.erasure.link_sweeper import LinkSweeper
from worker.erasure.marks import ErasureMarks
from worker.erasure.progress import NO_OFFSETS, ErasureOffsets, find_lower, owner_field
from worker.erasure.slice_eraser import SliceEraser
from worker.erasure.topic import ErasureConsumer
from worker.records.lanes import Lane
from worker.state.offsets import OffsetTracker
from worker.state.resources import Stores

log = logging.getLogger(__name__)
CHECK_EVERY_S: Final = 1.0
Forget: TypeAlias = Callable[[Mapping[str, int]], None]  # what users (by id) did up to a time (ms)


class RefoldNeeded(ShopstreamError):
    """Events after an erasure were folded with erased ones; the slice was deleted and is folded again without these."""


class ErasureExecutor:
    """Applies erasures to the data of one score worker."""

    def __init__(
        self,
        *,
        lane: Lane,
        erasure_consumer: ErasureConsumer,
        eraser: SliceEraser,
        sweeper: LinkSweeper,
        marks: ErasureMarks,
        stores: Stores,
        offsets: OffsetTracker,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lane = lane
        self._erasure_consumer = erasure_consumer
        self._eraser = eraser
        self._guest_eraser = GuestEraser(profiles=stores.profiles, topic=erasure_consumer.topic)
        self._sweeper, self._progress, self._marks = sweeper, marks.progress, marks
        self._claim_store, self._answer_cache = stores.claim_store, stores.answer_cache
        self._offsets = offsets
        self._clock_s = clock_s
        self._new_users: set[str] = set()
        self._is_up_to_date = False
        self._checked_s = float("-inf")

    @property
    def erasures(self) -> Erasures:
        return self._erasure_consumer.erasures

    def load(self) -> bool:
        """Read more of the topic; whether everything it held at start is read."""
        self._poll()
        return self._erasure_consumer.is_ready

    def apply_before_start(self, sources: Mapping[TopicPartition, str], merged: MergedOffsets) -> None:
        """Before folding resumes in these partitions: apply the erasures that are still pending in their slices.

        `merged` are the offsets in Redis; they are updated as Redis is written. Raises `StaleState` or `Unavailable`.
        """
        self._is_up_to_date = False
        if not self._erasure_consumer.last_by_user or not sources:
            return
        progress = self._progress.read()
        behind = self._users_behind(
            [progress.get(owner_field(self._lane.name, partition), NO_OFFSETS) for partition in sources]
        )
        until_ms = self.erasures.until_ms
        certain = {user: ms for user, ms in until_ms.items() if user not in behind}
        self._eraser.erase(certain, sources, merged, include_ambiguous=False)
        self._eraser.erase({user: until_ms[user] for user in behind}, sources, merged, include_ambiguous=True)

    def apply_pending(self, publish: Publish, forget: Forget) -> bool:
        """Carry out new erasures; whether the caller has to start a recovery, so that events are folded again.

        `publish` writes records to Kafka, and returns when they are stored: erasures of the users' guests.
        `forget` removes what the process holds in memory, first: a failure after it leaves nothing to a list.
        Once a second also those that a Redis which went back has lost. Raises `StaleState` or `Unavailable`; pending
        erasures are then carried out by the next call.
        """
        self._poll()
        if self._new_users:
            forget({user: self.erasures.until_ms[f"user:{user}"] for user in self._new_users})
        now_s = self._clock_s()
        if not self._new_users and self._is_up_to_date and now_s < self._checked_s + CHECK_EVERY_S:
            return False
        partitions = list(self._offsets.committed)
        fields = [self._field(partition) for partition in partitions]
        if behind := self._marks.find_behind(fields):
            self._new_users |= {user.removeprefix("user:") for user in self._users_behind(behind)}
            self._sweeper.restart()
        until_ms = self.erasures.until_ms
        new_until_ms = {f"user:{user}": until_ms[f"user:{user}"] for user in self._new_users}
        unexecuted = self._find_unexecuted(new_until_ms, partitions)
        self._erase_guests(unexecuted, publish)
        needs_refold = self._eraser.erase(
            new_until_ms, self._offsets.sources, self._offsets.merged, include_ambiguous=True
        )
        self._delete_answers(unexecuted)
        self._record(partitions)
        if new_until_ms:
            log.info("Erased the data of %d users in this worker's partitions.", len(new_until_ms))
        self._new_users = set()
        self._is_up_to_date = True
        self._checked_s = now_s
        return needs_refold

    def mask_links(self) -> None:
        """Mask links with erased users for some milliseconds, if any may be left.

        Raises `StaleState` or `Unavailable`.
        """
        if self._new_users or not self._is_up_to_date:
            return
        if (sweep := self._sweeper.step(self.read_offsets())) is not None:
            owned = [partition for partition in sweep.sources if partition in self._offsets.committed]
            self._marks.write([self._field(partition) for partition in owned], sweep.read_offsets)
            self._record(list(self._offsets.committed))

    def read_offsets(self) -> ErasureOffsets:
        """How far the erasures topic is read, by partition name as in the progress hash."""
        return {
            self._progress.partition_name(partition): offset
            for partition, offset in self._erasure_consumer.read_offsets.items()
        }

    def _record(self, partitions: list[TopicPartition]) -> None:
        """Record the progress of those partitions whose links are masked; of the others `mask_links` will."""
        read_offsets = self.read_offsets()
        self._sweeper.record_swept(
            partition
            for partition in partitions
            if not find_lower(self._marks.offsets(self._field(partition)), read_offsets)
        )
        done = [self._field(partition) for partition in partitions if self._sweeper.is_swept(partition)]
        self._marks.write(done, read_offsets)

    def _field(self, partition: TopicPartition) -> str:
        return owner_field(self._lane.name, partition)

    def _poll(self) -> None:
        """Read new records; a recreated topic has another id."""
        self._new_users |= self._erasure_consumer.poll()
        self._progress.set_topic_id(self._erasure_consumer.topic_id)

    def _find_unexecuted(self, new_until_ms: Mapping[str, int], partitions: Sequence[TopicPartition]) -> dict[str, int]:
        """New users, and users whose erasure some owner of these partitions has not recorded."""
        unexecuted = dict(new_until_ms)
        if not self._is_up_to_date and self._erasure_consumer.last_by_user:
            progress = self._progress.read()
            users_behind = self._users_behind(
                [progress.get(owner_field(self._lane.name, partition), NO_OFFSETS) for partition in partitions]
            )
            unexecuted |= {user: self.erasures.until_ms[user] for user in users_behind}
        return unexecuted

    def _erase_guests(self, until_ms: Mapping[str, int], publish: Publish) -> None:
        last = self._erasure_consumer.last_by_user
        records = [last[user.removeprefix("user:")] for user in until_ms if user.removeprefix("user:") in last]
        self._guest_eraser.erase(
            [record.erasure for record in records if record.erasure],
            self.erasures,
            self._offsets.sources.values(),
            self._offsets.merged,
            publish,
        )

    def _delete_answers(self, until_ms: Mapping[str, int]) -> None:
        """Delete claims and cached answers of users."""
        users = {user.removeprefix("user:"): ms for user, ms in until_ms.items()}
        if not users:
            return
        self._claim_store.delete_erased(
            users, lambda topic, n, offset: self._offsets.is_answered(TopicPartition(topic, n), offset)
        )
        self._answer_cache.delete_users(users)

    def _users_behind(self, owners: list[ErasureOffsets]) -> set[str]:
        """Users (`user:ID`) whose erasure is beyond the progress of at least one of these owners."""
        lowest = {
            partition: min((offsets.get(self._progress.partition_name(partition), 0) for offsets in owners), default=0)
            for partition in self._erasure_consumer.read_offsets
        }
        return {
            f"user:{user}"
            for user, record in self._erasure_consumer.last_by_user.items()
            if record.offset >= lowest.get(record.topic_partition, 0)
        }
