"""Memory: the slices of a batch's entities, before and after its events, and the store they come from.

`fold` is the pure middle of the worker: it knows nothing of Kafka, Redis or the clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from contract.errors import BadProfile, StaleState
from contract.fold import Aggregates, fold_batch, look_batch
from contract.hashing import bucket_of
from contract.profiles import LAYOUT, RECORD, new_slice, source_family
from contract.touches import FAMILY_CODES, Touches

Slices = Mapping[str, bytes]  # source name -> record
EMPTY: Final = new_slice().tobytes()
Merged = dict[int, dict[str, int]]  # bucket -> source -> the offset up to which (exclusive) all is folded


class Profiles(Protocol):
    """Where profiles live; `contract.memory.MemoryProfiles` and the worker's Redis store keep the same promises."""

    def read(self, entities: Sequence[str]) -> list[Slices]:
        """The slices of each entity, in the order asked."""

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
    """What is remembered of a batch's entities: S slices, those of one entity side by side in the order of names."""

    touches: Touches
    index: dict[str, int]  # entity -> its number
    start: npt.NDArray[np.int64]  # (E+1) first slice of each entity
    sources: list[str]  # (S)
    family: npt.NDArray[np.int64]  # (S)
    slices: npt.NDArray[np.void]  # (S) of RECORD, after the batch
    own: npt.NDArray[np.int64]  # (T) the slice that each touch writes
    before: Aggregates  # (T, AGGREGATES) what each touch's entity was before its event
    recent: npt.NDArray[np.uint64]  # (T, RING) its latest first links, newest first

    def look(self, entities: Sequence[str], now_ms: Sequence[int]) -> tuple[Aggregates, npt.NDArray[np.uint64]]:
        """The same columns for some of the batch's entities as they are after it, each at its own time."""
        numbers = np.array([self.index[e] for e in entities], np.int64)
        out, recent = look_batch(self.slices, self.family, self.start, numbers, np.array(now_ms, np.int64))
        return out, recent

    def writes(self) -> dict[str, dict[str, bytes]]:
        """The slices that the batch touched, by entity and source."""
        names, written = list(self.index), dict[str, dict[str, bytes]]()
        touched = np.unique(self.own)
        for number, s in zip(np.searchsorted(self.start, touched, "right") - 1, touched, strict=True):
            written.setdefault(names[number], {})[self.sources[s]] = self.slices[s].tobytes()
        return written


def fold(profiles: Sequence[Slices], touches: Touches) -> Memory:
    """Fold a batch over what the store holds of `touches.entities`; pure, and bit-equal however the log was cut."""
    sources_of = [dict(slices) for slices in profiles]
    for arrival, a, b in zip(touches.arrivals, touches.start, touches.start[1:], strict=False):
        for number in touches.entity[a:b].tolist():
            sources_of[number].setdefault(arrival.source, EMPTY)
    start, sources, records, place = [0], list[str](), list[bytes](), dict[tuple[int, str], int]()
    for number, held in enumerate(sources_of):
        for source in sorted(held):
            place[number, source] = len(sources)
            sources.append(source)
            records.append(held[source])
        start.append(len(sources))
    own = [
        place[number, arrival.source]
        for arrival, a, b in zip(touches.arrivals, touches.start, touches.start[1:], strict=False)
        for number in touches.entity[a:b].tolist()
    ]
    slices = parse(records)
    family = np.array([family_of(source) for source in sources], np.int64)
    starts, owns = np.array(start, np.int64), np.array(own, np.int64)
    t = touches
    before, recent = fold_batch(
        slices, family, starts, owns, t.start, t.entity, t.amount, t.link_start, t.link_ring, t.link_id, t.head
    )
    index = {entity: number for number, entity in enumerate(touches.entities)}
    return Memory(touches, index, starts, sources, family, slices, owns, before, recent)


def family_of(source: str) -> int:
    """The code of a source's family; raises `BadProfile` for one that another version has written."""
    family = source_family(source)
    if family not in FAMILY_CODES:
        raise BadProfile(f"A slice's source should be of a family among {list(FAMILY_CODES)}. Found `{source}`.")
    return FAMILY_CODES[family]


def parse(records: Sequence[bytes]) -> npt.NDArray[np.void]:
    """Records as one writable array; raises `BadProfile` for one of another layout or length."""
    for record in records:
        if len(record) != RECORD.itemsize:
            raise BadProfile(f"A slice should have {RECORD.itemsize} bytes. Found {len(record)}.")
    slices = np.frombuffer(bytearray(b"".join(records)), RECORD)
    if len(slices) and (slices["layout"] != LAYOUT).any():
        raise BadProfile(f"A slice should have layout {LAYOUT}. Found {set(slices['layout'].tolist()) - {LAYOUT}}.")
    return slices
