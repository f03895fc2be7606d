"""The profile store, and a batch folded over the profiles that were read from it.

`fold` is pure: it knows nothing of Kafka, Redis or the clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from contract.errors import BadProfile, StaleState
from contract.hashing import bucket_of
from contract.profiles.entity_updates import UpdateBatch, family_code
from contract.profiles.fold import Aggregates, FoldState, assign_slices, fold_batch, read_entities
from contract.profiles.histories import HistoryWrite, LoadedHistories, collect_histories, load_histories
from contract.profiles.logins import LOGINS, add_logins
from contract.profiles.record import FAMILIES, RECORD
from contract.profiles.slices import Slices, SliceWrites, to_columns

MergedOffsets = dict[int, dict[str, int]]  # bucket -> source -> the offset up to which (exclusive) all is folded


class ProfileStore(Protocol):
    """Stores profiles; implemented by `InMemoryProfileStore` and the worker's Redis store, under the same tests."""

    def read(self, entities: Sequence[str], buckets: npt.NDArray[np.int64] | None = None) -> Sequence[Slices]:
        """The slices of each entity, in the order given; as `LoadedSlices` where the store has them as columns.

        `buckets`: of the entities, where the caller has them; otherwise they are hashed once more.
        """

    def read_histories(self, users: Sequence[str]) -> LoadedHistories:
        """The histories and logins of each user (`user:ID`), in the order given."""

    def read_offsets(self, sources: Iterable[str]) -> MergedOffsets:
        """For every bucket, the merged offset of each of the sources that it has."""

    def merge(self, writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
        """Write slices, histories, logins and offsets atomically by bucket.

        Raises `StaleState` where a bucket's offsets are not `expected`.
        """


class InMemoryProfileStore:
    """Profiles in this process's memory: for replaying history, and as the reference for the Redis store in tests."""

    def __init__(self) -> None:
        self.slices: dict[str, dict[str, bytes]] = {}
        self.histories: dict[str, dict[str, bytes]] = {}
        self.offsets: MergedOffsets = {}

    def read(self, entities: Sequence[str], buckets: npt.NDArray[np.int64] | None = None) -> list[Slices]:
        return [self.slices.get(entity, {}) for entity in entities]

    def read_histories(self, users: Sequence[str]) -> LoadedHistories:
        return load_histories([self.histories.get(user, {}) for user in users])

    def read_offsets(self, sources: Iterable[str]) -> MergedOffsets:
        wanted = set(sources)
        return {
            bucket: {source: offset for source, offset in offsets.items() if source in wanted}
            for bucket, offsets in self.offsets.items()
        }

    def merge(self, writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
        stale = [bucket for bucket in after if not self._advance(bucket, expected.get(bucket, {}), after[bucket])]
        for entity, slices in writes.items():
            if bucket_of(entity) not in stale:
                self.slices.setdefault(entity, {}).update(slices)
        if isinstance(writes, SliceWrites):
            for write in writes.list_histories():
                if not stale or bucket_of(write.user) not in stale:
                    self._write_history(write)
            for login in writes.logins:
                if bucket_of(login.entity) not in stale:
                    records, name = self.histories.setdefault(login.entity, {}), LOGINS + login.source
                    records[name] = add_logins(records.get(name, b""), [login])
        if stale:
            raise StaleState(f"Buckets {stale} should be merged as this worker left them. Found other offsets.")

    def _write_history(self, write: HistoryWrite) -> None:
        histories = self.histories.setdefault(write.user, {})
        if record := write.apply(histories.get(write.source, b"")):
            histories[write.source] = record
        else:
            histories.pop(write.source, None)

    def _advance(self, bucket: int, expected: Mapping[str, int], after: Mapping[str, int]) -> bool:
        offsets = self.offsets.setdefault(bucket, {})
        if any(offsets.get(source) != expected.get(source) for source in after):
            return False
        offsets.update(after)
        return True


@dataclass(slots=True)
class FoldedBatch:
    """A batch folded over its entities' profiles: S slices after it, and each update's aggregates before its event."""

    updates: UpdateBatch
    state: FoldState
    sources: list[str]
    slice_entity: npt.NDArray[np.int64]  # (S) the entity of each slice
    slice_source: npt.NDArray[np.int64]  # (S) index into `sources`
    own_slice: npt.NDArray[np.int64]  # (T) the slice of each update
    is_folded: npt.NDArray[np.bool_]  # (T) whether the update changes it
    aggregates_before: Aggregates  # (T, AGGREGATES) of each update's entity before its event
    recent_ids: npt.NDArray[np.uint64]  # (T, RING) the same entity's latest first links, newest first
    counted: npt.NDArray[np.uint8]  # (T) what the fold did with each update: see `fold_batch`

    def read_at(self, entities: Sequence[str], now_ms: Sequence[int]) -> tuple[Aggregates, npt.NDArray[np.uint64]]:
        """Aggregates and recent ids of some of the batch's entities after it, each at its own time."""
        numbers = np.array([self.updates.index[entity] for entity in entities], np.int64)
        return read_entities(self.state, numbers, np.array(now_ms, np.int64))

    def slice_writes(self) -> SliceWrites:
        """The slices that the batch changed, and what it adds to histories and logins."""
        is_written = np.zeros(len(self.slice_entity), np.bool_)
        is_written[self.own_slice[self.is_folded]] = True
        written = np.flatnonzero(is_written)
        bucket, entity = self.updates.bucket[self.slice_entity[written]], self.slice_entity[written]
        order = np.lexsort((entity, bucket))
        rows = self.state.slices.view(np.uint8).reshape(-1, RECORD.itemsize).take(written[order], axis=0)
        source = self.slice_source[written[order]]
        position = np.zeros(len(self.slice_entity), np.int64)
        position[written[order]] = np.arange(len(written))
        histories = collect_histories(self.updates, self.counted, self.own_slice, position)
        records, logins = rows.tobytes(), self.updates.logins
        entities, sources = self.updates.entities, self.sources
        return SliceWrites(entities, sources, entity[order], source, bucket[order], records, histories, logins)


def fold(profiles: Sequence[Slices], updates: UpdateBatch, mask: npt.NDArray[np.bool_] | None = None) -> FoldedBatch:
    """Fold a batch over the profiles of `updates.entities`; pure, and bit-equal however the log was cut.

    Updates that are not `is_folded`, or False in `mask` (T), are read and linked with, but change no slice.
    """
    t, loaded = updates, to_columns(profiles)
    sources = sorted({*loaded.sources, *(arrival.source for arrival in t.arrivals)})
    source_numbers = {source: n for n, source in enumerate(sources)}
    loaded_source = np.array([source_numbers[source] for source in loaded.sources], np.int64)[loaded.source]
    arrival_source = np.array([source_numbers[arrival.source] for arrival in t.arrivals], np.int64)
    own_slice, order, start, entity, source = assign_slices(
        len(t.entities), len(sources), loaded.entity, loaded_source, t.start, t.entity, arrival_source
    )
    slices = loaded.to_array(len(order) - len(loaded_source))
    state = FoldState(slices, find_families(sources, source), order, start, t.erased_ids)
    is_folded = t.is_folded if mask is None else t.is_folded & mask
    aggregates, recent, counted = fold_batch(state, t, own_slice, is_folded)
    return FoldedBatch(t, state, sources, entity, source, own_slice, is_folded, aggregates, recent, counted)


def find_families(sources: Sequence[str], source: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The family of each slice; raises `BadProfile` for a family that only another version knows."""
    codes: npt.NDArray[np.int64] = np.array([family_code(name) for name in sources], np.int64)[source]
    if (codes < 0).any():
        unknown = sources[int(source[codes < 0][0])]
        raise BadProfile(f"A slice's source should be of a family among {list(FAMILIES)}. Found `{unknown}`.")
    return codes
