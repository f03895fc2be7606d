"""Watches a worker from threads of its own, so that lag and probes are right also while the worker's thread waits.

Everything is evaluated once a second, and when a probe or the metrics are asked for. The threads only read what the
worker's thread publishes, and ask Kafka themselves.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from contract.settings.reading import Settings
from transport.records import TopicPartition
from worker.ops import metrics
from worker.ops.denied_rights import Grants, list_operations
from worker.probes.blocks import Block, Reason
from worker.probes.diagnosis import FROZEN_AFTER_S, Diagnosis, WatchedWorker
from worker.probes.kafka_observer import KafkaObserver, KafkaView
from worker.probes.lag import LagMonitor
from worker.probes.progress import Progress

log = logging.getLogger(__name__)
EVALUATE_S: Final = 1.0
LOG_S: Final = 60.0
CLOSE_S: Final = 1.0
UNASSIGNED_S: Final = 10.0
UNKNOWN_AFTER_S: Final = 10.0  # without an answer of Kafka the ends may have moved


class Watchdog:
    """The lag and the probes of one worker."""

    def __init__(
        self,
        *,
        settings: Settings,
        group: str,
        topics: Mapping[str, str],
        group_topics: Iterable[str],
        progress: Progress,
        followed_topics: Mapping[str, str] | None = None,
        check_topics: Callable[[Mapping[str, int]], str | None] = lambda partition_counts: None,
    ) -> None:
        """`topics`: the worker needs them; `followed_topics`: those that it reads outside its group. Names by kind.

        `group_topics`: the names of those that the group reads.
        `check_topics`: why topics with these numbers of partitions do not do.
        """
        worker = WatchedWorker(
            group=group,
            grants=Grants.of(settings.kafka),
            topics=topics,
            followed_topics=followed_topics or {},
            new_partitions=settings.topics.partitions,
            progress=progress,
            check_topics=check_topics,
        )
        self._progress, self._limits = progress, settings.worker
        self._followed_topics = frozenset(worker.followed_topics.values())
        self._group_topics = group_names = frozenset(group_topics)
        read = group_names | self._followed_topics
        self._lag = LagMonitor()
        self._observer = KafkaObserver(
            kafka=settings.kafka,
            group=group,
            operations={name: ["READ"] if name in read else list_operations(kind) for kind, name in topics.items()},
            group_topics=group_names,
            followed_topics=self._followed_topics,
            lag=self._lag,
            list_partitions=lambda: set(progress.latest.ends) if progress.latest else set(),
            is_blocked=lambda: any(self._is_over(block, FROZEN_AFTER_S) for block in self._blocks),
        )
        self._diagnosis = Diagnosis(worker)
        self._blocks: list[Block] = []
        # The group's partitions: when the worker last had them, their position and end.
        self._held: dict[TopicPartition, tuple[float, int, int]] = {}
        self._lock = threading.Lock()  # of the threads that evaluate; the worker's thread never takes it
        self._logged_s: dict[Reason, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._observer.start()
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(CLOSE_S)
        self._observer.close(CLOSE_S)

    def find_dead(self) -> str | None:
        """What makes no progress for longer than `worker.stall_s`, as a sentence; None if all does."""
        blocks = [b for b in self.evaluate() if b.stands and self._is_over(b, self._limits.stall_s)]
        return f"{blocks[0].reason}: {blocks[0].text}" if blocks else None

    def needs_rebalance(self) -> bool:
        """Whether the group is stable, and partitions have had no member for some time."""
        since_s = self._observer.view.unassigned_since_s
        return since_s is not None and time.monotonic() > since_s + UNASSIGNED_S

    def note_denial(self, error: str) -> None:
        """Keep the error by which Kafka denies the group to the worker; empty if it does not."""
        self._progress.denial = error

    def find_unread(self) -> str | None:
        """A partition that has records which the client has not returned for `worker.blocked_s`, without any reason."""
        unread = (b for b in self._blocks if b.reason == Reason.UNREAD and self._is_over(b, self._limits.blocked_s))
        return next((block.text for block in unread), None)

    @property
    def blocked_s(self) -> float:
        """How long a partition has to stand until `find_unread` finds it."""
        return self._limits.blocked_s

    def find_recreated(self, since_s: float) -> dict[str, float]:
        """The topics of the group that were found to be recreated after `since_s` (monotonic), and when."""
        recreated_s = self._observer.view.recreated_s
        return {topic: at_s for topic, at_s in recreated_s.items() if topic in self._group_topics and at_s > since_s}

    def find_unready(self) -> str | None:
        """Why the worker cannot work, or what stands for longer than `worker.blocked_s`; None if nothing does."""
        blocks = [b for b in self.evaluate() if b.is_unfit or self._is_over(b, self._limits.blocked_s)]
        return f"{blocks[0].reason}: {blocks[0].text}" if blocks else None

    def render_metrics(self) -> bytes:
        """All metrics of the process, those of lag and blocks as of now."""
        self.evaluate()
        return metrics.render()

    def evaluate(self) -> list[Block]:
        """What stands still or is unfit now, the longest first; updates the metrics."""
        with self._lock:
            now_s, view = time.monotonic(), self._observer.view
            self._update_lag(view, now_s)
            blocks = [
                *self._diagnosis.find_process_blocks(view, now_s),
                *self._diagnosis.find_partition_blocks(self._lag.partitions, view, now_s),
            ]
            self._blocks = sorted(blocks, key=lambda block: block.since_s)
            self._set_metrics(view, now_s)
            return self._blocks

    def _update_lag(self, view: KafkaView, now_s: float) -> None:
        latest = self._progress.latest
        are_ends_known = now_s - view.answered_s < UNKNOWN_AFTER_S
        held = {p: (now_s, latest.positions.get(p, 0), end) for p, end in latest.ends.items()} if latest else {}
        # A member that Kafka does not hear loses its partitions; until Kafka answers, no other member has them.
        lost = {p: lag for p, lag in self._held.items() if p not in held and lag[0] > view.answered_s}
        self._held = {**held, **lost}
        positions: dict[TopicPartition, int] = dict(self._progress.followed())
        ends = {partition: view.ends.get(partition, position) for partition, position in positions.items()}
        ends |= {partition: end for partition, end in view.ends.items() if partition.topic in self._followed_topics}
        for partition, (_, position, end) in self._held.items():
            if position <= positions.get(partition, position):  # of a topic read in both ways: the one that is behind
                positions[partition], ends[partition] = position, max(end, view.ends.get(partition, 0))
        self._lag.update(
            positions,
            ends,
            now_s,
            are_ends_known=are_ends_known,
            folded=latest.folded if latest else {},
            worked_s=self._progress.worked_s,
        )

    def _set_metrics(self, view: KafkaView, now_s: float) -> None:
        for reason in Reason:
            longest_s = max((now_s - block.since_s for block in self._blocks if block.reason == reason), default=0.0)
            metrics.BLOCKED_SECONDS.labels(reason).set(longest_s)
        metrics.OPEN_TRANSACTION_OFFSET.clear()
        for partition, lag in self._lag.partitions.items():
            is_held_back = lag.records and lag.position == view.stable_ends.get(partition)
            if is_held_back and now_s - lag.since_s > FROZEN_AFTER_S:
                metrics.OPEN_TRANSACTION_OFFSET.labels(partition.topic, str(partition.partition)).set(lag.position)

    def _run(self) -> None:
        while not self._closed.wait(EVALUATE_S):
            try:
                self._log_blocks(self.evaluate())
            except Exception:
                log.exception("The watchdog failed and goes on.")

    def _log_blocks(self, blocks: list[Block]) -> None:
        """One line a minute for each reason."""
        now_s = time.monotonic()
        for block in blocks:
            is_due = now_s - self._logged_s.get(block.reason, -LOG_S) >= LOG_S
            if is_due and (block.is_unfit or self._is_over(block, self._limits.blocked_s)):
                self._logged_s[block.reason] = now_s
                log.warning("Blocked (%s): %s", block.reason, block.text)

    @staticmethod
    def _is_over(block: Block, seconds: float) -> bool:
        return time.monotonic() - block.since_s > seconds
