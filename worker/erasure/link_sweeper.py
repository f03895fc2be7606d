"""Masks links with erased users in the slices of devices, cards, addresses, items and sellers, between two batches.

A fold that knows an erasure links no new event by the user's id; this masks the links that were folded before. Every
worker scans the profiles for slices of its own sources, a few milliseconds at a time, once for all erasures since the
last scan, and once after it started. The slices of a history belong to the owner of the partition of their kind and
number. What it writes is what a fold from the beginning of the log would give, under the
guard of `merged`. Progress on an erasure is recorded when this is done, so its confirmation waits for it.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from contract.hashing import bucket_of
from contract.history.sources import source_partition
from contract.profiles.entity_kinds import LINKED_KINDS
from contract.profiles.erasures import ErasedIds, Erasures
from contract.profiles.link_masks import mask_erased_links
from contract.profiles.record import RECORD, entity_from_key, source_family
from transport.records import TopicPartition
from worker.erasure.guarded_fields import FieldWrite, write_fields
from worker.erasure.progress import ErasureOffsets
from worker.ops import metrics
from worker.redis.client import WrongType
from worker.state.history_registry import HistoryRegistry
from worker.state.offsets import OffsetTracker
from worker.state.profile_repair import is_readable
from worker.state.profile_store import RedisProfileStore

log = logging.getLogger(__name__)
PAGE_MAX: Final = 50  # profiles that one request reads
STEP_S: Final = 0.004  # of scanning between two batches; a page more may begin within it
Slice = tuple[str, str, bytes]  # entity, source, record
OwnSources = dict[str, str]  # the sources whose slices are swept -> the own source whose `merged` guards them


@dataclass(slots=True)
class Sweep:
    """One scan: what it masks, in which sources, and up to which erasures that is executed when it has ended."""

    pages: Iterator[list[str]]  # of entities
    prefix: str
    sources: dict[TopicPartition, str]
    erased_ids: ErasedIds
    changes: int
    read_offsets: ErasureOffsets
    started_s: float
    historic: OwnSources
    profiles: int = 0
    masked: int = 0


class LinkSweeper:
    """Sweeps the slices of this worker's sources."""

    def __init__(self, *, profiles: RedisProfileStore, offsets: OffsetTracker, erasures: Erasures) -> None:
        self._profiles, self._offsets, self._erasures = profiles, offsets, erasures
        self._swept: dict[str, int] = {}  # by source, `Erasures.changes` up to which its links are masked
        self._has_swept = False  # once: what an earlier release or process left
        self._sweep: Sweep | None = None

    def is_swept(self, partition: TopicPartition) -> bool:
        """Whether no slice of this partition's source has a link with an erased user."""
        source = self._offsets.sources.get(partition)
        return (
            source is None
            or not has_links(source)
            or not self._erasures.changes
            or self._swept.get(source) == self._erasures.changes
        )

    def record_swept(self, partitions: Iterable[TopicPartition]) -> None:
        """An earlier owner of these partitions has masked the links; believed once this process has swept."""
        if self._has_swept:
            for partition in partitions:
                if source := self._offsets.sources.get(partition):
                    self._swept[source] = self._erasures.changes

    def restart(self) -> None:
        """Redis has gone back: sweep everything again."""
        self._swept.clear()
        self._sweep = None

    def step(self, read_offsets: ErasureOffsets) -> Sweep | None:
        """Sweep for some milliseconds; returns a scan that has ended.

        `read_offsets` of the erasures topic, up to which erasures are executed but for their links. Raises `StaleState`
        or `Unavailable`.
        """
        if self._sweep is None or self._sweep.prefix != self._profiles.prefix:
            self._sweep = self._begin(read_offsets)
        if (sweep := self._sweep) is None:
            return None
        until_s = time.monotonic() + STEP_S
        while time.monotonic() < until_s:
            try:
                page = next(sweep.pages, None)
                if page is not None:
                    self._mask_page(page, sweep)
                    sweep.profiles += len(page)
            except Exception:
                self._sweep = None  # the page is lost: begin again
                raise
            if page is None:
                return self._end(sweep)
        return None

    def _begin(self, read_offsets: ErasureOffsets) -> Sweep | None:
        """The next scan, if one is due."""
        owned = {partition: source for partition, source in self._offsets.sources.items() if has_links(source)}
        if all(self.is_swept(partition) for partition in owned):
            return None
        prefix = self._profiles.prefix
        return Sweep(
            self._scan(prefix),
            prefix,
            owned,
            self._erasures.to_erased_ids(),
            self._erasures.changes,
            read_offsets,
            time.monotonic(),
            assign_historic(HistoryRegistry(self._profiles).read(), owned.values()),
        )

    def _end(self, sweep: Sweep) -> Sweep:
        self._sweep, self._has_swept = None, True
        for partition, source in sweep.sources.items():
            if self._offsets.sources.get(partition) == source:
                self._swept[source] = sweep.changes
        log.info(
            "Masked the links of erased users in %d slices, of %d profiles scanned in %.1f s.",
            sweep.masked,
            sweep.profiles,
            time.monotonic() - sweep.started_s,
        )
        return sweep

    def _scan(self, prefix: str) -> Iterator[list[str]]:
        """Pages of the entities that may be linked with users."""
        for keys in self._profiles.client.scan(f"{prefix}profile:"):
            entities = [entity for key in keys if not (entity := entity_from_key(key)).startswith("user:")]
            for start in range(0, len(entities), PAGE_MAX):
                yield entities[start : start + PAGE_MAX]
            if not entities:
                yield []

    def _mask_page(self, entities: Sequence[str], sweep: Sweep) -> None:
        own = {s: s for partition, s in sweep.sources.items() if self._offsets.sources.get(partition) == s}
        own |= {source: guard for source, guard in sweep.historic.items() if guard in own}
        if not entities or not own:
            return
        names = list(own)
        keys = self._profiles.keys.profiles(entities)
        try:
            replies = self._profiles.client.pipeline([("HMGET", key, *names) for key in keys])
        except WrongType:  # holds no links, and is repaired when its entity is folded
            for entity in entities if len(entities) > 1 else ():
                self._mask_page([entity], sweep)
            return
        read = [
            (entity, source, record)
            for entity, records in zip(entities, replies, strict=True)
            for source, record in zip(names, records, strict=True)
            if record is not None and is_readable(record)
        ]
        self._write(mask_slices(read, sweep.erased_ids), own, sweep)

    def _write(self, masked: Sequence[Slice], own: OwnSources, sweep: Sweep) -> None:
        keys = self._profiles.keys.profiles([entity for entity, _, _ in masked])
        writes = [
            FieldWrite(bucket_of(entity), key, source, record, own[source])
            for (entity, source, record), key in zip(masked, keys, strict=True)
        ]
        write_fields(self._profiles, writes, self._offsets.merged)
        sweep.masked += len(masked)
        metrics.LINKS_MASKED.inc(len(masked))


def has_links(source: str) -> bool:
    """Whether slices of this source may be linked with users."""
    return source_family(source) in LINKED_KINDS


def assign_historic(sources: Iterable[str], owned: Iterable[str]) -> OwnSources:
    """The sources of a history that the owner of these sources sweeps, with the own source of their kind and number."""
    own = {(source_family(source), source_partition(source)): source for source in owned}
    keys = {source: (source_family(source), source_partition(source)) for source in sources}
    return {source: own[key] for source, key in keys.items() if key in own}


def mask_slices(slices: Sequence[Slice], erased_ids: ErasedIds) -> list[Slice]:
    """The slices with links of erased users, with these links masked."""
    records = np.frombuffer(b"".join(record for _, _, record in slices), RECORD).copy()
    changed = np.flatnonzero(mask_erased_links(records, erased_ids)).tolist()
    return [(slices[n][0], slices[n][1], records[n].tobytes()) for n in changed]
