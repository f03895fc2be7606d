"""Feeds a log to a store of profiles in batches, as a worker does: read, fold, merge under the guard."""

from collections.abc import Iterable, Iterator, Sequence

from contract.erasures import NO_ERASURES, Erasures
from contract.hashing import bucket_of
from contract.memory import Memory, Merged, Profiles, fold
from contract.slices import Slices
from contract.touches import Arrival, columns
from tests.oracle.logs import SOURCES


class Feeder:
    """One life of a worker. It begins with what the store says is merged and expects nobody else to write."""

    def __init__(self, store: Profiles, erasures: Erasures = NO_ERASURES) -> None:
        self.store, self.erasures = store, erasures
        self.merged = store.merged(SOURCES)

    def feed(self, batch: Sequence[Arrival]) -> Memory:
        """Fold a batch and merge it; positions never go back."""
        touches = columns(batch, erasures=self.erasures)
        memory = fold(self.store.read(touches.entities), touches)
        writes = memory.writes()
        after = self.after(batch, {bucket_of(entity) for entity in writes})
        self.store.merge(writes, self.merged, after)
        for bucket, positions in after.items():
            self.merged.setdefault(bucket, {}).update(positions)
        return memory

    def after(self, batch: Sequence[Arrival], buckets: Iterable[int]) -> Merged:
        """Where these buckets stand when the batch is in them."""
        last = {arrival.source: arrival.offset + 1 for arrival in batch}
        found = {bucket: self.merged.get(bucket, {}) for bucket in buckets}
        return {b: {source: max(at, of.get(source, 0)) for source, at in last.items()} for b, of in found.items()}


def cut(arrivals: Sequence[Arrival], sizes: Iterator[int]) -> Iterator[Sequence[Arrival]]:
    """The log in batches of the given sizes."""
    start = 0
    while start < len(arrivals):
        size = next(sizes)
        yield arrivals[start : start + size]
        start += size


def entities_of(arrivals: Sequence[Arrival]) -> list[str]:
    """Every entity that a log touches."""
    return columns(arrivals).entities


def slices_of(store: Profiles, entities: Sequence[str]) -> dict[str, Slices]:
    """What a store holds of some entities, those without a slice left out."""
    return {entity: dict(found) for entity, found in zip(entities, store.read(entities), strict=True) if found}
