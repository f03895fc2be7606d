"""Folds a history into a new generation of the state, as sources of its own: see docs/decisions/0034. No Kafka."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import numpy as np

from contract.errors import StaleState
from contract.events.model import Event, UserEvent
from contract.hashing import BUCKETS, hash_text, hash_texts
from contract.history.format import HistoricEvent
from contract.history.judgements import add_judgements
from contract.history.sources import history_source, partition_of
from contract.profiles.entity_kinds import BUILT_IN_KINDS, EntityKinds
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.store import MergedOffsets, ProfileStore, fold
from contract.settings.worker import FeedbackSettings

BATCH_EVENTS: Final = 5_000


class TopicIds:
    """The ids of the events that are on the topics, as sorted hashes of 8 bytes each."""

    def __init__(self) -> None:
        self._added = array("Q")
        self._sorted = np.zeros(0, np.uint64)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._added)

    def add(self, kind: str, event: Event) -> None:
        self._added.append(hash_text(name_event(kind, event)))

    def drop_known(self, events: Sequence[HistoricEvent]) -> list[HistoricEvent]:
        """The events that are not on their topic."""
        if self._added:
            self._sorted = np.unique(np.concatenate([self._sorted, np.frombuffer(self._added, np.uint64)]))
            self._added = array("Q")
        if not len(self._sorted):
            return list(events)
        hashes = hash_texts(name_event(*historic) for historic in events)
        positions = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        is_known = (self._sorted[positions] == hashes).tolist()
        return [historic for historic, known in zip(events, is_known, strict=True) if not known]


class HistoryFolder:
    """Folds events, added in order, into the sources of a history. Each kind has as many as its topic partitions."""

    def __init__(
        self,
        *,
        profiles: ProfileStore,
        digest: str,
        partitions: Mapping[str, int],
        erasures: Erasures = NO_ERASURES,
        entity_kinds: EntityKinds = BUILT_IN_KINDS,
    ) -> None:
        self._profiles, self._digest = profiles, digest
        self._erasures, self._entity_kinds = erasures, entity_kinds
        self._names = {
            kind: [history_source(kind, digest, number) for number in range(count)]
            for kind, count in partitions.items()
        }
        self.counts = {source: 0 for names in self._names.values() for source in names}  # events by source
        self._merged: MergedOffsets = {bucket: {} for bucket in range(BUCKETS)}
        self._needs_offsets = False

    def to_arrivals(self, events: Iterable[HistoricEvent]) -> list[Arrival]:
        """The events as the next records of their sources; those without profiles are left out."""
        arrivals = list[Arrival]()
        for kind, event in events:
            if kind in self._names and isinstance(event, UserEvent):
                names = self._names[kind]
                source = names[partition_of(event.user_id, len(names))]
                arrivals.append(Arrival(source, self.counts[source], event, kind))
                self.counts[source] += 1
        return arrivals

    def fold(self, arrivals: Sequence[Arrival]) -> None:
        """Fold the next arrivals. May be called again after `Unavailable`.

        Raises `StaleState` if the store lost what was written.
        """
        self._refresh_offsets()
        self._needs_offsets = True
        updates = to_updates(arrivals, erasures=self._erasures, kinds=self._entity_kinds)
        writes = fold(self._profiles.read(updates.entities), updates).slice_writes()
        ends = {arrival.source: arrival.offset + 1 for arrival in arrivals}
        self._merge(writes, dict.fromkeys(writes.buckets(), ends))

    def finish(self) -> None:
        """Advance every bucket to the ends. May be called again after `Unavailable`."""
        self._refresh_offsets()
        self._needs_offsets = True
        self._merge({}, dict.fromkeys(range(BUCKETS), self.counts))

    def _merge(self, writes: Mapping[str, Mapping[str, bytes]], after: MergedOffsets) -> None:
        self._profiles.merge(writes, self._merged, after)
        self._needs_offsets = False
        for bucket, offsets in after.items():
            self._merged[bucket].update(offsets)

    def _refresh_offsets(self) -> None:
        """Read the merged offsets again where a reply was lost: what was written is folded again without effect."""
        if not self._needs_offsets:
            return
        merged = self._profiles.read_offsets(self.counts)
        lost = [
            bucket
            for bucket, offsets in self._merged.items()
            if any(merged.get(bucket, {}).get(source, 0) < offset for source, offset in offsets.items())
        ]
        if lost:
            raise StaleState(f"Redis should hold the folded history. Found buckets {lost} behind: bootstrap again.")
        self._merged = {bucket: dict(merged.get(bucket, {})) for bucket in range(BUCKETS)}


class HistoryEvents:
    """The events of a history that profiles fold: without those on the topics, with judgements instead of labels.

    `until_ms`: without events at or after it; a history with judgements of its own keeps these.
    """

    def __init__(
        self,
        events: Iterable[HistoricEvent],
        *,
        topic_ids: TopicIds,
        feedback: FeedbackSettings,
        has_judgements: bool,
        until_ms: int | None = None,
    ) -> None:
        self._events, self._topic_ids, self._until_ms = events, topic_ids, until_ms
        self._feedback, self._has_judgements = feedback, has_judgements
        self.read = 0
        self.skipped = Counter[str]()  # by kind: they are on their topic
        self.left_out = 0

    def batches(self) -> Iterator[list[HistoricEvent]]:
        """The events in batches, in their order."""
        events: Iterable[HistoricEvent] = self._drop_known(self._read())
        if not self._has_judgements:
            events = self._drop_known(add_judgements(events, self._feedback))
        iterator = iter(events)
        while batch := list(islice(iterator, BATCH_EVENTS)):
            yield batch

    def _read(self) -> Iterator[HistoricEvent]:
        for historic in self._events:
            self.read += 1
            if self._until_ms is not None and historic.event.ts_ms >= self._until_ms:
                self.left_out += 1
            else:
                yield historic

    def _drop_known(self, events: Iterable[HistoricEvent]) -> Iterator[HistoricEvent]:
        """The events that are not on their topic."""
        iterator = iter(events)
        while batch := list(islice(iterator, BATCH_EVENTS)):
            kept = self._topic_ids.drop_known(batch)
            if len(kept) < len(batch):
                self.skipped.update(Counter(h.kind for h in batch) - Counter(h.kind for h in kept))
            yield from kept


def name_event(kind: str, event: Event) -> str:
    return f"{kind} {event.event_id}"
