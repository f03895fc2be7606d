"""Folds logs into a new generation of the state, which no worker reads or writes yet."""

from collections.abc import Mapping, Sequence
from typing import Final

from contract.events.reading import READERS, EventReaders
from contract.hashing import BUCKETS
from contract.profiles.entity_kinds import BUILT_IN_KINDS, EntityKinds
from contract.profiles.entity_updates import to_updates
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.store import fold
from transport.kafka_times import KafkaTimes
from transport.record_reader import RecordReader
from transport.records import Record, TopicPartition
from worker.records.batch import decode_records
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import RedisProfileStore

FOLD_BATCH_MAX: Final = 2_000


class StateBuilder:
    """Folds partitions as workers do, without answers; may restart from the merged offsets at any time."""

    def __init__(
        self,
        *,
        profiles: RedisProfileStore,
        kinds: Mapping[str, str],
        erasures: Erasures = NO_ERASURES,
        readers: EventReaders = READERS,
        record_reader: RecordReader | None = None,
        entity_kinds: EntityKinds = BUILT_IN_KINDS,
    ) -> None:
        """`kinds`: what is folded of each topic. `record_reader`: of the topics that maps read."""
        self.kinds, self._readers, self._record_reader = kinds, readers, record_reader
        self._profiles, self._erasures, self._entity_kinds = profiles, erasures, entity_kinds
        self._log_starts: dict[str, int] = {}
        self._kafka_times = KafkaTimes()
        self.offsets = OffsetTracker()
        self.records = 0

    def open(self, sources: Mapping[TopicPartition, str], log_starts: Mapping[TopicPartition, int]) -> None:
        """Fold these partitions from now on, new sources from `log_starts`, known ones from their merged offsets."""
        new = {source: log_starts[partition] for partition, source in sources.items() if source not in self._log_starts}
        self._profiles.write_log_starts({source: offset for source, offset in new.items() if offset > 0})
        self._profiles.write_history_starts(dict.fromkeys(new, 0))
        self._log_starts |= new
        self.offsets.sources = dict(sources)
        self.rewind()

    def rewind(self) -> None:
        """Restart from the merged offsets; raises `StaleState` if another process writes this generation."""
        sources = set(self.offsets.sources.values())
        merged = self._profiles.read_offsets(sources)
        initial = {
            bucket: {source: self._log_starts[source] for source in sources - merged[bucket].keys()}
            for bucket in range(BUCKETS)
        }
        initial = {bucket: offsets for bucket, offsets in initial.items() if offsets}
        if initial:
            self._profiles.merge({}, {}, initial)
        self.offsets.merged = {bucket: {**merged[bucket], **initial.get(bucket, {})} for bucket in range(BUCKETS)}
        self.offsets.folded = {
            partition: min(offsets[source] for offsets in self.offsets.merged.values())
            for partition, source in self.offsets.sources.items()
        }

    def add(self, records: Sequence[Record]) -> None:
        """Fold the next records, each partition in its order; raises `StaleState`, `BadProfile`."""
        for start in range(0, len(records), FOLD_BATCH_MAX):
            self._fold(records[start : start + FOLD_BATCH_MAX])

    def finish(self, ends: Mapping[TopicPartition, int]) -> None:
        """Advance every bucket to these ends, below which every record has been added."""
        self.offsets.record_folded(ends)
        after = self.offsets.find_lagging()
        if after:
            self._profiles.merge({}, self.offsets.merged, after)
            self.offsets.record_merged(after)

    def _fold(self, records: Sequence[Record]) -> None:
        tracker = self.offsets
        batch = decode_records(
            records,
            self.kinds,
            tracker.sources,
            (),
            kafka_times=self._kafka_times,
            readers=self._readers,
            record_reader=self._record_reader,
        )
        updates = to_updates(batch.arrivals, erasures=self._erasures, kinds=self._entity_kinds)
        writes = fold(self._profiles.read(updates.entities), updates).slice_writes()
        after = tracker.compute_merged(batch.end_offsets, writes.buckets())
        if after:
            self._profiles.merge(writes, tracker.merged, after)
            tracker.record_merged(after)
        tracker.record_folded(batch.end_offsets)
        self.records += len(records)
