"""Where each partition starts, on assignment and after every loss: one path for all cases.

Every partition starts at min(committed, merged of every bucket): what is not merged is folded, and what is committed
is not answered again.
"""

import logging
from collections.abc import Callable, Container, Iterable, Mapping

from contract.errors import BadProfile, StaleState, Unavailable
from contract.hashing import BUCKETS
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.record import FAMILIES
from contract.profiles.store import MergedOffsets
from contract.settings.reading import Settings
from transport.records import PartitionOffsets, TopicPartition
from worker.group.consumer import GroupConsumer
from worker.kafka.admin import KafkaAdmin
from worker.ops import metrics
from worker.records.lanes import Lane
from worker.state.history_registry import HistoryRegistry
from worker.state.offsets import OffsetTracker, StartOffsets, find_start, raise_if_log_replaced, raise_if_lost
from worker.state.profile_repair import ProfileRepair
from worker.state.profile_store import RedisProfileStore, locate_sources, name_sources

log = logging.getLogger(__name__)
ApplyErasures = Callable[[Mapping[TopicPartition, str], MergedOffsets], None]


class Recovery:
    """Fills `offsets` from Kafka and Redis, and returns where to start.

    `erasures`: those that this worker knows. `apply_erasures_before_start(sources, merged)` erases them in slices that
    are folded on, and changes `merged` as it writes; it raises `StaleState` or `Unavailable`.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        lane: Lane,
        admin: KafkaAdmin,
        profiles: RedisProfileStore,
        offsets: OffsetTracker,
        erasures: Erasures = NO_ERASURES,
        apply_erasures_before_start: ApplyErasures | None = None,
    ) -> None:
        self.erasures, self._apply_erasures_before_start = erasures, apply_erasures_before_start
        self._topics = settings.event_topics()
        self._folded = self._topics.kinds_folded(lane.folded_kinds)
        self._admin, self._profiles = admin, profiles
        self.offsets = offsets
        self._repair = ProfileRepair(profiles)
        self._accepts_loss = settings.worker.on_lost_log == "accept"

    def recover_offsets(
        self, partitions: Iterable[TopicPartition], consumer: GroupConsumer
    ) -> dict[TopicPartition, int]:
        """The offset at which to start in each of these partitions; raises `LostLog`, or `Unavailable`.

        A worker without other partitions switches to the serving generation of the state; one with others raises
        `StaleState` if that is another one.
        """
        requested = list(partitions)
        previous_sources = {
            partition: self.offsets.sources[partition] for partition in requested if partition in self.offsets.sources
        }
        self.offsets.drop_partitions(requested)
        partition_offsets, sources = self._query_partitions(requested, consumer)
        partition_offsets = drop_commits_of_other_topics(partition_offsets, sources, previous_sources)
        merged, log_starts = self._read_merged(sources.values())
        if sources and not any(merged.values()) and not self._profiles.read_merged_sources(0):
            log.warning(
                "Redis holds no profiles: their features begin without a past. If the model was trained on a history, "
                "run `python -m worker bootstrap` on it first."
            )
        if self._apply_erasures_before_start:
            self._apply_erasures_before_start(sources, merged)
        starts = {
            partition: self._find_start(
                partition,
                partition_offsets[partition],
                sources.get(partition),
                merged,
                log_starts.get(sources.get(partition, ""), 0),
            )
            for partition in requested
        }
        self._record_history_starts(sources.values(), merged)
        self._record_log_starts(sources, partition_offsets, starts, merged)
        for partition, start in starts.items():
            log.info(
                "Starting at %s, answering from %d.",
                partition.log_text(start.offset),
                start.committed,
                extra=partition.log_fields(start.offset),
            )
            self.offsets.committed[partition] = start.committed
            if partition in sources:
                self.offsets.sources[partition] = sources[partition]
                self.offsets.folded[partition] = start.offset
        self.offsets.record_merged(merged)
        return {partition: start.offset for partition, start in starts.items()}

    def delete_unreadable_profiles(self, reason: Exception, consumer: GroupConsumer) -> bool:
        """Delete the profiles that `reason` is about, if they are unreadable; whether there were any.

        They are folded again from the log. Raises `BadProfile`, with the command that deletes them, where the log
        lacks records for it and loss is not accepted.
        """
        unreadable = self._repair.find(self._repair.entities_of(reason))
        if not unreadable:
            return False
        missing = self._find_missing_logs(self._repair.find_sources(unreadable), consumer)
        if missing and not self._accepts_loss:
            raise BadProfile(
                f"Unreadable profiles should be folded again from the log. Found its first records deleted in "
                f"{', '.join(partition.log_text() for partition in missing)}. {self._repair.suggest(unreadable)}"
            )
        self._repair.delete(unreadable)
        return True

    def _find_missing_logs(self, sources: Container[str], consumer: GroupConsumer) -> list[TopicPartition]:
        """The partitions of these sources whose first records are gone; deleted topics have none."""
        topics = self._topics.names_of(FAMILIES)
        partitions, topic_ids = self._admin.list_partitions(topics), self._admin.fetch_topic_ids(topics)
        logs = locate_sources(self._topics, FAMILIES, partitions, topic_ids)
        needed = {name: partition for name, partition in logs.items() if name in sources}
        log_starts, offsets = self._profiles.read_log_starts(), consumer.query_offsets(needed.values())
        return [partition for name, partition in needed.items() if offsets[partition].low > log_starts.get(name, 0)]

    def request_topic_check(self, partitions: Iterable[TopicPartition]) -> Callable[[], None]:
        """Ask Kafka whether the topics of these partitions are still those that were assigned.

        The client reads on at its offset even in a topic that was deleted and recreated in the meantime. The returned
        function waits for the reply and raises `StaleState`; after `Unavailable` it may be called again.
        """
        folded = [partition for partition in partitions if partition in self.offsets.sources]
        requests = [self._request_sources(folded)]

        def check() -> None:
            wait_for_names = requests.pop() if requests else self._request_sources(folded)
            names = wait_for_names()
            for partition, name in names.items():
                if name != (expected := self.offsets.sources.get(partition, name)):
                    raise StaleState(f"{partition.topic}/{partition.partition} should be {expected}. Found {name}.")

        return check

    def _query_partitions(
        self, partitions: list[TopicPartition], consumer: GroupConsumer
    ) -> tuple[dict[TopicPartition, PartitionOffsets], dict[TopicPartition, str]]:
        """The offsets of partitions and the sources that they are, both of the same topics."""
        folded = [partition for partition in partitions if partition.topic in self._folded]
        names, partition_offsets = self._request_sources(folded)(), consumer.query_offsets(partitions)
        if names != self._request_sources(folded)():
            raise Unavailable("Topics should stay while their offsets are queried. Found that one was recreated.")
        return partition_offsets, names

    def _request_sources(self, partitions: list[TopicPartition]) -> Callable[[], dict[TopicPartition, str]]:
        wait = self._admin.request_topic_ids({partition.topic for partition in partitions})

        def wait_for_sources() -> dict[TopicPartition, str]:
            return name_sources(partitions, self._folded, wait(), self._topics.added)

        return wait_for_sources

    def _read_merged(self, sources: Iterable[str]) -> tuple[MergedOffsets, dict[str, int]]:
        """The merged offsets of these sources, and where their logs begin, in the serving generation."""
        source_names = list(sources)
        while True:
            try:
                if not self.offsets.committed:
                    self._profiles.refresh_generation()
                log_starts = self._profiles.read_log_starts()
                self._check_history()
                return self._profiles.read_offsets(source_names), log_starts
            except StaleState:  # another generation serves since then
                if self.offsets.committed:
                    raise

    def _check_history(self) -> None:
        """Report buckets that lost what they had of a history: no log can give it back."""
        lost = HistoryRegistry(self._profiles).count_lost_buckets()
        metrics.HISTORY_BUCKETS_LOST.set(lost)
        if lost:
            log.error(
                "Profiles should have the events of their history. Found %d buckets of %d without: run `python -m "
                "worker bootstrap HISTORY` again; until then their features lack these events.",
                lost,
                BUCKETS,
            )

    def _find_start(
        self,
        partition: TopicPartition,
        offsets: PartitionOffsets,
        source: str | None,
        merged: MergedOffsets,
        log_start: int,
    ) -> StartOffsets:
        if source is None:  # only watched: it has no state
            is_known = offsets.committed is not None and offsets.committed <= offsets.high
            committed = max(offsets.low, offsets.committed or 0) if is_known else offsets.low
            return StartOffsets(committed, committed)
        bucket_offsets = [merged.get(bucket, {}).get(source) for bucket in range(BUCKETS)]
        raise_if_log_replaced(partition, offsets, bucket_offsets)
        start = find_start(offsets, bucket_offsets, log_start)
        if start.lost:
            if not self._accepts_loss:
                raise_if_lost(partition, start)
            log.error(
                "Continuing without %d records of %s, which are gone from Kafka.",
                start.lost,
                partition.log_text(),
                extra=partition.log_fields(),
            )
            metrics.LOST_LOG_RECORDS.inc(start.lost)
        return start

    def _record_history_starts(self, sources: Iterable[str], merged: MergedOffsets) -> None:
        """Record which sources have their histories from the first event on: not those that an older release folded."""
        known = self._profiles.read_history_starts()
        starts = {
            source: max((offsets.get(source, 0) for offsets in merged.values()), default=0)
            for source in sources
            if source not in known
        }
        if starts:
            self._profiles.write_history_starts(starts)

    def _record_log_starts(
        self,
        sources: Mapping[TopicPartition, str],
        partition_offsets: Mapping[TopicPartition, PartitionOffsets],
        starts: Mapping[TopicPartition, StartOffsets],
        merged: MergedOffsets,
    ) -> None:
        """Record where each log begins as merged, before anything is committed.

        Then a bucket without an offset always means lost state. The end of records that are gone is recorded likewise.
        """
        log_starts = {
            bucket: {
                source: partition_offsets[partition].low
                for partition, source in sources.items()
                if partition_offsets[partition].low > merged.get(bucket, {}).get(source, -1)
                and (starts[partition].lost or source not in merged.get(bucket, {}))
            }
            for bucket in range(BUCKETS)
        }
        log_starts = {bucket: starts_by_source for bucket, starts_by_source in log_starts.items() if starts_by_source}
        if not log_starts:
            return
        try:
            self._profiles.merge({}, merged, log_starts)
        except StaleState as error:
            log.warning("Another worker has already recorded where this log begins: %s", error)
        merged.update(self._profiles.read_offsets(sources.values()))


def drop_commits_of_other_topics(
    offsets: Mapping[TopicPartition, PartitionOffsets],
    sources: Mapping[TopicPartition, str],
    previous_sources: Mapping[TopicPartition, str],
) -> dict[TopicPartition, PartitionOffsets]:
    """The offsets without commits that are of a deleted topic: they mean nothing for a new one of that name.

    Kafka deletes them with the topic, but not those of a commit that was in flight.
    """
    valid = dict(offsets)
    for partition, source in sources.items():
        if (offsets[partition].metadata or previous_sources.get(partition, source)) != source:
            valid[partition] = offsets[partition]._replace(committed=None)
    return valid
