"""`python -m worker verify`: compares slices, histories and logins in Redis byte for byte with what their log gives.

Workers may go on in the meantime: each slice is recomputed up to the merged offsets that its bucket had when the slice
was read. So an event that Redis lacks is found, and one that is folded during the scan is no mismatch.
"""

import logging
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from contract.errors import BadConfig, BadEvent, LostLog, ShopstreamError, StaleState, Unavailable
from contract.events.model import clamp
from contract.hashing import hash_id
from contract.profiles.entity_kinds import BUILT_IN_KINDS, EntityKinds
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import Erasures
from contract.profiles.record import FAMILIES, source_family
from contract.profiles.store import MergedOffsets
from contract.settings.reading import Settings
from transport.kafka_times import KafkaTimes
from transport.log_reader import LogReader
from transport.record_reader import RecordReader, Skipped, open_record_reader
from transport.records import OffsetRange, Record, TopicPartition
from worker.erasure.link_sweeper import mask_slices
from worker.erasure.progress import NO_OFFSETS, ErasureOffsets, ErasureProgress, owner_field
from worker.erasure.topic import read_erasures
from worker.kafka.admin import KafkaAdmin
from worker.maintenance.comparison import DIFFERENCES_MAX, SliceKey, StateComparison, VerificationResult
from worker.maintenance.recomputation import Recomputation, TimedArrival
from worker.maintenance.snapshot import ProfileSnapshot, read_snapshot
from worker.records.intake import make_event_readers
from worker.records.lanes import LANES
from worker.redis.cluster import connect
from worker.state.history_registry import HistoryRegistry
from worker.state.profile_repair import is_readable
from worker.state.profile_store import (
    OFFSET_MAX,
    RETENTION_MIN_MS,
    RedisProfileStore,
    locate_sources,
    open_profile_store,
)

log = logging.getLogger(__name__)
LOG_EVERY_S: Final = 10.0
ATTEMPTS_MAX: Final = 4
ATTEMPT_INTERVAL_S: Final = 2.0
NOT_COMPARED: Final = (
    "not compared: the samples of people (keys `people` and `buyers`). They have no offsets, so they rightly hold "
    "visits of batches that are not merged yet, of people who were erased since, and of a history; and they may lack "
    "visits from before a release that counts people."
)


class InconsistentSnapshot(ShopstreamError):
    """Redis or the erasures changed during the scan in a way that leaves nothing to compare with."""


class EntitySample(NamedTuple):
    """A share of all entities, by their hash; parts 0, 1, 2 ... of one share are disjoint, and together all."""

    share: float = 1.0
    part: int = 0

    def contains(self, entity: str) -> bool:
        return self.part <= hash_id(entity) / 2**63 / self.share < self.part + 1


class Topology(NamedTuple):
    """The sources at one moment: partition by source, and the offset range of each partition."""

    partitions: dict[str, TopicPartition]
    offset_ranges: dict[TopicPartition, OffsetRange]

    def ends(self) -> dict[str, int]:
        """The end of each log by source."""
        return {source: self.offset_ranges[partition].high for source, partition in self.partitions.items()}


