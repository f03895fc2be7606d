"""Positions: how far each partition is committed (answers are out) and merged (state is in Redis). Pure bookkeeping.

For every source, `merged[bucket]` is the exclusive offset up to which all that concerns the bucket is in Redis. A batch
writes it in the buckets that it touches; `advance` says what brings the untouched ones up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from contract.errors import LostLog, StaleState
from contract.hashing import BUCKETS
from contract.memory import Merged
from worker.intake import Held, Place


@dataclass(frozen=True, slots=True)
class Start:
    """Where to go on in a partition: fold from `offset`, answer from `committed`; `lost` records are gone."""

    offset: int
    committed: int
    lost: int = 0


def start_of(held: Held, merged: Iterable[int | None], begin: int = 0) -> Start:
    """min(committed, merged of every bucket), `merged` being None for buckets that know nothing of the source.

    A group that never committed over a state that knows nothing is a first start: it begins with the first record there
    is. Otherwise a bucket that knows nothing needs the log from where it `begins` for this state. Needed records that
    are gone are `lost`. Where a state knows more than a group has ever committed, as one that was built beside it, the
    group begins with the first record all the same: nobody has answered it.
    """
    known = list(merged)
    committed = held.committed if held.committed is not None and held.committed <= held.high else None
    if committed is None and all(at is None for at in known):
        return Start(held.low, held.low)
    needed = min([begin if at is None else at for at in known] + ([committed] if committed is not None else []))
    answered = max(held.low, committed if committed is not None else held.low)
    return Start(min(max(held.low, needed), answered), answered, max(0, held.low - needed))


def refuse_loss(place: Place, start: Start) -> None:
    """Raise `LostLog` if records that the state needs are gone."""
    if start.lost:
        raise LostLog(
            f"{place.topic}/{place.partition} should still hold every record that is not merged. Found the first "
            f'{start.lost} gone: set worker.on_lost_log to "accept" to go on without them, or rebuild the state.'
        )


def refuse_another_log(place: Place, held: Held, merged: Iterable[int | None]) -> None:
    """Raise `LostLog` if all buckets that know it have seen more than the log holds, as has what is committed, if any.

    To go on would mix two logs in one slice.
    """
    known = [at for at in merged if at is not None]
    seen = min([*known, *([held.committed] if held.committed is not None else [])], default=0)
    if seen > held.high:
        raise LostLog(
            f"{place.topic}/{place.partition} should reach {seen}, where its state ends. Found its end at "
            f"{held.high}: it lost records, or the topic is another one of that name. Rebuild the state."
        )


@dataclass(slots=True)
class Positions:
    """What one worker knows of its partitions. `sources` has a name for each partition whose events it folds."""

    sources: dict[Place, str] = field(default_factory=dict)
    committed: dict[Place, int] = field(default_factory=dict)
    folded: dict[Place, int] = field(default_factory=dict)  # exclusive; merged in the touched buckets
    merged: Merged = field(default_factory=lambda: {bucket: {} for bucket in range(BUCKETS)})

    def is_answered(self, place: Place, offset: int) -> bool:
        """Whether the answer of this record is out already, so that it is only folded."""
        return offset < self.committed.get(place, 0)

    def check_order(self, begins: Mapping[Place, int]) -> None:
        """Raise `StaleState` if a partition went back by itself: its topic was deleted and created anew."""
        for place, offset in begins.items():
            expected = self.folded[place] if place in self.folded else self.committed.get(place, 0)
            if offset < expected:
                raise StaleState(f"{place.topic}/{place.partition} should go on from {expected}. Found {offset}.")

    def check_merged(self, found: Merged) -> None:
        """Raise `StaleState` if a bucket of Redis is not where this worker left it."""
        if lost := [b for b, known in self.merged.items() if any(found[b].get(s) != at for s, at in known.items())]:
            raise StaleState(f"Buckets {lost} should be merged as this worker left them. Found other positions.")

    def after(self, batch: Mapping[Place, int], buckets: Iterable[int]) -> Merged:
        """What `merged` becomes in the touched buckets, once the batch that ends at these positions is folded."""
        ends = {self.sources[place]: at for place, at in batch.items() if place in self.sources}
        return {
            bucket: {source: max(at, self.merged[bucket].get(source, 0)) for source, at in ends.items()}
            for bucket in buckets
        }

    def advance(self) -> Merged:
        """What brings every bucket up to what has been folded; empty if none lags."""
        after = {
            bucket: {
                source: self.folded[place]
                for place, source in self.sources.items()
                if place in self.folded and self.folded[place] > merged.get(source, -1)
            }
            for bucket, merged in self.merged.items()
        }
        return {bucket: sources for bucket, sources in after.items() if sources}

    def note_merged(self, after: Merged) -> None:
        for bucket, sources in after.items():
            self.merged[bucket].update(sources)

    def note_committed(self, batch: Mapping[Place, int]) -> None:
        for place, at in batch.items():
            self.committed[place] = max(at, self.committed.get(place, 0))

    def note_folded(self, batch: Mapping[Place, int]) -> None:
        for place, at in batch.items():
            self.folded[place] = max(at, self.folded.get(place, 0))

    def forget(self, places: Iterable[Place]) -> None:
        for place in places:
            source = self.sources.pop(place, None)
            self.committed.pop(place, None)
            self.folded.pop(place, None)
            for merged in self.merged.values():
                merged.pop(source or "", None)
