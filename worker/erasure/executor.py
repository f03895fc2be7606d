"""Forgetting: carries erasures out, between two batches, on what this worker alone writes.

Each worker deletes from its own sources' slices, the claims of its own partitions, and the caches that its lane writes;
then it marks how far it is, for each partition that it holds. It answers and folds nothing that an erasure covers from
the moment it has read it, so nothing comes back. `worker.erasure.confirmation` tells when all have done so.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from contract.errors import ShopstreamError
from contract.profiles.erasures import Erasures
from contract.profiles.store import MergedOffsets
from transport.records import TopicPartition
from worker.erasure.progress import NO_OFFSETS, ErasureOffsets, ErasureProgress, holder_field
from worker.erasure.slice_eraser import SliceEraser
from worker.erasure.topic import ErasureConsumer
from worker.records.lanes import Lane
from worker.state.answer_cache import AnswerCache
from worker.state.decision_store import DecisionStore
from worker.state.offsets import OffsetTracker

log = logging.getLogger(__name__)
PROGRESS_EVERY_S: Final = 10.0


class RefoldNeeded(ShopstreamError):
    """What an erased person did after the erasure had been folded with what came before it: it is folded alone now."""


class ErasureExecutor:
    """What one score worker does about erasures."""

    def __init__(
        self,
        *,
        lane: Lane,
        erasure_consumer: ErasureConsumer,
        eraser: SliceEraser,
        progress: ErasureProgress,
        decision_store: DecisionStore,
        answer_cache: AnswerCache,
        offsets: OffsetTracker,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lane, self._erasure_consumer, self._eraser, self._progress = lane, erasure_consumer, eraser, progress
        self._decision_store, self._answer_cache, self._offsets = decision_store, answer_cache, offsets
        self._clock_s = clock_s
        self._new_users: set[str] = set()
        self._is_up_to_date = False
        self._progress_written_s = float("-inf")

    @property
    def erasures(self) -> Erasures:
        return self._erasure_consumer.erasures

    def load(self) -> bool:
        """Read on until all that was there at first is read; whether it is."""
        self._new_users |= self._erasure_consumer.poll()
        return self._erasure_consumer.is_ready

    def apply_before_start(self, sources: Mapping[TopicPartition, str], merged: MergedOffsets) -> None:
        """Before partitions are folded on: forget what was not yet forgotten in their slices.

        `merged` is what Redis holds, and follows what is written. Raises `StaleState` or `Unavailable`.
        """
        self._is_up_to_date = False
        if not self._erasure_consumer.last_by_user or not sources:
            return
        progress = self._progress.read()
        behind = self._users_behind(
            [progress.get(holder_field(self._lane.name, partition), NO_OFFSETS) for partition in sources]
        )
        until_ms = self.erasures.until_ms
        certain = {user: ms for user, ms in until_ms.items() if user not in behind}
        self._eraser.erase(certain, sources, merged, include_ambiguous=False)
        self._eraser.erase({user: until_ms[user] for user in behind}, sources, merged, include_ambiguous=True)

    def apply_pending(self) -> bool:
        """Carry out what has come since; whether something has to be folded again, which is the caller's to begin.

        Raises `StaleState` or `Unavailable`; what was not carried out then is, the next time.
        """
        self._new_users |= self._erasure_consumer.poll()
        now_s = self._clock_s()
        if not self._new_users and self._is_up_to_date and now_s < self._progress_written_s + PROGRESS_EVERY_S:
            return False
        partitions = list(self._offsets.committed)
        until_ms = self.erasures.until_ms
        new_until_ms = {f"user:{user}": until_ms[f"user:{user}"] for user in self._new_users}
        needs_refold = self._eraser.erase(
            new_until_ms, self._offsets.sources, self._offsets.merged, include_ambiguous=True
        )
        self._delete_answers(new_until_ms, partitions)
        self._progress.write(
            [holder_field(self._lane.name, partition) for partition in partitions], self.read_offsets()
        )
        if new_until_ms:
            log.info("Forgot %d people in what this worker writes.", len(new_until_ms))
        self._new_users, self._is_up_to_date, self._progress_written_s = set(), True, now_s
        return needs_refold

    def read_offsets(self) -> ErasureOffsets:
        """How far the topic of erasures is read, as it stands in marks."""
        return {
            self._progress.partition_name(partition): offset
            for partition, offset in self._erasure_consumer.read_offsets.items()
        }

    def _delete_answers(self, new_until_ms: Mapping[str, int], partitions: list[TopicPartition]) -> None:
        """Claims and caches: of who is new, and of who has not been forgotten by every holder of these partitions."""
        behind = dict(new_until_ms)
        if not self._is_up_to_date and self._erasure_consumer.last_by_user:
            progress = self._progress.read()
            users_behind = self._users_behind(
                [progress.get(holder_field(self._lane.name, partition), NO_OFFSETS) for partition in partitions]
            )
            behind |= {user: self.erasures.until_ms[user] for user in users_behind}
        users = {user.removeprefix("user:"): ms for user, ms in behind.items()}
        if not users:
            return
        if "orders" in self._lane.folded_kinds:  # the lane that decides; the other one makes lists and rankings
            self._decision_store.delete_erased(
                users, lambda topic, n, offset: self._offsets.is_answered(TopicPartition(topic, n), offset)
            )
        else:
            self._answer_cache.delete_users(users)

    def _users_behind(self, holders: list[ErasureOffsets]) -> set[str]:
        """Users (`user:ID`) whose erasure lies beyond some of these marks."""
        least = {
            partition: min((offsets.get(self._progress.partition_name(partition), 0) for offsets in holders), default=0)
            for partition in self._erasure_consumer.read_offsets
        }
        return {
            f"user:{user}"
            for user, record in self._erasure_consumer.last_by_user.items()
            if record.offset >= least.get(record.topic_partition, 0)
        }
