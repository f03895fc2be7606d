"""`python -m worker rebuild`: builds the state anew from the log, beside the workers, and then lets it serve.

It folds into a generation of its own until it has all but caught up, lets that one serve, and deletes the former one.
Workers go over by themselves, each between two batches, and fold what lacks: see docs/decisions/0007.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from contract.errors import BadConfig, LostLog, ShopstreamError, StaleState, Unavailable
from contract.profiles.record import FAMILIES
from contract.settings import Settings, TopicSettings
from transport.log_reader import LogReader
from transport.records import OffsetRange, TopicPartition
from worker.erasure.progress import ErasureProgress
from worker.erasure.topic import read_erasures
from worker.kafka.admin import KafkaAdmin
from worker.maintenance.profile_report import to_epoch_ms
from worker.maintenance.state_builder import StateBuilder
from worker.ops.retry import Retry
from worker.redis.client import RedisClient
from worker.redis.cluster import connect
from worker.state.generations import LEASE_MS, Generations, LeaseLost, generation_prefix
from worker.state.profile_store import RedisProfileStore, name_sources

log = logging.getLogger(__name__)
BEHIND_MAX: Final = 2_000  # records behind: workers fold the rest when they go over
STALLED_PASSES_MAX: Final = 5
LOG_EVERY_S: Final = 10.0
T = TypeVar("T")


class RebuildRefused(ShopstreamError):
    """What was asked for should not be done; nothing has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildResult:
    """What a rebuild did: which generation serves now and which did, what was read, and how many keys were deleted."""

    name: str
    previous: str
    records: int
    sources: int
    behind: int
    collected: int
    seconds: float


