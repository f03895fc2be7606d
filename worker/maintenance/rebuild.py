"""`python -m worker rebuild`: rebuilds the state from the log into a new generation while workers run, then switches.

It folds until it has almost caught up, makes the new generation serve, and deletes the former one. Workers switch by
themselves, each between two batches, and fold the rest: see docs/decisions/0007.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from contract.errors import BadConfig, LostLog, ShopstreamError, StaleState, Unavailable
from contract.profiles.entity_kinds import BUILT_IN_KINDS, EntityKinds
from contract.profiles.erasures import Erasures
from contract.profiles.record import FAMILIES
from contract.settings.reading import Settings
from transport.log_reader import LogReader
from transport.record_reader import RecordReader, open_record_reader
from transport.records import OffsetRange, TopicPartition
from worker.erasure.progress import ErasureProgress
from worker.erasure.topic import read_erasures
from worker.kafka.admin import KafkaAdmin
from worker.maintenance.profile_report import to_epoch_ms
from worker.maintenance.state_builder import StateBuilder
from worker.ops.retry import Retry, StopRequested
from worker.records.intake import make_event_readers
from worker.records.lanes import LANES
from worker.redis.client import RedisClient
from worker.redis.cluster import connect
from worker.state.generations import LEASE_MS, Generations, LeaseLost, generation_prefix
from worker.state.history_registry import HistoryRegistry
from worker.state.profile_store import RedisProfileStore, name_sources

log = logging.getLogger(__name__)
BEHIND_MAX: Final = 2_000  # records that workers may have to fold when they switch
STALLED_PASSES_MAX: Final = 5
LOG_EVERY_S: Final = 10.0
STOPPED: Final = "Asked to end before all records were folded. The former state serves on."
T = TypeVar("T")
R = TypeVar("R", bound="Rebuild")


class RebuildRefused(ShopstreamError):
    """The rebuild is refused; nothing has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildResult:
    """The new and the former generation, the records read and behind, and the number of deleted keys."""

    name: str
    previous: str
    records: int
    sources: int
    behind: int
    collected: int
    seconds: float


