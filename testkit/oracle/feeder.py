"""Feeds a log to a store of profiles in batches, as a worker does: read, fold, merge under the guard."""

from collections.abc import Iterable, Iterator, Sequence

from contract.hashing import bucket_of
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.slices import Slices
from contract.profiles.store import FoldedBatch, MergedOffsets, ProfileStore, fold
from testkit.oracle.logs import SOURCES


class ProfileFeeder:
    """One life of a worker. It begins with what the store says is merged and expects nobody else to write."""

    def __init__(self, store: ProfileStore, erasures: Erasures = NO_ERASURES) -> None:
        self.store, self.erasures = store, erasures
        self.merged = store.read_offsets(SOURCES)

    def feed(self, batch: Sequence[Arrival]) -> FoldedBatch:
        """Fold a batch and merge it; positions never go back."""
        touches = to_updates(batch, erasures=self.erasures)
        memory = fold(self.store.read(touches.entities), touches)
        writes = memory.slice_writes()
        ends = self.positions_after(batch, {bucket_of(entity) for entity in writes})
        self.store.merge(writes, self.merged, ends)
        for bucket, positions in ends.items():
            self.merged.setdefault(bucket, {}).update(positions)
        return memory

    def positions_after(self, batch: Sequence[Arrival], buckets: Iterable[int]) -> MergedOffsets:
        """Where these buckets stand when the batch is in them."""
        last = {arrival.source: arrival.offset + 1 for arrival in batch}
        merged = {bucket: self.merged.get(bucket, {}) for bucket in buckets}
        return {
            b: {source: max(end, positions.get(source, 0)) for source, end in last.items()}
            for b, positions in merged.items()
        }


def split_batches(arrivals: Sequence[Arrival], sizes: Iterator[int]) -> Iterator[Sequence[Arrival]]:
    """The log in batches of the given sizes."""
    start = 0
    while start < len(arrivals):
        size = next(sizes)
        yield arrivals[start : start + size]
        start += size


def list_entities(arrivals: Sequence[Arrival]) -> list[str]:
    """Every entity that a log touches."""
    return to_updates(arrivals).entities


def read_slices(store: ProfileStore, entities: Sequence[str]) -> dict[str, Slices]:
    """What a store holds of some entities, those without a slice left out."""
    return {entity: dict(slices) for entity, slices in zip(entities, store.read(entities), strict=True) if slices}
