"""Slices of many entities as columns: loaded from a store, or to be written to it.

A batch is folded over arrays; one object for each slice would cost more than the fold. To callers, `LoadedSlices` is a
sequence and `SliceWrites` a mapping of the slices of each entity by source.
"""

from collections.abc import Container, ItemsView, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from contract.errors import BadProfile
from contract.hashing import bucket_of, buckets_of, hash_texts
from contract.profiles.histories import ENTRY, NO_HISTORIES, HistoryWrite, HistoryWrites
from contract.profiles.logins import LoginWrite
from contract.profiles.record import LAYOUT, RECORD, new_slice

Slices: TypeAlias = Mapping[str, bytes]  # source name -> record
EMPTY_RECORD: Final = new_slice().tobytes()


@dataclass(frozen=True, slots=True)
class LoadedSlices(Sequence[Slices]):
    """S slices of `length` entities, in any order; read as a sequence, it gives the slices of each entity by source."""

    length: int
    sources: Sequence[str]  # the distinct source names
    entity: npt.NDArray[np.int64]  # (S) the entity of each slice
    source: npt.NDArray[np.int64]  # (S) index into `sources`
    records: Sequence[bytes | memoryview]  # S records in all, one or more in each piece

    def to_array(self, extra: int) -> npt.NDArray[np.void]:
        """The records, followed by `extra` empty ones, as a writable array (S + extra) of RECORD.

        Raises `BadProfile` for records of another layout. The store has checked their lengths.
        """
        slices = self._concatenate(extra)
        layouts = slices["layout"]
        if len(slices) and (layouts != LAYOUT).any():
            raise BadProfile(f"A slice should have layout {LAYOUT}. Found {set(layouts.tolist()) - {LAYOUT}}.")
        return slices

    def _concatenate(self, extra: int) -> npt.NDArray[np.void]:
        if len(self.records) != 1:
            return np.frombuffer(bytearray().join((*self.records, EMPTY_RECORD * extra)), RECORD)
        slices = np.empty(len(self.entity) + extra, RECORD)
        loaded_bytes = len(self.records[0])
        record_bytes = slices.view(np.uint8)
        record_bytes[:loaded_bytes] = np.frombuffer(self.records[0], np.uint8)
        record_bytes[loaded_bytes:] = np.frombuffer(EMPTY_RECORD * extra, np.uint8)
        return slices

    def to_mappings(self) -> list[dict[str, bytes]]:
        """The slices of each entity by source."""
        slices: list[dict[str, bytes]] = [{} for _ in range(self.length)]
        records = split_records(b"".join(self.records))
        for entity, source, record in zip(self.entity.tolist(), self.source.tolist(), records, strict=True):
            slices[entity][self.sources[source]] = record
        return slices

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Slices]:
        return iter(self.to_mappings())

    @overload
    def __getitem__(self, index: int) -> Slices: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Slices]: ...
    def __getitem__(self, index: int | slice) -> Slices | Sequence[Slices]:
        return self.to_mappings()[index]


def to_columns(profiles: Sequence[Slices]) -> LoadedSlices:
    """The columns of profiles given as mappings; raises `BadProfile` for a truncated record."""
    if isinstance(profiles, LoadedSlices):
        return profiles
    names: dict[str, int] = {}
    entity, source, records = list[int](), list[int](), list[bytes]()
    for number, slices in enumerate(profiles):
        for name, record in slices.items():
            entity.append(number)
            source.append(names.setdefault(name, len(names)))
            records.append(record)
    check_lengths(np.array([len(record) for record in records], np.int64))
    return LoadedSlices(len(profiles), list(names), np.array(entity, np.int64), np.array(source, np.int64), records)


def check_lengths(lengths: npt.NDArray[np.int64]) -> None:
    """Raises `BadProfile` unless each is the length of a record."""
    wrong = lengths[lengths != RECORD.itemsize]
    if len(wrong):
        raise BadProfile(f"A slice should have {RECORD.itemsize} bytes. Found {wrong.min()}.")


def split_records(records: bytes) -> list[bytes]:
    """Concatenated records, one by one."""
    return [records[start : start + RECORD.itemsize] for start in range(0, len(records), RECORD.itemsize)]


@dataclass(frozen=True, slots=True)
class SliceWrites(Mapping[str, Slices]):
    """W slices to write, sorted by bucket and entity; as a mapping, by entity and source.

    `histories`: what to add to histories with them. `logins`: those to record, of any buckets, in the order of the log.
    """

    entities: Sequence[str]
    sources: Sequence[str]
    entity: npt.NDArray[np.int64]  # (W) index into `entities`
    source: npt.NDArray[np.int64]  # (W) index into `sources`
    bucket: npt.NDArray[np.int64]  # (W)
    records: bytes  # concatenated
    histories: HistoryWrites = NO_HISTORIES
    logins: Sequence[LoginWrite] = ()

    def buckets(self) -> set[int]:
        """The buckets that are written to."""
        buckets = set(self.bucket.tolist())
        if self.logins:
            buckets.update(buckets_of(hash_texts([login.entity for login in self.logins])).tolist())
        return buckets

    def list_histories(self) -> list[HistoryWrite]:
        """The writes to histories one by one."""
        own, end = self.histories, 0
        writes = list[HistoryWrite]()
        for row, length, is_new in zip(own.slice.tolist(), own.length.tolist(), own.is_new.tolist(), strict=True):
            begin, end = end, end + length * ENTRY.itemsize
            user, source = self.entities[self.entity[row]], self.sources[self.source[row]]
            writes.append(HistoryWrite(user, source, is_new, own.entries[begin:end]))
        return writes

    def select(self, buckets: Container[int]) -> "SliceWrites":
        """The writes to some buckets."""
        kept = np.array([bucket in buckets for bucket in self.bucket.tolist()], np.bool_)
        records = np.frombuffer(self.records, RECORD)[kept].tobytes()
        own = self.histories
        is_own = kept[own.slice]
        entries = np.frombuffer(own.entries, ENTRY)[np.repeat(is_own, own.length)].tobytes()
        row = (np.cumsum(kept) - 1)[own.slice[is_own]]
        histories = HistoryWrites(row, own.length[is_own], own.is_new[is_own], entries)
        logins = [login for login in self.logins if bucket_of(login.entity) in buckets]
        entity, source, bucket = self.entity[kept], self.source[kept], self.bucket[kept]
        return SliceWrites(self.entities, self.sources, entity, source, bucket, records, histories, logins)

    def to_mapping(self) -> dict[str, dict[str, bytes]]:
        """The slices by entity and source."""
        slices: dict[str, dict[str, bytes]] = {}
        for entity, source, record in zip(
            self.entity.tolist(), self.source.tolist(), split_records(self.records), strict=True
        ):
            slices.setdefault(self.entities[entity], {})[self.sources[source]] = record
        return slices

    def items(self) -> ItemsView[str, Slices]:
        return ItemsView(self.to_mapping())

    def __getitem__(self, entity: str) -> Slices:
        return self.to_mapping()[entity]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_mapping())

    def __len__(self) -> int:
        return len(self.to_mapping())


def to_slice_writes(slices: Mapping[str, Slices]) -> SliceWrites:
    """The columns of slices given as mappings."""
    if isinstance(slices, SliceWrites):
        return slices
    entities = sorted(slices, key=lambda entity: (bucket_of(entity), entity))
    loaded = to_columns([slices[entity] for entity in entities])
    bucket = np.array([bucket_of(entity) for entity in entities], np.int64)[loaded.entity]
    return SliceWrites(entities, loaded.sources, loaded.entity, loaded.source, bucket, b"".join(loaded.records))