class Verification:
    """Compares the slices of a sample of entities with the logs of the topics of some kinds of events."""

    def __init__(
        self,
        *,
        reader: LogReader,
        admin: KafkaAdmin,
        profiles: RedisProfileStore,
        record_reader: RecordReader,
        kinds: Iterable[str],
        sample: EntitySample,
        differences_max: int = DIFFERENCES_MAX,
        entity_kinds: EntityKinds = BUILT_IN_KINDS,
    ) -> None:
        self._reader = reader
        self._admin = admin
        self._profiles = profiles
        self._record_reader, self._kinds = record_reader, tuple(kinds)
        self._topics = record_reader.topics.names_of(self._kinds)
        self._erasures = record_reader.topics.settings.erasures
        self._sample = sample
        self._differences_max = differences_max
        self._readers, self._entity_kinds = record_reader.readers, entity_kinds

    def run(self, now_ms: int) -> VerificationResult:
        """Read Redis, then the log, then compare; raises `InconsistentSnapshot`, `StaleState`, or `Unavailable`.

        Erasures are read after Redis, so they include all that a worker can have executed in the snapshot; which of
        them each worker had executed is read before it.
        """
        self._profiles.refresh_generation()
        log_starts, history_starts = self._profiles.read_log_starts(), self._profiles.read_history_starts()
        progress = self._open_erasure_progress()
        executed = progress.read()
        sources = list(self._read_topology().partitions)
        merged_before = self._profiles.read_offsets(sources)
        ignored_families = set(FAMILIES) - set(self._kinds)
        snapshot = read_snapshot(self._profiles, self._sample.contains, merged_before, ignored_families)
        erasures, erasure_ends = read_erasures(self._reader, self._erasures, self._readers["erasures"])
        erasing_sources = self._find_erasing_sources(
            executed, {progress.partition_name(partition): end for partition, end in erasure_ends.items()}
        )
        mask_unswept(snapshot.slices, erasing_sources, erasures)
        topology = self._read_topology()  # after the snapshot, so nothing in Redis can rightly be beyond its ends
        recomputation = self._recompute(snapshot, topology, log_starts, erasures)
        # An erasure sets merged offsets back, too.
        check_positions(merged_before, self._profiles.read_offsets(sources), erasing_sources)
        partitions, offset_ranges = self._read_topology()  # retention may have deleted records during the scan
        result = StateComparison(
            actual=snapshot.slices,
            expected={
                (entity, source): record
                for entity, slices in recomputation.slices.items()
                for source, record in slices.items()
            },
            offset_ranges={s: remaining_range(offset_ranges[p], log_starts.get(s, 0)) for s, p in partitions.items()},
            actual_histories=snapshot.histories,
            expected_histories={key: record for key, record in recomputation.histories.items() if record},
            actual_logins=snapshot.logins,
            expected_logins=recomputation.logins,
            has_all_histories=lambda source: history_starts.get(source, OFFSET_MAX) <= log_starts.get(source, 0),
            may_have_expired=lambda key: recomputation.last_kafka_ms[key] + RETENTION_MIN_MS < now_ms,
            is_erasing=lambda key: key[0] in erasures.until_ms and key[1] in erasing_sources,
            merged_beyond=snapshot.find_merged_beyond(topology.ends()),
            differences_max=self._differences_max,
        ).compare()
        if lost := HistoryRegistry(self._profiles).count_lost_buckets():
            result.add_mismatch("history", f"{lost} buckets", "they lack events of the history: bootstrap again")
        return result

    def _read_topology(self) -> Topology:
        offset_ranges = self._reader.fetch_offset_ranges(self._topics)
        topic_ids = self._admin.fetch_topic_ids(self._topics)
        return Topology(
            locate_sources(self._record_reader.topics, self._kinds, offset_ranges, topic_ids), offset_ranges
        )

    def _recompute(
        self, snapshot: ProfileSnapshot, topology: Topology, log_starts: Mapping[str, int], erasures: Erasures
    ) -> Recomputation:
        """The slices that the log gives, up to the offsets of the snapshot."""
        recomputation = Recomputation(
            wanted=self._sample.contains,
            last_offset=snapshot.last_offset,
            erasures=erasures,
            entity_kinds=self._entity_kinds,
        )
        starts: dict[TopicPartition, int] = {}
        ends: dict[TopicPartition, int] = {}
        names: dict[tuple[TopicPartition, str], str] = {}
        partitions, offset_ranges = topology
        for source, partition in partitions.items():
            names[partition, source_family(source)] = source
            end = min(snapshot.end_offsets.get(source, 0), offset_ranges[partition].high)
            ends[partition] = max(end, ends.get(partition, 0))
            start = max(log_starts.get(source, 0), offset_ranges[partition].low)
            starts[partition] = min(start, starts.get(partition, start))
        starts = {partition: start for partition, start in starts.items() if start > offset_ranges[partition].low}
        kafka_times, count, logged_s = KafkaTimes(), 0, time.monotonic()
        for records in self._reader.read(ends, starts):
            recomputation.add([timed for record in records if (timed := self._decode(record, names, kafka_times))])
            count += len(records)
            if time.monotonic() > logged_s + LOG_EVERY_S:
                logged_s = time.monotonic()
                log.info("Read %d of about %d records.", count, sum(ends.values()))
        return recomputation

    def _decode(
        self, record: Record, names: Mapping[tuple[TopicPartition, str], str], kafka_times: KafkaTimes
    ) -> TimedArrival | None:
        """The event as workers fold it; None for a record that they do not fold."""
        partition = record.topic_partition
        try:
            (kafka_ms,) = kafka_times.fill(partition, [record.kafka_ms])
            kind, event = self._record_reader.read(record)
            event, _ = clamp(event, kafka_ms)
        except (BadEvent, Skipped):
            return None
        source = names.get((partition, kind))
        return TimedArrival(Arrival(source, record.offset, event, *partition), record.kafka_ms) if source else None

    def _open_erasure_progress(self) -> ErasureProgress:
        topic = self._erasures
        progress = ErasureProgress(
            profiles=self._profiles, topic_id=lambda: self._admin.fetch_topic_ids([topic]).get(topic)
        )
        progress.open()
        return progress

    def _find_erasing_sources(self, executed: Mapping[str, ErasureOffsets], ends: ErasureOffsets) -> set[str]:
        """The sources whose worker had not yet executed every erasure below `ends`."""
        lanes = {kind: lane.name for lane in LANES.values() for kind in lane.folded_kinds}
        erasing = set()
        for source, partition in self._read_topology().partitions.items():
            holder = owner_field(lanes[source_family(source)], partition)
            done = executed.get(holder, NO_OFFSETS)
            if any(done.get(name, 0) < end for name, end in ends.items()):
                erasing.add(source)
        return erasing


