"""Memory: the slices of a batch's entities, before and after its events, and the store they come from.

`fold` is the pure middle of the worker: it knows nothing of Kafka, Redis or the clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from contract.errors import BadProfile, StaleState
from contract.fold import Aggregates, State, arrange, fold_batch, look_batch, scratch
from contract.hashing import bucket_of
from contract.profiles import FAMILIES, RECORD
from contract.slices import Slices, Written, recall
from contract.touches import Touches, family_of

Merged = dict[int, dict[str, int]]  # bucket -> source -> the offset up to which (exclusive) all is folded


class Profiles(Protocol):
    """Where profiles live; `contract.memory.MemoryProfiles` and the worker's Redis store keep the same promises."""

    def read(self, entities: Sequence[str]) -> Sequence[Slices]:
        """The slices of each entity, in the order asked; as `Recalled` where the store has them as columns."""

    def merged(self, sources: Iterable[str]) -> Merged:
        """For every bucket, how far each of the sources is merged; a source that a bucket lacks is not in its dict."""

    def merge(self, writes: Mapping[str, Slices], expected: Merged, after: Merged) -> None:
        """Write slices and `after`, all of a bucket or nothing; `StaleState` where a bucket is not `expected`."""


class MemoryProfiles:
    """Profiles in this process: for replaying history, and the twin that Redis is tested against."""

    def __init__(self) -> None:
        self.slices: dict[str, dict[str, bytes]] = {}
        self.positions: Merged = {}

    def read(self, entities: Sequence[str]) -> list[Slices]:
        return [self.slices.get(entity, {}) for entity in entities]

    def merged(self, sources: Iterable[str]) -> Merged:
        wanted = set(sources)
        return {b: {s: at for s, at in of.items() if s in wanted} for b, of in self.positions.items()}

    def merge(self, writes: Mapping[str, Slices], expected: Merged, after: Merged) -> None:
        stale = [bucket for bucket in after if not self._advance(bucket, expected.get(bucket, {}), after[bucket])]
        for entity, slices in writes.items():
            if bucket_of(entity) not in stale:
                self.slices.setdefault(entity, {}).update(slices)
        if stale:
            raise StaleState(f"Buckets {stale} should be merged as this worker left them. Found other positions.")

    def _advance(self, bucket: int, expected: Mapping[str, int], after: Mapping[str, int]) -> bool:
        found = self.positions.setdefault(bucket, {})
        if any(found.get(source) != expected.get(source) for source in after):
            return False
        found.update(after)
        return True


@dataclass(slots=True)
class Memory:
    """What is remembered of a batch's entities: S slices after the batch, and what each touch knew before its event."""

    touches: Touches
    state: State
    sources: list[str]
    entity: npt.NDArray[np.int64]  # (S) whose slice it is
    source: npt.NDArray[np.int64]  # (S) index into `sources`
    own: npt.NDArray[np.int64]  # (T) the slice that each touch writes
    kept: npt.NDArray[np.bool_]  # (T) whether it does
    before: Aggregates  # (T, AGGREGATES) what each touch's entity was before its event
    recent: npt.NDArray[np.uint64]  # (T, RING) its latest first links, newest first

    def look(self, entities: Sequence[str], now_ms: Sequence[int]) -> tuple[Aggregates, npt.NDArray[np.uint64]]:
        """The same columns for some of the batch's entities as they are after it, each at its own time."""
        numbers = np.array([self.touches.index[entity] for entity in entities], np.int64)
        out, recent = look_batch(self.state, scratch(self.state), numbers, np.array(now_ms, np.int64))
        return out, recent

    def writes(self) -> Written:
        """The slices that the batch touched."""
        is_touched = np.zeros(len(self.entity), np.bool_)
        is_touched[self.own[self.kept]] = True
        touched = np.flatnonzero(is_touched)
        bucket, entity = self.touches.bucket[self.entity[touched]], self.entity[touched]
        order = np.lexsort((entity, bucket))
        rows = self.state.slices.view(np.uint8).reshape(-1, RECORD.itemsize).take(touched[order], axis=0)
        source = self.source[touched[order]]
        return Written(self.touches.entities, self.sources, entity[order], source, bucket[order], rows.tobytes())


def fold(profiles: Sequence[Slices], touches: Touches, keep: npt.NDArray[np.bool_] | None = None) -> Memory:
    """Fold a batch over what the store holds of `touches.entities`; pure, and bit-equal however the log was cut.

    Touches that are not `kept`, or False in `keep` (T), are looked at and linked with, but change no slice.
    """
    t, recalled = touches, recall(profiles)
    sources = sorted({*recalled.sources, *(arrival.source for arrival in t.arrivals)})
    number = {source: n for n, source in enumerate(sources)}
    held = np.array([number[source] for source in recalled.sources], np.int64)[recalled.source]
    arrived = np.array([number[arrival.source] for arrival in t.arrivals], np.int64)
    own, order, start, entity, source = arrange(
        len(t.entities), len(sources), recalled.entity, held, t.start, t.entity, arrived
    )
    slices = recalled.array(len(order) - len(held))
    state = State(slices, families(sources, source), order, start, t.gone)
    kept = t.kept if keep is None else t.kept & keep
    before, recent = fold_batch(state, scratch(state), t.start, t.entity, own, kept, t.amount, t.head, t.kind, t.ident)
    return Memory(t, state, sources, entity, source, own, kept, before, recent)


def families(sources: Sequence[str], source: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The family of each slice; raises `BadProfile` for a slice of one that another version has written."""
    found: npt.NDArray[np.int64] = np.array([family_of(name) for name in sources], np.int64)[source]
    if (found < 0).any():
        unknown = sources[int(source[found < 0][0])]
        raise BadProfile(f"A slice's source should be of a family among {list(FAMILIES)}. Found `{unknown}`.")
    return found
