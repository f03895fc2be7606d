"""Memory: the slices of a batch's entities, before and after its events, and the store they come from.

`fold` is the pure middle of the worker: it knows nothing of Kafka, Redis or the clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from contract.errors import BadProfile, StaleState
from contract.hashing import bucket_of
from contract.profiles.entity_updates import UpdateBatch, family_code
from contract.profiles.fold import Aggregates, FoldState, assign_slices, fold_batch, make_scratch, read_entities
from contract.profiles.record import FAMILIES, RECORD
from contract.profiles.slices import Slices, SliceWrites, to_columns

MergedOffsets = dict[int, dict[str, int]]  # bucket -> source -> the offset up to which (exclusive) all is folded


class ProfileStore(Protocol):
    """Where profiles live; `contract.profiles.store.MemoryProfiles` and the worker's Redis store keep the same promises."""

    def read(self, entities: Sequence[str]) -> Sequence[Slices]:
        """The slices of each entity, in the order asked; as `Recalled` where the store has them as columns."""

    def merged_offsets(self, sources: Iterable[str]) -> MergedOffsets:
        """For every bucket, how far each of the sources is merged; a source that a bucket lacks is not in its dict."""

    def merge(self, writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
        """Write slices and `after`, all of a bucket or nothing; `StaleState` where a bucket is not `expected`."""


class InMemoryProfileStore:
    """Profiles in this process: for replaying history, and the twin that Redis is tested against."""

    def __init__(self) -> None:
        self.slices: dict[str, dict[str, bytes]] = {}
        self.offsets: MergedOffsets = {}

    def read(self, entities: Sequence[str]) -> list[Slices]:
        return [self.slices.get(entity, {}) for entity in entities]

    def merged_offsets(self, sources: Iterable[str]) -> MergedOffsets:
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
        if stale:
            raise StaleState(f"Buckets {stale} should be merged as this worker left them. Found other positions.")

    def _advance(self, bucket: int, expected: Mapping[str, int], after: Mapping[str, int]) -> bool:
        offsets = self.offsets.setdefault(bucket, {})
        if any(offsets.get(source) != expected.get(source) for source in after):
            return False
        offsets.update(after)
        return True


@dataclass(slots=True)
class FoldedBatch:
    """What is remembered of a batch's entities: S slices after the batch, and what each touch knew before its event."""

    updates: UpdateBatch
    state: FoldState
    sources: list[str]
    slice_entity: npt.NDArray[np.int64]  # (S) whose slice it is
    slice_source: npt.NDArray[np.int64]  # (S) index into `sources`
    own_slice: npt.NDArray[np.int64]  # (T) the slice that each touch writes
    is_folded: npt.NDArray[np.bool_]  # (T) whether it does
    aggregates_before: Aggregates  # (T, AGGREGATES) what each touch's entity was before its event
    recent_ids: npt.NDArray[np.uint64]  # (T, RING) its latest first links, newest first

    def read_at(self, entities: Sequence[str], now_ms: Sequence[int]) -> tuple[Aggregates, npt.NDArray[np.uint64]]:
        """The same columns for some of the batch's entities as they are after it, each at its own time."""
        numbers = np.array([self.updates.index[entity] for entity in entities], np.int64)
        out, recent = read_entities(self.state, make_scratch(self.state), numbers, np.array(now_ms, np.int64))
        return out, recent

    def slice_writes(self) -> SliceWrites:
        """The slices that the batch touched."""
        is_written = np.zeros(len(self.slice_entity), np.bool_)
        is_written[self.own_slice[self.is_folded]] = True
        written = np.flatnonzero(is_written)
        bucket, entity = self.updates.bucket[self.slice_entity[written]], self.slice_entity[written]
        order = np.lexsort((entity, bucket))
        rows = self.state.slices.view(np.uint8).reshape(-1, RECORD.itemsize).take(written[order], axis=0)
        source = self.slice_source[written[order]]
        return SliceWrites(self.updates.entities, self.sources, entity[order], source, bucket[order], rows.tobytes())


def fold(profiles: Sequence[Slices], updates: UpdateBatch, mask: npt.NDArray[np.bool_] | None = None) -> FoldedBatch:
    """Fold a batch over what the store holds of `touches.entities`; pure, and bit-equal however the log was cut.

    Touches that are not `kept`, or False in `keep` (T), are looked at and linked with, but change no slice.
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
    aggregates, recent = fold_batch(
        state,
        make_scratch(state),
        t.start,
        t.entity,
        own_slice,
        is_folded,
        t.amount,
        t.event_columns,
        t.kind,
        t.id_hash,
    )
    return FoldedBatch(t, state, sources, entity, source, own_slice, is_folded, aggregates, recent)


def find_families(sources: Sequence[str], source: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The family of each slice; raises `BadProfile` for a slice of one that another version has written."""
    codes: npt.NDArray[np.int64] = np.array([family_code(name) for name in sources], np.int64)[source]
    if (codes < 0).any():
        unknown = sources[int(source[codes < 0][0])]
        raise BadProfile(f"A slice's source should be of a family among {list(FAMILIES)}. Found `{unknown}`.")
    return codes
