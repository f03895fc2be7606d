"""A thread that asks Kafka for the ends of a worker's logs, ages of records, its topics and the state of its group."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from transport.records import TopicPartition
from worker.kafka.log_probe import LogProbe
from worker.probes.lag import LagMonitor

log = logging.getLogger(__name__)
PROBE_S: Final = 2.0
TOPICS_S: Final = 10.0  # between two looks at the topics while nothing is wrong
AGES_S: Final = 5.0  # between two looks at the records that come next
GROUP_S: Final = 6.0  # between two looks at the group while all its partitions have members


@dataclass(slots=True)
class KafkaView:
    """What Kafka said last; each field is replaced as a whole, so that readers need no lock.

    `partition_counts`: of the topics that exist and that the user may see; None before the first answer. `lacking`:
    what it may not do with which topics. `recreated_s`: when a topic was found to have another id than before.
    `stable_ends`: of partitions that lag.
    `error`: why the last query failed, empty if it did not. `unassigned_since_s`: since when a stable group has
    partitions that none of its members has. Times are monotonic.
    """

    answered_s: float
    error: str = ""
    partition_counts: Mapping[str, int] | None = None
    lacking: Mapping[str, Sequence[str]] = field(default_factory=dict)
    recreated_s: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[TopicPartition, int] = field(default_factory=dict)
    stable_ends: Mapping[TopicPartition, int] = field(default_factory=dict)
    rebalancing_since_s: float | None = None
    unassigned_since_s: float | None = None


class KafkaObserver:
    """Keeps `view` up to date until it is closed; `list_partitions` and `is_blocked` are called from its thread."""

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        group: str,
        operations: Mapping[str, Sequence[str]],
        group_topics: Set[str],
        followed_topics: Set[str],
        lag: LagMonitor,
        list_partitions: Callable[[], Set[TopicPartition]],
        is_blocked: Callable[[], bool],
    ) -> None:
        """`operations`: what the worker does with each topic that it needs. `group_topics`: read by the group.

        `followed_topics`: read outside it. `list_partitions`: those of the group that the worker has.
        """
        self._kafka, self._group, self._operations = kafka, group, operations
        self._group_topics, self._followed_topics = group_topics, followed_topics
        self._lag, self._list_partitions, self._is_blocked = lag, list_partitions, is_blocked
        self.view = KafkaView(answered_s=time.monotonic())
        self._topics_due_s = self._ages_due_s = self._group_due_s = 0.0
        self._topic_ids: dict[str, str] = {}  # also of topics that do not exist now
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-observer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """End the thread; a query that takes longer than `timeout_s` ends with the process."""
        self._closed.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        probe = LogProbe(kafka=self._kafka)
        while not self._closed.is_set():
            try:
                self._observe(probe)
            except Exception as error:
                self.view.error = str(error)
                if not isinstance(error, Unavailable):
                    log.exception("A look at Kafka failed and is repeated.")
            self._closed.wait(PROBE_S)
        probe.close()

    def _observe(self, probe: LogProbe) -> None:
        now_s = time.monotonic()
        if now_s >= self._topics_due_s or self._is_blocked():
            self._topics_due_s = now_s + TOPICS_S
            counts, facts = probe.count_partitions(self._operations), probe.describe_topics(self._operations)
            if self._compare_ids(facts.ids):
                probe.forget_topics()
            self.view.lacking, self.view.partition_counts = facts.lacking, counts
        self.view.ends = probe.fetch_ends(self._list_partitions() | self._list_all(self._followed_topics))
        self.view.stable_ends = probe.fetch_ends(self._lag.lagging(), stable=True)
        self.view.answered_s, self.view.error = time.monotonic(), ""
        if now_s >= self._ages_due_s and (positions := self._lag.lagging()):
            self._ages_due_s = now_s + AGES_S
            self._lag.record_ages(probe.fetch_times(positions), positions, time.time_ns() // 1_000_000, now_s)
        if now_s >= self._group_due_s or self.view.rebalancing_since_s is not None or self._is_blocked():
            self._group_due_s = now_s + GROUP_S
            self._observe_group(probe)

    def _compare_ids(self, topic_ids: Mapping[str, str]) -> bool:
        """Whether topics have other ids than before."""
        recreated = [name for name, topic_id in topic_ids.items() if self._topic_ids.get(name, topic_id) != topic_id]
        if recreated:
            self.view.recreated_s = {**self.view.recreated_s, **dict.fromkeys(recreated, time.monotonic())}
        self._topic_ids |= topic_ids
        return bool(recreated)

    def _observe_group(self, probe: LogProbe) -> None:
        """A group rebalances as long as some partitions of its topics have no member."""
        assigned, now_s = probe.fetch_assigned(self._group), time.monotonic()
        if assigned is None or self._list_all(self._group_topics) <= assigned:
            self.view.rebalancing_since_s = self.view.unassigned_since_s = None
            return
        self.view.rebalancing_since_s = self.view.rebalancing_since_s or now_s
        self.view.unassigned_since_s = (self.view.unassigned_since_s or now_s) if assigned else None

    def _list_all(self, topics: Set[str]) -> set[TopicPartition]:
        """All partitions of those topics that exist, also those that the worker does not know yet."""
        counts = self.view.partition_counts or {}
        return {TopicPartition(topic, number) for topic in topics & counts.keys() for number in range(counts[topic])}
