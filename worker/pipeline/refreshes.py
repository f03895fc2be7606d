"""Answers by the clock, such as lists, in the batches of a pipeline: how many, for whom, and what becomes of lost ones.

Users wait in the memory of the scorer, while the offsets of their events are committed. So each commit names, in its
metadata, the first event of each partition whose user waits: the next start reads again from there, and users whose
cached answer does not reflect their event wait again.
"""

from collections.abc import Collection, Mapping

from contract.profiles.store import FoldedBatch
from contract.settings.reading import Settings
from transport.records import TopicPartition
from worker.ops.retry import Retry
from worker.ops.steps import PROFILER, Step
from worker.pipeline.answer_filter import AnswerFilter
from worker.pipeline.refresh_limit import RefreshLimit
from worker.records.batch import Batch
from worker.scoring.results import BatchResults
from worker.scoring.scorer import Scorer
from worker.state.offsets import OffsetMetadata, OffsetTracker


class Refreshes:
    """Has the scorer give as many answers by the clock with each batch as their share of its time allows."""

    def __init__(
        self,
        *,
        settings: Settings,
        scorer: Scorer,
        offsets: OffsetTracker,
        answer_filter: AnswerFilter,
        retry: Retry,
    ) -> None:
        self._scorer, self._offsets, self._answer_filter, self._retry = scorer, offsets, answer_filter, retry
        self._limit = RefreshLimit(latency_ms=settings.worker.latency_ms, share=settings.lists.batch_share)
        self._max = self._given = self._now_ms = 0  # of the present batch
        self._are_unpublished = False

    def queue_waiting(self, batch: Batch, now_ms: int) -> None:
        """Let users wait again whose events were answered before a restart and have been read again."""
        if waiting := self._answer_filter.find_waiting(batch):
            self._retry.call("redis", lambda: self._scorer.wait_again(batch, waiting, now_ms))
        self._offsets.end_waiting(batch.end_offsets)

    def list_entities(self, batch: Batch, records_max: int, now_ms: int) -> list[str]:
        """The entities to read with a batch that might have `records_max` records."""
        self._max, self._given, self._now_ms = self._limit.count_max(len(batch) / records_max), 0, now_ms
        return self._scorer.entities_to_read(batch, now_ms, self._max)

    def give(self, memory: FoldedBatch, now_ms: int) -> BatchResults:
        """The answers that are due, of users who were read with the batch."""
        self._are_unpublished = True
        results = self._retry.call("redis", lambda: self._scorer.refresh(memory, now_ms, self._max))
        self._given = len(results.answers)
        self._answer_filter.drop_erased(results)
        return results

    def record_published(self) -> None:
        """What was given last is published."""
        self._are_unpublished = False

    def take_back(self) -> None:
        """The batch is dropped: what was given with it is due again, unless it is published."""
        if self._are_unpublished:
            self._are_unpublished = False
            self._scorer.take_back()

    def record_time(self, batch: Batch, took_s: float, refreshing_s: float) -> float:
        """Learn from a batch that took `took_s`, of which `refreshing_s` went to answers by the clock and the cache.

        Returns the seconds that answers by the clock took: 0 without any.
        """
        are_late = self._given > 0 and self._scorer.is_refresh_due(self._now_ms)
        self._limit.update(self._given, (refreshing_s if batch else took_s) * 1000, are_late=are_late)
        return refreshing_s if self._given else 0.0

    def describe_commit(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, str]:
        """The metadata of a commit: the topic of each partition by its id, and from where its users wait."""
        sources, waiting = self._offsets.sources, self._scorer.find_waiting(partitions)
        return {p: str(OffsetMetadata(sources.get(p, ""), waiting.get(p))) for p in partitions}


def measure_refreshing_s() -> float:
    """The time that this process has spent on answers by the clock, and on caching answers, so far."""
    return sum(PROFILER(step).wall_ns for step in (Step.REFRESH, Step.CACHE)) / 1e9
