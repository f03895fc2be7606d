"""A builder: folds logs into a generation of the state that nobody reads yet and nobody else writes."""

from collections.abc import Mapping, Sequence
from typing import Final

from contract.erasures import NO_ERASURES, Erasures
from contract.hashing import BUCKETS
from contract.memory import fold
from contract.touches import columns
from worker.batch import open_records
from worker.intake import Place, Record
from worker.positions import Positions
from worker.profile_store import RedisProfiles

FOLDED_AT_ONCE: Final = 2_000


class Builder:
    """Folds partitions as workers do, but answers nothing; it may go back to what is merged at any time."""

    def __init__(self, *, profiles: RedisProfiles, kinds: Mapping[str, str], erasures: Erasures = NO_ERASURES) -> None:
        self._profiles, self._kinds, self._erasures = profiles, kinds, erasures
        self._begins: dict[str, int] = {}
        self.positions = Positions()
        self.records = 0

    def open(self, sources: Mapping[Place, str], begins: Mapping[Place, int]) -> None:
        """Fold these partitions from now on, each from where it begins; those of before are known by their names."""
        new = {source: begins[place] for place, source in sources.items() if source not in self._begins}
        self._profiles.write_begins({source: at for source, at in new.items() if at > 0})
        self._begins |= new
        self.positions.sources = dict(sources)
        self.go_back()

    def go_back(self) -> None:
        """Go on from what is merged; raises `StaleState` if somebody else writes here."""
        sources = set(self.positions.sources.values())
        merged = self._profiles.merged(sources)
        begun = {
            bucket: {source: self._begins[source] for source in sources - merged[bucket].keys()}
            for bucket in range(BUCKETS)
        }
        begun = {bucket: of for bucket, of in begun.items() if of}
        if begun:
            self._profiles.merge({}, {}, begun)
        self.positions.merged = {bucket: {**merged[bucket], **begun.get(bucket, {})} for bucket in range(BUCKETS)}
        self.positions.folded = {
            place: min(of[source] for of in self.positions.merged.values())
            for place, source in self.positions.sources.items()
        }

    def add(self, records: Sequence[Record]) -> None:
        """Fold the next records, those of a partition in their order; raises `StaleState`, `BadProfile`."""
        for start in range(0, len(records), FOLDED_AT_ONCE):
            self._add(records[start : start + FOLDED_AT_ONCE])

    def finish(self, ends: Mapping[Place, int]) -> None:
        """Everything below these ends has been added: note it in every bucket."""
        self.positions.note_folded(ends)
        after = self.positions.advance()
        if after:
            self._profiles.merge({}, self.positions.merged, after)
            self.positions.note_merged(after)

    def _add(self, records: Sequence[Record]) -> None:
        positions = self.positions
        batch = open_records(records, self._kinds, positions.sources, ())
        touches = columns(batch.arrivals, erasures=self._erasures)
        writes = fold(self._profiles.read(touches.entities), touches).writes()
        after = positions.after(batch.ends, writes.buckets())
        if after:
            self._profiles.merge(writes, positions.merged, after)
            positions.note_merged(after)
        positions.note_folded(batch.ends)
        self.records += len(records)