class Rebuild:
    """One rebuild of the state from these topics."""

    def __init__(  # noqa: PLR0913 - its collaborators, and what an operator chooses
        self,
        *,
        reader: LogReader,
        admin: KafkaAdmin,
        client: RedisClient,
        prefix: str,
        record_reader: RecordReader,
        retry: Retry,
        from_ms: int | None = None,
        accepts_loss: bool = False,
        entity_kinds: EntityKinds = BUILT_IN_KINDS,
    ) -> None:
        """`from_ms`: fold records with this Kafka timestamp or a later one; None: all records."""
        self._reader = reader
        self._admin = admin
        self._client = client
        self._prefix = prefix
        self._record_reader, self._event_topics = record_reader, record_reader.topics
        self._erasures = self._event_topics.settings.erasures
        self._topics = self._event_topics.names_of(FAMILIES)
        # A topic that both lanes read is two sources.
        self._kinds_by_lane = {name: self._event_topics.kinds_folded(lane.folded_kinds) for name, lane in LANES.items()}
        self._retry_policy, self._readers, self._entity_kinds = retry, record_reader.readers, entity_kinds
        self._from_ms, self._accepts_loss = from_ms, accepts_loss
        self._generations, self._name = Generations(client=client, prefix=prefix), ""
        self._may_have_switched = False
        self._logged_s = self._renewed_s = time.monotonic()

    def run(self) -> RebuildResult:
        """Run it; raises `RebuildRefused`, `LostLog`, `LeaseLost` or `StopRequested`: the former state serves on."""
        started_s = time.monotonic()
        self._fetch_offset_ranges()  # refuse before anything is written
        name = self._retry(self._generations.begin_build)
        if name is None:
            raise RebuildRefused(f"One rebuild should run at a time under {self._prefix}. Found another one running.")
        self._name, collected = name, 0
        profiles = self._open_generation(name)
        try:
            erasures, read_offsets = self._retry(lambda: self._read_erasures())
            builders = {
                lane: StateBuilder(
                    profiles=profiles,
                    kinds=kinds,
                    erasures=erasures,
                    record_reader=self._record_reader,
                    readers=self._readers,
                    entity_kinds=self._entity_kinds,
                )
                for lane, kinds in self._kinds_by_lane.items()
            }
            collected = self._retry(self._collect)
            previous = self._retry(self._generations.read_serving)
            self._check_previous(self._open_generation(previous))
            log.info("Building generation %s; %s serves until then.", name, previous or "the first one")
            self._fold_first(profiles, erasures)
            behind = self._catch_up(builders)
            self._retry(lambda: self._inherit_erasure_progress(profiles, previous, read_offsets))
            self._may_have_switched = True
            self._retry(lambda: self._generations.switch(name, previous))
            log.info("Generation %s serves; workers switch to it within a second.", name)
            self._retry(lambda: self._generations.fence(previous))
        finally:
            collected += self._clean_up()
        self._retry(
            lambda: self._generations.fence(previous)
        )  # a worker that read the former name may have started in it
        return RebuildResult(
            name=name,
            previous=previous,
            records=sum(builder.records for builder in builders.values()),
            sources=sum(len(builder.offsets.sources) for builder in builders.values()),
            behind=behind,
            collected=collected,
            seconds=time.monotonic() - started_s,
        )

    def _read_erasures(self) -> tuple[Erasures, dict[TopicPartition, int]]:
        return read_erasures(self._reader, self._erasures, self._readers["erasures"])

    def _check_previous(self, profiles: RedisProfileStore) -> None:
        """Raise `RebuildRefused` if the serving state has a history, which no log can give back."""
        if self._retry(HistoryRegistry(profiles).read) and not self._accepts_loss:
            raise RebuildRefused(
                "The state should come from the logs alone. Found that it has a history: run `python -m worker "
                "bootstrap HISTORY` again, or pass --accept-loss to build without it."
            )

    def _fold_first(self, profiles: RedisProfileStore, erasures: Erasures) -> None:
        """Fold what comes before the logs: nothing."""

    def _find_ends(self, lane: str, offset_ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """The offset up to which each log is folded for a lane."""
        return {partition: offset_range.high for partition, offset_range in offset_ranges.items()}

    def _open_generation(self, name: str) -> RedisProfileStore:
        return RedisProfileStore(client=self._client, prefix=generation_prefix(self._prefix, name))

    def _catch_up(self, builders: Mapping[str, StateBuilder]) -> int:
        """Fold until few records are left; returns their number. Raises `RebuildRefused` if it does not fall."""
        least, stalled_passes = sys.maxsize, 0
        while (behind := self._retry(lambda: self._fold_pass(builders))) > BEHIND_MAX:
            least, stalled_passes = (behind, 0) if behind < 0.9 * least else (least, stalled_passes + 1)
            if stalled_passes == STALLED_PASSES_MAX:
                raise RebuildRefused(
                    f"Folding should be faster than new records arrive. Found it {behind:,} records behind again."
                )
        return behind

    def _fold_pass(self, builders: Mapping[str, StateBuilder]) -> int:
        """Fold up to the present ends of the logs; returns the number of records that arrived during the pass."""
        offset_ranges = self._fetch_offset_ranges()
        behind = 0
        for lane, builder in builders.items():
            ranges = {partition: ends for partition, ends in offset_ranges.items() if partition.topic in builder.kinds}
            ends = self._find_ends(lane, ranges)
            self._fold_lane(builder, ranges, ends)
            ends_now = self._find_ends(lane, self._reader.fetch_offset_ranges(builder.kinds))
            behind += sum(end - ends.get(partition, 0) for partition, end in ends_now.items())
        self._generations.renew_lease(self._name)
        return behind

    def _fold_lane(
        self,
        builder: StateBuilder,
        offset_ranges: Mapping[TopicPartition, OffsetRange],
        ends: Mapping[TopicPartition, int],
    ) -> None:
        topic_ids = self._admin.fetch_topic_ids(builder.kinds)
        sources = name_sources(offset_ranges, builder.kinds, topic_ids, self._event_topics.added)
        try:
            builder.open(sources, self._find_log_starts(offset_ranges))
            starts = dict(builder.offsets.folded)
            for records in self._reader.read(ends, starts):
                builder.add(records)
                self._heartbeat(builder.records, sum(ends.values()), "records")
            builder.finish(ends)
        except StaleState as error:  # Redis lost writes, or a reply: the next pass restarts from what is there
            raise Unavailable(f"Redis should hold the new generation as written. Found: {error}") from error

    def _inherit_erasure_progress(
        self, profiles: RedisProfileStore, previous: str, read_offsets: Mapping[TopicPartition, int]
    ) -> None:
        """Record, for each holder, the erasures applied both in its own state and in the new generation.

        So workers that switch to it apply the erasures since the build began again.
        """
        topic = self._erasures
        former = self._open_generation(previous)
        progress = ErasureProgress(profiles=profiles, topic_id=lambda: self._admin.fetch_topic_ids([topic]).get(topic))
        progress.open()
        progress.inherit(ErasureProgress(profiles=former), read_offsets)

    def _fetch_offset_ranges(self) -> dict[TopicPartition, OffsetRange]:
        """The offset range of each partition; raises `RebuildRefused` where retention deleted needed records."""
        offset_ranges = self._retry(lambda: self._reader.fetch_offset_ranges(self._topics))
        if not offset_ranges:
            raise RebuildRefused(f"There should be topics to fold. Found none of {', '.join(self._topics)}.")
        truncated = {partition: low for partition, (low, _) in offset_ranges.items() if low > 0}
        if self._from_ms is None and truncated and not self._accepts_loss:
            partition, low = max(truncated.items(), key=lambda item: item[1])
            raise RebuildRefused(
                f"Every log should hold its first record. Found {len(truncated)} that do not, such as {partition}, "
                f"which begins at {low}: the present state has the deleted records, the new one would lack them. Pass "
                "--accept-loss to build without them, or --from a time."
            )
        return offset_ranges

    def _find_log_starts(self, offset_ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        if self._from_ms is None:
            return {partition: offset_range.low for partition, offset_range in offset_ranges.items()}
        offsets = self._reader.offsets_for_time(offset_ranges, self._from_ms)
        return {
            partition: max(offsets[partition], offset_range.low) for partition, offset_range in offset_ranges.items()
        }

    def _heartbeat(self, done: int, total: int, what: str) -> None:
        """Extend the lease, and log the progress."""
        now_s = time.monotonic()
        if self._retry_policy.stop.is_set():
            raise RebuildRefused(STOPPED)
        if now_s > self._renewed_s + LEASE_MS / 4_000:
            self._renewed_s = now_s
            self._generations.renew_lease(self._name)
        if now_s > self._logged_s + LOG_EVERY_S:
            self._logged_s = now_s
            log.info("Folded %s of about %s %s.", f"{done:,}", f"{total:,}", what)

    def _collect(self) -> int:
        return self._generations.delete_unused(lambda: self._generations.renew_lease(self._name))

    def _clean_up(self) -> int:
        """Give the lease back and delete unused generations; where Redis does not answer, the next rebuild does it."""
        try:
            self._generations.end_build(self._name)
            return self._generations.delete_unused()
        except Unavailable as error:
            log.warning("Unused generations stay until the next rebuild or `rebuild --collect`: %s", error)
            return 0

    def _retry(self, attempt: Callable[[], T]) -> T:
        try:
            return self._retry_policy.call("kafka and redis", attempt)
        except StopRequested as error:
            if self._may_have_switched:
                raise
            raise RebuildRefused(STOPPED) from error


def rebuild(settings: Settings, start: datetime | None, *, accepts_loss: bool, stop: threading.Event) -> int:
    """Rebuild and print the result; 0: the new state serves, 3: refused, and nothing has changed."""
    from_ms = to_epoch_ms(start) if start else None
    if from_ms is not None and from_ms > time.time_ns() // 1_000_000:
        raise BadConfig([f"A state should begin in the past. Found {start}."])
    make = partial(Rebuild, from_ms=from_ms, accepts_loss=accepts_loss)
    return run_and_print(settings, stop, make, lambda _, result: format_result(result))


def run_and_print(
    settings: Settings,
    stop: threading.Event,
    make: Callable[..., R],
    format_outcome: Callable[[R, RebuildResult], Iterable[str]],
) -> int:
    """Run what `make` returns and print its outcome; 0: the new state serves, 3: refused, and nothing has changed."""
    client = connect(settings.redis)
    reader = LogReader(kafka=settings.kafka)
    try:
        run = make(
            reader=reader,
            admin=KafkaAdmin(kafka=settings.kafka),
            client=client,
            prefix=settings.redis.prefix,
            record_reader=open_record_reader(settings, make_event_readers(settings), Retry(stop).call),
            retry=Retry(stop),
            entity_kinds=settings.entity_kinds(),
        )
        result = run.run()
    except (RebuildRefused, LeaseLost, LostLog) as error:
        print(f"Nothing has changed: {error}", file=sys.stderr)
        return 3
    finally:
        reader.close()
        client.close()
    print("\n".join(format_outcome(run, result)))
    return 0


def collect_garbage(settings: Settings, *, retires: bool) -> int:
    """Delete unused generations, with `retires` also those of other layouts, and print their number; 0."""
    client = connect(settings.redis)
    try:
        generations = Generations(client=client, prefix=settings.redis.prefix)
        if retires:
            print(f"layouts     {', '.join(map(str, generations.delete_other_layouts())) or 'none'} retired")
        print(f"collected   {generations.delete_unused():>12,} keys")
    finally:
        client.close()
    return 0


def format_result(result: RebuildResult) -> Iterator[str]:
    """The result as lines of text."""
    yield f"generation  {result.name:>12}   serves instead of {result.previous or 'the first one'}"
    yield f"sources     {result.sources:>12,}"
    yield f"records     {result.records:>12,}   folded; {result.behind:,} arrived since, which workers fold"
    yield f"collected   {result.collected:>12,}   keys of unused generations"
    yield f"seconds     {result.seconds:>12,.1f}"
