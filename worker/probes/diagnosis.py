"""Finds out why a worker or one of its partitions stands still, from what the worker's thread and Kafka tell."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from transport.records import TopicPartition
from worker.ops.denied_rights import Grants, explain_denied, explain_lacking
from worker.ops.retry import WAITS, Wait
from worker.ops.steps import Step
from worker.probes.blocks import (
    Block,
    Reason,
    explain_frozen_step,
    explain_missing_partitions,
    explain_missing_topics,
    explain_open_transaction,
    explain_pause,
    explain_rebalance,
)
from worker.probes.kafka_observer import KafkaView
from worker.probes.lag import PartitionLag
from worker.probes.progress import Progress

FROZEN_AFTER_S: Final = 5.0
RECOVERY_S: Final = 15.0  # after the last of several recoveries the state is taken for kept
WRITING_STEPS: Final = (Step.SEND, Step.PUBLISH, Step.COMMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedWorker:
    """What a watchdog has to know of its worker.

    `topics`, `followed_topics` (read outside the group): names by kind. `check_topics`: why topics with these numbers
    of partitions do not do.
    """

    group: str
    grants: Grants
    topics: Mapping[str, str]
    followed_topics: Mapping[str, str]
    new_partitions: int  # of a topic that is created
    progress: Progress
    check_topics: Callable[[Mapping[str, int]], str | None]


class Diagnosis:
    """The blocks of one worker."""

    def __init__(self, worker: WatchedWorker) -> None:
        self._worker, self._progress = worker, worker.progress
        self._followed = frozenset(worker.followed_topics.values())
        self._unfit_since_s: float | None = None
        self._denied_since_s: float | None = None
        self._missing_since_s: float | None = None
        # For each partition: since when it stands, and how often the worker had recovered its state by then.
        self._recoveries: dict[TopicPartition, tuple[float, int]] = {}
        self._latest_recovery = (0, 0.0)  # their number, and when it was seen to change

    def find_process_blocks(self, view: KafkaView, now_s: float) -> Iterator[Block]:
        """What concerns the worker as a whole."""
        if unfit := self._find_unfit(view):
            self._unfit_since_s = self._unfit_since_s or now_s
            yield Block(unfit[0], self._unfit_since_s, unfit[1], is_unfit=True, stands=False)
        else:
            self._unfit_since_s = None
        if text := explain_denied(self._progress.denial, view.lacking, self._worker.grants):
            self._denied_since_s = self._denied_since_s or now_s
            yield Block(Reason.DENIED, self._denied_since_s, text, is_unfit=True, stands=False)
        else:
            self._denied_since_s = None
        latest, wait = self._progress.latest, self._find_wait()
        has_partitions = latest is not None and bool(latest.ends)
        self._missing_since_s = (self._missing_since_s or now_s) if latest and latest.missing else None
        if latest and self._missing_since_s:
            text = explain_missing_partitions(latest.missing, self._worker.group)
            yield Block(Reason.REBALANCE, self._missing_since_s, text, is_unfit=True, stands=False)
        if view.rebalancing_since_s is not None:
            yield Block(
                Reason.REBALANCE, view.rebalancing_since_s, self._explain_rebalance(), stands=not has_partitions
            )
        if wait is not None and not has_partitions:
            yield Block(*self._classify_wait(wait, view), stands=False)
        if wait is None and (frozen_since_s := self._find_frozen_since_s()) is not None:
            yield Block(Reason.FROZEN_STEP, frozen_since_s, explain_frozen_step(self._progress))

    def find_partition_blocks(
        self, partitions: Mapping[TopicPartition, PartitionLag], view: KafkaView, now_s: float
    ) -> Iterator[Block]:
        """Each partition that lags, with the reason why it stands if it does."""
        recoveries = self._progress.latest.recoveries if self._progress.latest else 0
        if recoveries != self._latest_recovery[0]:
            self._latest_recovery = recoveries, now_s
        goes_on = now_s - self._latest_recovery[1] < RECOVERY_S
        for partition, lag in partitions.items():
            since_s, recoveries_before = self._recoveries.get(partition, (-1.0, 0))
            if since_s != lag.since_s:
                self._recoveries[partition] = lag.since_s, recoveries
                recoveries_before = recoveries
            if lag.records:
                repeats = recoveries - recoveries_before if goes_on else 0
                reason, text = self._find_pause(partition, partitions) or self._classify(partition, lag, view, repeats)
                stands_s = now_s - lag.since_s
                place = f"{partition.log_text()} stands at {lag.position} of {lag.end} for {stands_s:.0f} s."
                # What cannot be joined is no fault of this process: a restart would not help.
                yield Block(reason, lag.since_s, f"{place} {text}", stands=reason != Reason.TOPIC_UNFIT)

    def _find_pause(
        self, partition: TopicPartition, partitions: Mapping[TopicPartition, PartitionLag]
    ) -> tuple[Reason, str] | None:
        """Why the worker does not read a partition for now; None if it does, or something else is in its way."""
        paused = self._progress.latest.paused if self._progress.latest else {}
        if partition not in paused or not partitions[partition].is_end_known:
            return None
        if self._find_wait() is not None or self._find_frozen_since_s() is not None:
            return None
        slowest, is_at_end = paused[partition]
        if slowest is None:
            return Reason.TOPIC_UNFIT, explain_pause(slowest)
        if not is_at_end and slowest in partitions and not partitions[slowest].records:
            return Reason.UNREAD, f"Kafka should return that {slowest.log_text()} is at its end. Found nothing so far."
        return Reason.STREAM_TIME, explain_pause(slowest)

    def _classify(
        self, partition: TopicPartition, lag: PartitionLag, view: KafkaView, recoveries: int
    ) -> tuple[Reason, str]:
        stable_end = view.stable_ends.get(partition)
        if stable_end is not None and lag.position == stable_end < lag.end:
            return Reason.OPEN_TRANSACTION, explain_open_transaction(partition, stable_end, self._worker.grants.servers)
        if (wait := self._find_wait()) is not None:
            reason, _, text = self._classify_wait(wait, view)
            return reason, text
        if not lag.is_end_known:
            return Reason.KAFKA, view.error or "Kafka should answer. Found no answer so far."
        if self._find_frozen_since_s() is not None:
            return Reason.FROZEN_STEP, explain_frozen_step(self._progress)
        if operations := view.lacking.get(partition.topic):
            return Reason.DENIED, explain_lacking({partition.topic: operations}, self._worker.grants)
        if partition.topic in self._followed:
            return Reason.FOLLOWER, "The worker should read this topic to its end, outside its group. Found it behind."
        if recoveries > 1:
            return Reason.LOST_STATE, f"Redis should keep what is written to it. Found {recoveries} recoveries."
        if view.rebalancing_since_s is not None:
            return Reason.REBALANCE, self._explain_rebalance()
        return Reason.UNREAD, "Kafka should return the next record. Found none so far."

    def _classify_wait(self, wait: Wait, view: KafkaView) -> tuple[Reason, float, str]:
        """What the worker's thread waits for, by the error of its last attempt, and since when."""
        if "Redis" in wait.error and not wait.error.startswith("Kafka"):
            return Reason.REDIS, wait.since_s, wait.error
        if text := explain_denied(wait.error, view.lacking, self._worker.grants):
            return Reason.DENIED, wait.since_s, text
        if missing := self._find_missing(view):
            return Reason.TOPIC_MISSING, wait.since_s, f"{self._explain_missing(missing)} {wait.error}"
        does_kafka_answer = view.answered_s > wait.since_s and not view.error
        if does_kafka_answer and self._progress.step() in WRITING_STEPS:
            text = f"Kafka should take the records that the worker writes. It answers, and yet: {wait.error}"
            return Reason.UNWRITABLE, wait.since_s, text
        return Reason.KAFKA, wait.since_s, wait.error

    def _find_wait(self) -> Wait | None:
        """The longest wait of the worker's thread."""
        waits = [wait for (thread_id, _), wait in list(WAITS.items()) if thread_id == self._progress.thread_id]
        return min(waits, default=None)

    def _find_frozen_since_s(self) -> float | None:
        """Since when the worker's thread is inside one step; None while it goes from batch to batch, or starts."""
        latest = self._progress.latest
        since_s = max(latest.at_s, self._progress.worked_s) if latest else time.monotonic()
        return since_s if time.monotonic() - since_s > FROZEN_AFTER_S else None

    def _find_unfit(self, view: KafkaView) -> tuple[Reason, str] | None:
        if unseen := {name: view.lacking[name] for name in view.lacking if name not in (view.partition_counts or {})}:
            return Reason.DENIED, explain_lacking(unseen, self._worker.grants)
        if missing := self._find_missing(view):
            return Reason.TOPIC_MISSING, self._explain_missing(missing)
        if view.partition_counts and (text := self._worker.check_topics(view.partition_counts)):
            return Reason.TOPIC_UNFIT, text
        return None

    def _find_missing(self, view: KafkaView) -> dict[str, str]:
        """The topics that do not exist, as far as known: name by kind."""
        counts = view.partition_counts
        return (
            {} if counts is None else {kind: name for kind, name in self._worker.topics.items() if name not in counts}
        )

    def _explain_missing(self, missing: Mapping[str, str]) -> str:
        return explain_missing_topics(missing, self._worker.grants.servers, self._worker.new_partitions)

    def _explain_rebalance(self) -> str:
        return explain_rebalance(self._worker.group, self._worker.grants.servers)
