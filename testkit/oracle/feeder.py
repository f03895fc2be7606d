"""Feeds a log to a profile store in batches, as a worker does: read, fold, merge with expected offsets."""

from collections.abc import Iterable, Iterator, Sequence

from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.store import FoldedBatch, MergedOffsets, ProfileStore, fold
from testkit.oracle.logs import SOURCES


class ProfileFeeder:
    """One run of a worker, which starts at the store's offsets and expects no other writer."""

    def __init__(self, store: ProfileStore, erasures: Erasures = NO_ERASURES) -> None:
        self.store, self.erasures = store, erasures
        self.merged = store.read_offsets(SOURCES)

    def feed(self, batch: Sequence[Arrival]) -> FoldedBatch:
        """Fold a batch and merge it; offsets never go back."""
        updates = to_updates(batch, erasures=self.erasures)
        folded = fold(self.store.read(updates.entities), updates)
        writes = folded.slice_writes()
        ends = self.positions_after(batch, writes.buckets())
        self.store.merge(writes, self.merged, ends)
        for bucket, offsets in ends.items():
            self.merged.setdefault(bucket, {}).update(offsets)
        return folded

    def positions_after(self, batch: Sequence[Arrival], buckets: Iterable[int]) -> MergedOffsets:
        """The offsets of these buckets after the batch."""
        last = {arrival.source: arrival.offset + 1 for arrival in batch}
        merged = {bucket: self.merged.get(bucket, {}) for bucket in buckets}
        return {
            b: {source: max(end, offsets.get(source, 0)) for source, end in last.items()}
            for b, offsets in merged.items()
        }


def split_batches(arrivals: Sequence[Arrival], sizes: Iterator[int]) -> Iterator[Sequence[Arrival]]:
    """The log in batches of the given sizes."""
    start = 0
    while start < len(arrivals):
        size = next(sizes)
        yield arrivals[start : start + size]
        start += size


def list_entities(arrivals: Sequence[Arrival]) -> list[str]:
    """Every entity that a log updates."""
    return to_updates(arrivals).entities


def features_as_bytes(batches: Iterable[FoldedBatch]) -> bytes:
    """Aggregates and recent ids before all events of some batches, for comparison bit by bit."""
    batches = list(batches)
    aggregates = b"".join(folded.aggregates_before.tobytes() for folded in batches)
    return aggregates + b"".join(folded.recent_ids.tobytes() for folded in batches)


def read_slices(store: ProfileStore, entities: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """The slices of some entities in a store; entities without slices are left out."""
    return {entity: dict(slices) for entity, slices in zip(entities, store.read(entities), strict=True) if slices}


def read_histories(store: ProfileStore, entities: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """The histories of the users among some entities in a store; users without one are left out."""
    users = [entity for entity in entities if entity.startswith("user:")]
    return {user: dict(own) for user, own in zip(users, store.read_histories(users), strict=True) if own}