def mask_unswept(slices: dict[SliceKey, bytes], erasing_sources: set[str], erasures: Erasures) -> None:
    """Mask links of erased users where a worker is about to do it."""
    unswept = [(*key, record) for key, record in slices.items() if key[1] in erasing_sources and is_readable(record)]
    slices.update(
        {(entity, source): record for entity, source, record in mask_slices(unswept, erasures.to_erased_ids())}
    )


def remaining_range(offset_range: OffsetRange, log_start: int) -> OffsetRange:
    """What is left of a log of which the state needs the records from `log_start` on; low 0: all of these."""
    return OffsetRange(offset_range.low if offset_range.low > log_start else 0, offset_range.high)


def check_positions(before: MergedOffsets, after: MergedOffsets, ignored_sources: Collection[str]) -> None:
    """Raise `InconsistentSnapshot` if a merged offset is lower than before."""
    for bucket, positions in before.items():
        for source, offset in positions.items():
            if source not in ignored_sources and after[bucket].get(source, -1) < offset:
                raise InconsistentSnapshot(
                    f"Bucket {bucket} should hold {source} up to {offset} or later. Found that Redis has gone back: "
                    "verify again when workers have recovered."
                )


def verify(settings: Settings, sample: EntitySample, kinds: Iterable[str]) -> int:
    """Verify and print the result; 0: no mismatch, 1: mismatches, 3: the verification could not run."""
    if sample.part < 0 or sample.part * sample.share >= 1:
        raise BadConfig(
            [f"Parts of {sample.share:g} should be counted from 0 and lie within the whole. Found {sample.part}."]
        )
    client = connect(settings.redis)
    reader = LogReader(kafka=settings.kafka)
    verification = Verification(
        reader=reader,
        admin=KafkaAdmin(kafka=settings.kafka),
        profiles=open_profile_store(client, settings.redis.prefix),
        record_reader=open_record_reader(settings, make_event_readers(settings)),
        kinds=kinds,
        sample=sample,
        entity_kinds=settings.entity_kinds(),
    )
    try:
        result = run_repeatedly(verification)
    except (LostLog, InconsistentSnapshot, StaleState, Unavailable) as error:
        print(f"Verification could not run: {error}", file=sys.stderr)
        return 3
    finally:
        reader.close()
        client.close()
    print("\n".join(format_result(result)))
    return 1 if result.mismatches else 0


def run_repeatedly(verification: Verification) -> VerificationResult:
    """Verify again, a few times, where Redis went back or another generation began to serve during the scan."""
    for _ in range(ATTEMPTS_MAX - 1):
        try:
            return verification.run(time.time_ns() // 1_000_000)
        except (InconsistentSnapshot, StaleState) as error:
            log.warning("Verifying again in %g s: %s", ATTEMPT_INTERVAL_S, error)
            time.sleep(ATTEMPT_INTERVAL_S)
    return verification.run(time.time_ns() // 1_000_000)


def format_result(result: VerificationResult) -> Iterator[str]:
    """The result as lines of text."""
    yield from result.remarks
    yield f"entities    {result.entities:>12,}"
    yield f"slices      {result.slices:>12,}"
    yield f"histories   {result.histories:>12,}"
    yield f"logins      {result.logins:>12,}"
    yield f"mismatches  {result.mismatches:>12,}"
    for reason, count in sorted(result.unchecked_by_reason.items()):
        yield f"unchecked   {count:>12,}   {reason}"
    yield NOT_COMPARED
    yield from result.differences
    if result.mismatches > len(result.differences):
        yield f"... and {result.mismatches - len(result.differences):,} more"