class Rebuild:
    """One rebuild of the state, from the topics of these names."""

    def __init__(
        self,
        *,
        reader: LogReader,
        admin: KafkaAdmin,
        client: RedisClient,
        prefix: str,
        topics: TopicSettings,
        retry: Retry,
        from_ms: int | None = None,
        accepts_loss: bool = False,
    ) -> None:
        """`from_ms`: fold what Kafka was given since; None: everything."""
        self._reader, self._admin, self._client, self._prefix = reader, admin, client, prefix
        self._topics, self._erasures = {topics.topic_name(kind): kind for kind in FAMILIES}, topics.erasures
        self._retry_policy = retry
        self._from_ms, self._accepts_loss = from_ms, accepts_loss
        self._generations, self._name = Generations(client=client, prefix=prefix), ""
        self._logged_s = self._renewed_s = time.monotonic()

    def run(self) -> RebuildResult:
        """The whole; raises `Refused`, `LostLog`, `Overtaken` or `Stopped`, and then the former state serves on."""
        started_s = time.monotonic()
        self._fetch_offset_ranges()  # what has to be refused is refused before anything is written
        name = self._retry(self._generations.begin_build)
        if name is None:
            raise RebuildRefused(f"One rebuild should run at a time under {self._prefix}. Found another one at work.")
        self._name, collected = name, 0
        profiles = RedisProfileStore(client=self._client, prefix=generation_prefix(self._prefix, name))
        try:
            erasures, read_offsets = self._retry(lambda: read_erasures(self._reader, self._erasures))
            builder = StateBuilder(profiles=profiles, kinds=self._topics, erasures=erasures)
            collected = self._retry(self._collect)
            previous = self._retry(self._generations.read_serving)
            log.info("Building generation %s beside %s.", name, previous or "the first one")
            behind = self._catch_up(builder)
            self._retry(lambda: self._inherit_erasure_progress(profiles, previous, read_offsets))
            self._retry(lambda: self._generations.switch(name, previous))
            log.info("Generation %s serves; workers go over within a second.", name)
            self._retry(lambda: self._generations.fence(previous))
        finally:
            collected += self._clean_up()
        self._retry(lambda: self._generations.fence(previous))  # one that had asked just before may have begun in it
        return RebuildResult(
            name=name,
            previous=previous,
            records=builder.records,
            sources=len(builder.offsets.sources),
            behind=behind,
            collected=collected,
            seconds=time.monotonic() - started_s,
        )

    def _catch_up(self, builder: StateBuilder) -> int:
        """Fold until what is left is little; returns how many records that is. Raises `Refused` if it gets no less."""
        least, stalled_passes = sys.maxsize, 0
        while (behind := self._retry(lambda: self._fold_pass(builder))) > BEHIND_MAX:
            least, stalled_passes = (behind, 0) if behind < 0.9 * least else (least, stalled_passes + 1)
            if stalled_passes == STALLED_PASSES_MAX:
                raise RebuildRefused(
                    f"Folding should overtake what comes in. Found it {behind:,} records behind, again."
                )
        return behind

    def _fold_pass(self, builder: StateBuilder) -> int:
        """Fold up to the ends that the logs have now; returns how many records have come meanwhile."""
        offset_ranges = self._fetch_offset_ranges()
        sources = name_sources(offset_ranges, self._topics, self._admin.fetch_topic_ids(self._topics))
        ends = {partition: offset_range.high for partition, offset_range in offset_ranges.items()}
        try:
            builder.open(sources, self._find_log_starts(offset_ranges))
            starts = dict(builder.offsets.folded)
            for records in self._reader.read(ends, starts):
                builder.add(records)
                self._heartbeat(builder, sum(ends.values()))
            builder.finish(ends)
        except StaleState as error:  # Redis lost something, or a reply: what is there is gone on from
            raise Unavailable(f"What was built should stand in Redis. Found: {error}") from error
        self._generations.renew_lease(self._name)
        ranges_now = self._reader.fetch_offset_ranges(self._topics)
        return sum(offset_range.high - ends.get(partition, 0) for partition, offset_range in ranges_now.items())

    def _inherit_erasure_progress(
        self, profiles: RedisProfileStore, previous: str, read_offsets: Mapping[TopicPartition, int]
    ) -> None:
        """Note of each holder how far erasures are carried out in both what it holds and what was built.

        So what came since the build began is carried out anew by whoever takes this generation up.
        """
        topic = self._erasures
        former = RedisProfileStore(client=self._client, prefix=generation_prefix(self._prefix, previous))
        progress = ErasureProgress(profiles=profiles, topic_id=lambda: self._admin.fetch_topic_ids([topic]).get(topic))
        progress.open()
        progress.inherit(ErasureProgress(profiles=former), read_offsets)

    def _fetch_offset_ranges(self) -> dict[TopicPartition, OffsetRange]:
        """What there is of each partition; raises `Refused` where the log should hold more."""
        offset_ranges = self._retry(lambda: self._reader.fetch_offset_ranges(self._topics))
        if not offset_ranges:
            raise RebuildRefused(f"There should be topics to fold. Found none of {', '.join(self._topics)}.")
        truncated = {
            topic_partition: offset_range.low
            for topic_partition, offset_range in offset_ranges.items()
            if offset_range.low > 0
        }
        if self._from_ms is None and truncated and not self._accepts_loss:
            topic_partition, low = max(truncated.items(), key=lambda item: item[1])
            raise RebuildRefused(
                f"Every log should hold its first record. Found {len(truncated)} that do not, as {topic_partition.topic}/"
                f"{topic_partition.partition}, which begins at {low}: what the present state knows of records that are gone "
                "would be lost. Say --accept-loss to build without them, or --from a time."
            )
        return offset_ranges

    def _find_log_starts(self, offset_ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        if self._from_ms is None:
            return {partition: offset_range.low for partition, offset_range in offset_ranges.items()}
        offsets = self._reader.offsets_for_time(offset_ranges, self._from_ms)
        return {
            partition: max(offsets[partition], offset_range.low) for partition, offset_range in offset_ranges.items()
        }

    def _heartbeat(self, builder: StateBuilder, total: int) -> None:
        """Keep the lease, and say how far it is."""
        now_s = time.monotonic()
        if self._retry_policy.stop.is_set():
            raise RebuildRefused("Asked to end before all was folded. The former state serves on.")
        if now_s > self._renewed_s + LEASE_MS / 4_000:
            self._renewed_s = now_s
            self._generations.renew_lease(self._name)
        if now_s > self._logged_s + LOG_EVERY_S:
            self._logged_s = now_s
            log.info("Folded %s of about %s records.", f"{builder.records:,}", f"{total:,}")

    def _collect(self) -> int:
        return self._generations.delete_unused(lambda: self._generations.renew_lease(self._name))

    def _clean_up(self) -> int:
        """Give the lease back and delete what serves nobody; what a Redis that is away keeps goes with the next one."""
        try:
            self._generations.end_build(self._name)
            return self._generations.delete_unused()
        except Unavailable as error:
            log.warning("Keys that serve nobody stay until the next rebuild, or `rebuild --collect`: %s", error)
            return 0

    def _retry(self, attempt: Callable[[], T]) -> T:
        return self._retry_policy.call("kafka and redis", attempt)


def rebuild(settings: Settings, start: datetime | None, *, accepts_loss: bool, stop: threading.Event) -> int:
    """Rebuild, and print what was done; 0: the new state serves, 3: refused, and nothing has changed."""
    from_ms = to_epoch_ms(start) if start else None
    if from_ms is not None and from_ms > time.time_ns() // 1_000_000:
        raise BadConfig([f"A state should begin in the past. Found {start}."])
    client = connect(settings.redis)
    reader = LogReader(kafka=settings.kafka)
    try:
        result = Rebuild(
            reader=reader,
            admin=KafkaAdmin(kafka=settings.kafka),
            client=client,
            prefix=settings.redis.prefix,
            topics=settings.topics,
            retry=Retry(stop),
            from_ms=from_ms,
            accepts_loss=accepts_loss,
        ).run()
    except (RebuildRefused, LeaseLost, LostLog) as error:
        print(f"Nothing has changed: {error}", file=sys.stderr)
        return 3
    finally:
        reader.close()
        client.close()
    print("\n".join(format_result(result)))
    return 0


def collect_garbage(settings: Settings, *, retires: bool) -> int:
    """Delete what serves nobody, with `retires` also the states of other layouts, and print how much that was; 0."""
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
    """What was done, for a reader."""
    yield f"generation  {result.name:>12}   serves instead of {result.previous or 'the first one'}"
    yield f"sources     {result.sources:>12,}"
    yield f"records     {result.records:>12,}   folded; {result.behind:,} had come meanwhile, which workers fold"
    yield f"collected   {result.collected:>12,}   keys of what served before"
    yield f"seconds     {result.seconds:>12,.1f}"
