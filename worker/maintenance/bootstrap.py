"""`python -m worker bootstrap`: a state that begins with a history and goes on with the topics.

It is a rebuild whose first sources are the history. An event that is on its topic counts from there, and is skipped in
the history: see docs/decisions/0034.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from contract.errors import StaleState
from contract.history.format import read_events, read_manifest
from contract.profiles.entity_updates import UpdateBatch
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.record import FAMILIES
from contract.settings.reading import Settings
from contract.settings.worker import FeedbackSettings
from transport.kafka_times import KafkaTimes
from transport.records import OffsetRange, TopicPartition
from worker.maintenance.history_folder import HistoryEvents, HistoryFolder, TopicIds
from worker.maintenance.history_people import count_people
from worker.maintenance.profile_report import to_epoch_ms
from worker.maintenance.rebuild import Rebuild, RebuildRefused, RebuildResult, format_result, run_and_print
from worker.people.redis_store import RedisPeopleStore
from worker.records.batch import decode_records
from worker.state.history_registry import HistoryRegistry
from worker.state.profile_store import RedisProfileStore, name_sources

log = logging.getLogger(__name__)


@dataclass(slots=True)
class HistoryResult:
    """What the history gave: events read, folded, left out by `--until`, and skipped as they are on their topic.

    `starts`: the first record of each log, with which the state goes on. `counted`: clicks and orders whose people are
    in the samples of items.
    """

    read: int = 0
    folded: int = 0
    left_out: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    starts: dict[TopicPartition, int] = field(default_factory=dict)
    counted: int = 0


class Bootstrap(Rebuild):
    """One bootstrap of the state from a history and these topics."""

    def __init__(
        self,
        *,
        history: Path,
        feedback: FeedbackSettings,
        until_ms: int | None = None,
        accepts_gap: bool = False,
        **rebuild: Any,
    ) -> None:
        """`until_ms`: leave out events of the history at or after it.

        `accepts_gap`: also where a log lost records that the history does not reach.
        """
        super().__init__(**rebuild, accepts_loss=True)  # the history stands for the first records
        self._manifest, self._history = read_manifest(history), history
        self._feedback, self._until_ms, self._accepts_gap = feedback, until_ms, accepts_gap
        self._known_erasures: Erasures = NO_ERASURES
        self.result = HistoryResult()

    def run(self) -> RebuildResult:
        """Also add the people of the history to the samples, after the switch: they serve with every generation."""
        rebuilt = super().run()
        people = RedisPeopleStore(client=self._client, prefix=self._prefix)

        def add(updates: UpdateBatch) -> None:
            self._retry(lambda: people.add(updates))

        last_ms = self._manifest.last_ms
        if self._until_ms is not None:
            last_ms = min(last_ms, self._until_ms - 1)
        self.result.counted = count_people(
            read_events(self._history),
            add,
            digest=self._manifest.digest,
            last_ms=last_ms,
            erasures=self._known_erasures,
            entity_kinds=self._entity_kinds,
        )
        return rebuilt

    def _fold_first(self, profiles: RedisProfileStore, erasures: Erasures) -> None:
        self._known_erasures = erasures
        ranges = self._retry(lambda: self._reader.fetch_offset_ranges(self._topics))
        self.result.starts = {partition: offset_range.low for partition, offset_range in ranges.items()}
        counts = count_partitions(ranges, self._kinds_by_lane.values())
        if missing := [kind for kind in FAMILIES if kind not in counts]:
            topics = ", ".join(self._event_topics.names_of(missing))
            raise RebuildRefused(
                f"Every topic that profiles fold should exist. Found none of {topics}: run `python -m worker topics`."
            )
        topic_ids = self._retry(lambda: self._read_topic_ids(ranges))
        events = HistoryEvents(
            read_events(self._history),
            topic_ids=topic_ids,
            feedback=self._feedback,
            has_judgements=bool(self._manifest.kinds.get("judgements")),
            until_ms=self._until_ms,
        )
        folder = HistoryFolder(
            profiles=profiles,
            digest=self._manifest.digest,
            partitions=counts,
            erasures=erasures,
            entity_kinds=self._entity_kinds,
        )
        try:
            for batch in events.batches():
                if arrivals := folder.to_arrivals(batch):
                    self._retry(lambda arrivals=arrivals: folder.fold(arrivals))  # type: ignore[misc]
                self._retry(lambda: self._heartbeat(events.read, self._manifest.records, "events of the history"))
            self._retry(folder.finish)
        except StaleState as error:
            raise RebuildRefused(str(error)) from error
        self._retry(lambda: HistoryRegistry(profiles).write(folder.counts))
        self.result.read, self.result.folded = events.read, sum(folder.counts.values())
        self.result.left_out, self.result.skipped = events.left_out, events.skipped

    def _read_topic_ids(self, ranges: Mapping[TopicPartition, OffsetRange]) -> TopicIds:
        """The ids of all events on the topics that the history may have too.

        Raises `RebuildRefused` where a log begins after the end of the history.
        """
        topic_ids, done = TopicIds(), 0
        unseen = {partition for partition, (low, high) in ranges.items() if 0 < low < high}
        for kinds in self._kinds_by_lane.values():
            starts = {partition: low for partition, (low, _) in ranges.items() if partition.topic in kinds}
            ends = {partition: ranges[partition].high for partition in starts}
            sources, kafka_times = name_sources(starts, kinds, {}), KafkaTimes()
            for records in self._reader.read(ends, starts):
                batch = decode_records(
                    records,
                    kinds,
                    sources,
                    (),
                    kafka_times=kafka_times,
                    readers=self._readers,
                    record_reader=self._record_reader,
                )
                for arrival in batch.arrivals:
                    if arrival.event.ts_ms <= self._manifest.last_ms:
                        topic_ids.add(kinds[arrival.topic], arrival.event)
                        unseen.discard(TopicPartition(arrival.topic, arrival.partition))
                done += len(records)
                self._heartbeat(done, sum(ends.values()), "records, for their ids")
        if unseen and not self._accepts_gap:
            raise RebuildRefused(
                "The history should reach the first record of each log whose beginning was deleted. Found that "
                f"{', '.join(sorted(map(str, unseen)))} begin after it: pass --accept-gap to go on without what lies "
                "between."
            )
        log.info("Found %s events on the topics that the history may have too.", f"{len(topic_ids):,}")
        return topic_ids

    def _check_previous(self, profiles: RedisProfileStore) -> None:
        """A former history is replaced by this one."""

    def _find_ends(self, lane: str, offset_ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """What the lane's group has answered: it folds the rest as it answers it."""
        ends = {partition: offset_range.low for partition, offset_range in offset_ranges.items()}
        for partition, committed in self._admin.fetch_committed(lane, offset_ranges).items():
            low, high = offset_ranges[partition]
            ends[partition] = min(max(low, committed), high)
        return ends


