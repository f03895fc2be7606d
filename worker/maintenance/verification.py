"""`python -m worker verify`: slices in Redis beside what their log makes of them, byte for byte, while workers go on.

A slice holds everything of its partition up to an offset that stands in it, and everything that `merged` says is in
Redis. So each is recounted up to the later of the two: an event that Redis lacks is found, one that came meanwhile is
no mismatch.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from contract.errors import BadConfig, BadEvent, LostLog, ShopstreamError, StaleState, Unavailable
from contract.events import clamp, decode
from contract.hashing import bucket_of, hash_id
from contract.profiles.entity_updates import Arrival
from contract.profiles.record import FAMILIES, entity_from_key, profile_key, source_family
from contract.profiles.store import MergedOffsets
from contract.settings import Settings
from transport.log_reader import LogReader
from transport.records import OffsetRange, Record, TopicPartition
from worker.erasure.topic import read_erasures
from worker.kafka.admin import KafkaAdmin
from worker.maintenance.comparison import SliceKey, StateComparison, VerificationResult, slice_offset
from worker.maintenance.recomputation import Recomputation, TimedArrival
from worker.maintenance.record_diff import find_defect
from worker.redis.cluster import connect
from worker.state.profile_store import RETENTION_MIN_MS, RedisProfileStore, open_profile_store, source_name

log = logging.getLogger(__name__)
LOG_EVERY_S: Final = 10.0


class InconsistentSnapshot(ShopstreamError):
    """Redis went back to an earlier state meanwhile: what was read of it does not fit together."""


class EntitySample(NamedTuple):
    """A share of all entities, by their hash; parts 0, 1, 2 ... of one share are others, and together all."""

    share: float = 1.0
    part: int = 0

    def contains(self, entity: str) -> bool:
        return self.part <= hash_id(entity) / 2**63 / self.share < self.part + 1


class Verification:
    """Compares the slices of a sample of entities with the logs of some topics (name -> kind of event).

    `erasures` names the topic of those who are to be forgotten.
    """

    def __init__(
        self,
        *,
        reader: LogReader,
        admin: KafkaAdmin,
        profiles: RedisProfileStore,
        topics: Mapping[str, str],
        erasures: str,
        sample: EntitySample,
    ) -> None:
        self._reader, self._admin, self._profiles = reader, admin, profiles
        self._topics, self._erasures, self._sample = topics, erasures, sample

    def run(self, now_ms: int) -> VerificationResult:
        """Read Redis, then the log, then compare; raises `Moved`, `StaleState`, or `Unavailable`."""
        erasures, erasure_offsets = read_erasures(self._reader, self._erasures)
        offset_ranges = self._reader.fetch_offset_ranges(self._topics)
        sources = self._name_sources(offset_ranges)
        self._profiles.refresh_generation()
        log_starts, merged = self._profiles.read_log_starts(), self._profiles.merged_offsets(sources)
        snapshot = self._read_snapshot()
        limits = SliceLimits(snapshot, merged)
        recomputation = Recomputation(wanted=self._sample.contains, limit=limits.last_offset, erasures=erasures)
        starts = {
            partition: log_starts[source]
            for source, partition in sources.items()
            if log_starts.get(source, 0) > offset_ranges[partition].low
        }
        self._recompute(
            recomputation,
            sources,
            {partition: min(limits.end_offset(s), offset_ranges[partition].high) for s, partition in sources.items()},
            starts,
        )
        self._check_erasures(erasure_offsets)
        check_positions(merged, self._profiles.merged_offsets(sources))
        offset_ranges = self._reader.fetch_offset_ranges(self._topics)  # anew: retention may have gone on meanwhile
        return StateComparison(
            actual=snapshot,
            expected={
                (entity, source): record
                for entity, slices in recomputation.slices.items()
                for source, record in slices.items()
            },
            offset_ranges={
                s: remaining_range(offset_ranges[partition], log_starts.get(s, 0))
                for s, partition in sources.items()
                if partition in offset_ranges
            },
            may_have_expired=lambda key: recomputation.last_kafka_ms[key] + RETENTION_MIN_MS < now_ms,
        ).compare()

    def _check_erasures(self, erasure_offsets: Mapping[TopicPartition, int]) -> None:
        """Raise `Moved` if someone was erased meanwhile: what was read of Redis may be older or newer than that."""
        now = {
            partition: offset_range.high
            for partition, offset_range in self._reader.fetch_offset_ranges([self._erasures]).items()
        }
        if now != erasure_offsets:
            raise InconsistentSnapshot(
                f"{self._erasures} should stand still meanwhile. Found new erasures: verify again."
            )

    def _name_sources(self, partitions: Iterable[TopicPartition]) -> dict[str, TopicPartition]:
        ids = self._admin.fetch_topic_ids(self._topics)
        return {source_name(self._topics[p.topic], ids.get(p.topic), p.partition): p for p in partitions}

    def _read_snapshot(self) -> dict[SliceKey, bytes]:
        """The slices of the sample that come from these topics, and those that come from nowhere."""
        snapshot, other_families = dict[SliceKey, bytes](), set(FAMILIES) - set(self._topics.values())
        for key, slices in self._profiles.scan(self._sample.contains):
            entity = entity_from_key(key)
            name = entity if profile_key(entity) == key else key  # nobody would find it there
            snapshot |= {
                (name, source): record
                for source, record in slices.items()
                if source_family(source) not in other_families
            }
        return snapshot

    def _recompute(
        self,
        recomputation: Recomputation,
        sources: Mapping[str, TopicPartition],
        ends: Mapping[TopicPartition, int],
        starts: Mapping[TopicPartition, int],
    ) -> None:
        names = {partition: source for source, partition in sources.items()}
        count, logged_s = 0, time.monotonic()
        for records in self._reader.read(ends, starts):
            recomputation.add([timed for record in records if (timed := self._decode(record, names)) is not None])
            count += len(records)
            if time.monotonic() > logged_s + LOG_EVERY_S:
                logged_s = time.monotonic()
                log.info("Read %d of about %d records.", count, sum(ends.values()))

    def _decode(self, record: Record, names: Mapping[TopicPartition, str]) -> TimedArrival | None:
        """What a worker makes of a record; None of one that it folds nowhere."""
        topic_partition = record.topic_partition
        try:
            event, _ = clamp(decode(self._topics[topic_partition.topic], record.value), record.kafka_ms)
        except BadEvent:
            return None
        return TimedArrival(Arrival(names[topic_partition], record.offset, event, *topic_partition), record.kafka_ms)


def remaining_range(offset_range: OffsetRange, log_start: int) -> OffsetRange:
    """What is left of a log of which a state needs the records from `begin` on; low 0: all of these."""
    return OffsetRange(offset_range.low if offset_range.low > log_start else 0, offset_range.high)


class SliceLimits:
    """Up to which offset each slice has to be recounted."""

    def __init__(self, snapshot: Mapping[SliceKey, bytes], merged: MergedOffsets) -> None:
        self._merged = merged
        self._offsets = {
            key: slice_offset(record) for key, record in snapshot.items() if not find_defect(key[1], record)
        }
        self._ends: dict[str, int] = {}
        for (_, source), offset in self._offsets.items():
            self._ends[source] = max(offset + 1, self._ends.get(source, 0))

    def last_offset(self, entity: str, source: str) -> int:
        """The last offset that the slice should hold, if it is one of an event that touches it."""
        return max(self._offsets.get((entity, source), -1), self._merged[bucket_of(entity)].get(source, 0) - 1)

    def end_offset(self, source: str) -> int:
        """Where (exclusive) reading a log for this may stop."""
        return max(self._ends.get(source, 0), *(positions.get(source, 0) for positions in self._merged.values()))


def check_positions(before: MergedOffsets, after: MergedOffsets) -> None:
    """Raise `Moved` if any position is not what it was, or later."""
    for bucket, positions in before.items():
        for source, offset in positions.items():
            if after[bucket].get(source, -1) < offset:
                raise InconsistentSnapshot(
                    f"Bucket {bucket} should hold {source} up to {offset} or later. Found Redis gone back meanwhile: "
                    "verify again when workers have recovered."
                )


def verify(settings: Settings, sample: EntitySample, kinds: Iterable[str]) -> int:
    """Verify, and print what was found; 0: nothing differs, 1: something does, 3: that could not be told."""
    if sample.part < 0 or sample.part * sample.share >= 1:
        raise BadConfig([f"Parts of {sample.share:g} should be counted from 0 while they last. Found {sample.part}."])
    client = connect(settings.redis)
    reader = LogReader(kafka=settings.kafka)
    verification = Verification(
        reader=reader,
        admin=KafkaAdmin(kafka=settings.kafka),
        profiles=open_profile_store(client, settings.redis.prefix),
        topics={settings.topics.topic_name(kind): kind for kind in kinds},
        erasures=settings.topics.erasures,
        sample=sample,
    )
    try:
        result = verification.run(time.time_ns() // 1_000_000)
    except (LostLog, InconsistentSnapshot, StaleState, Unavailable) as error:
        print(f"Nothing can be told: {error}", file=sys.stderr)
        return 3
    finally:
        reader.close()
        client.close()
    print("\n".join(format_result(result)))
    return 1 if result.mismatches else 0


def format_result(result: VerificationResult) -> Iterator[str]:
    """The verdict for a reader."""
    yield from result.remarks
    yield f"entities    {result.entities:>12,}"
    yield f"slices      {result.slices:>12,}"
    yield f"mismatches  {result.mismatches:>12,}"
    if result.unchecked:
        yield f"unchecked   {result.unchecked:>12,}   their log lost its beginning, is gone, or they may have expired"
    yield from result.differences
    if result.mismatches > len(result.differences):
        yield f"... and {result.mismatches - len(result.differences):,} more"