def count_partitions(
    partitions: Iterable[TopicPartition], kinds_by_lane: Iterable[Mapping[str, str]]
) -> dict[str, int]:
    """The partitions of the topic of each kind; of several topics those of the largest."""
    partitions_by_topic, counts = Counter(partition.topic for partition in partitions), dict[str, int]()
    for kinds in kinds_by_lane:
        for topic, kind in kinds.items():
            if topic in partitions_by_topic:
                counts[kind] = max(partitions_by_topic[topic], counts.get(kind, 0))
    return counts


def bootstrap(
    settings: Settings, history: Path, until: datetime | None, *, accepts_gap: bool, stop: threading.Event
) -> int:
    """Bootstrap and print the result; 0: the new state serves, 3: refused, and nothing has changed."""
    make = partial(
        Bootstrap,
        history=history,
        feedback=settings.feedback,
        until_ms=to_epoch_ms(until) if until else None,
        accepts_gap=accepts_gap,
    )
    return run_and_print(
        settings, stop, make, lambda run, rebuilt: [*format_history(run.result), *format_result(rebuilt)]
    )


def format_history(result: HistoryResult) -> Iterator[str]:
    """The history's part of the result as lines of text."""
    yield f"history     {result.read:>12,}   events read"
    yield f"folded      {result.folded:>12,}   of them, judgements from labels included"
    skipped = ", ".join(f"{kind} {count:,}" for kind, count in sorted(result.skipped.items()))
    yield f"skipped     {result.skipped.total():>12,}   on their topic too: {skipped or 'none'}"
    yield f"left out    {result.left_out:>12,}   at or after --until"
    yield f"people      {result.counted:>12,}   clicks and orders of its last 60 days, for popular and trending lists"
    for partition, offset in sorted(result.starts.items()):
        yield f"goes on     {offset:>12,}   {partition}"
