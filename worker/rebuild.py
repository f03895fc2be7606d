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
from contract.profiles import FAMILIES
from contract.settings import Settings, Topics
from worker.broker import Broker
from worker.builder import Builder
from worker.erasure_log import read_erasures
from worker.erasure_marks import ErasureMarks
from worker.follower import Extent, Log
from worker.generations import LEASE_MS, Generations, Overtaken, prefix_of
from worker.intake import Place
from worker.patience import Patience
from worker.portrait import milliseconds
from worker.profile_store import RedisProfiles, source_name
from worker.redis_client import RedisClient
from worker.redis_cluster import connect

log = logging.getLogger(__name__)
CLOSE: Final = 2_000  # records behind: workers fold the rest when they go over
VAIN_MAX: Final = 5
TOLD_EVERY_S: Final = 10.0
T = TypeVar("T")


class Refused(ShopstreamError):
    """What was asked for should not be done; nothing has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild did: which generation serves now and which did, what was read, and how many keys were deleted."""

    name: str
    before: str
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
        log: Log,
        broker: Broker,
        client: RedisClient,
        prefix: str,
        topics: Topics,
        patience: Patience,
        from_ms: int | None = None,
        accepts_loss: bool = False,
    ) -> None:
        """`from_ms`: fold what Kafka was given since; None: everything."""
        self._log, self._broker, self._client, self._prefix = log, broker, client, prefix
        self._topics, self._erasures = {topics.of(kind): kind for kind in FAMILIES}, topics.erasures
        self._patience = patience
        self._from_ms, self._accepts_loss = from_ms, accepts_loss
        self._generations, self._name = Generations(client=client, prefix=prefix), ""
        self._told_s = self._renewed_s = time.monotonic()

    def run(self) -> Rebuilt:
        """The whole; raises `Refused`, `LostLog`, `Overtaken` or `Stopped`, and then the former state serves on."""
        began_s = time.monotonic()
        self._extents()  # what has to be refused is refused before anything is written
        name = self._insist(self._generations.begin)
        if name is None:
            raise Refused(f"One rebuild should run at a time under {self._prefix}. Found another one at work.")
        self._name, collected = name, 0
        profiles = RedisProfiles(client=self._client, prefix=prefix_of(self._prefix, name))
        try:
            erasures, read = self._insist(lambda: read_erasures(self._log, self._erasures))
            builder = Builder(profiles=profiles, kinds=self._topics, erasures=erasures)
            collected = self._insist(self._collect)
            before = self._insist(self._generations.serving)
            log.info("Building generation %s beside %s.", name, before or "the first one")
            behind = self._catch_up(builder)
            self._insist(lambda: self._mark(profiles, before, read))
            self._insist(lambda: self._generations.switch(name, before))
            log.info("Generation %s serves; workers go over within a second.", name)
            self._insist(lambda: self._generations.fence(before))
        finally:
            collected += self._clean_up()
        self._insist(lambda: self._generations.fence(before))  # one that had asked just before may have begun in it
        return Rebuilt(
            name=name,
            before=before,
            records=builder.records,
            sources=len(builder.positions.sources),
            behind=behind,
            collected=collected,
            seconds=time.monotonic() - began_s,
        )

    def _catch_up(self, builder: Builder) -> int:
        """Fold until what is left is little; returns how many records that is. Raises `Refused` if it gets no less."""
        least, vain = sys.maxsize, 0
        while (behind := self._insist(lambda: self._pass(builder))) > CLOSE:
            least, vain = (behind, 0) if behind < 0.9 * least else (least, vain + 1)
            if vain == VAIN_MAX:
                raise Refused(f"Folding should overtake what comes in. Found it {behind:,} records behind, again.")
        return behind

    def _pass(self, builder: Builder) -> int:
        """Fold up to the ends that the logs have now; returns how many records have come meanwhile."""
        extents = self._extents()
        sources = self._name_sources(extents)
        ends = {place: extent.high for place, extent in extents.items()}
        try:
            builder.open(sources, self._begins(extents))
            starts = dict(builder.positions.folded)
            for records in self._log.read(ends, starts):
                builder.add(records)
                self._go_on(builder, sum(ends.values()))
            builder.finish(ends)
        except StaleState as error:  # Redis lost something, or a reply: what is there is gone on from
            raise Unavailable(f"What was built should stand in Redis. Found: {error}") from error
        self._generations.renew(self._name)
        now = self._log.extents(self._topics)
        return sum(extent.high - ends.get(place, 0) for place, extent in now.items())

    def _mark(self, profiles: RedisProfiles, before: str, read: Mapping[Place, int]) -> None:
        """Note of each holder how far erasures are carried out in both what it holds and what was built.

        So what came since the build began is carried out anew by whoever takes this generation up.
        """
        topic = self._erasures
        former = RedisProfiles(client=self._client, prefix=prefix_of(self._prefix, before))
        marks = ErasureMarks(profiles=profiles, topic_id=lambda: self._broker.topic_ids([topic]).get(topic))
        marks.open()
        marks.take_over(ErasureMarks(profiles=former), read)

    def _extents(self) -> dict[Place, Extent]:
        """What there is of each partition; raises `Refused` where the log should hold more."""
        extents = self._insist(lambda: self._log.extents(self._topics))
        if not extents:
            raise Refused(f"There should be topics to fold. Found none of {', '.join(self._topics)}.")
        cut = {place: extent.low for place, extent in extents.items() if extent.low > 0}
        if self._from_ms is None and cut and not self._accepts_loss:
            place, low = max(cut.items(), key=lambda item: item[1])
            raise Refused(
                f"Every log should hold its first record. Found {len(cut)} that do not, as {place.topic}/"
                f"{place.partition}, which begins at {low}: what the present state knows of records that are gone "
                "would be lost. Say --accept-loss to build without them, or --from a time."
            )
        return extents

    def _begins(self, extents: Mapping[Place, Extent]) -> dict[Place, int]:
        if self._from_ms is None:
            return {place: extent.low for place, extent in extents.items()}
        found = self._log.offsets_at(extents, self._from_ms)
        return {place: max(found[place], extent.low) for place, extent in extents.items()}

    def _name_sources(self, extents: Mapping[Place, Extent]) -> dict[Place, str]:
        ids = self._broker.topic_ids({place.topic for place in extents})
        return {p: source_name(self._topics[p.topic], ids.get(p.topic), p.partition) for p in extents}

    def _go_on(self, builder: Builder, total: int) -> None:
        """Keep the lease, and say how far it is."""
        now_s = time.monotonic()
        if self._patience.stop.is_set():
            raise Refused("Asked to end before all was folded. The former state serves on.")
        if now_s > self._renewed_s + LEASE_MS / 4_000:
            self._renewed_s = now_s
            self._generations.renew(self._name)
        if now_s > self._told_s + TOLD_EVERY_S:
            self._told_s = now_s
            log.info("Folded %s of about %s records.", f"{builder.records:,}", f"{total:,}")

    def _collect(self) -> int:
        return self._generations.collect(lambda: self._generations.renew(self._name))

    def _clean_up(self) -> int:
        """Give the lease back and delete what serves nobody; what a Redis that is away keeps goes with the next one."""
        try:
            self._generations.end(self._name)
            return self._generations.collect()
        except Unavailable as error:
            log.warning("Keys that serve nobody stay until the next rebuild, or `rebuild --collect`: %s", error)
            return 0

    def _insist(self, attempt: Callable[[], T]) -> T:
        return self._patience.insist("kafka and redis", attempt)


def rebuild(settings: Settings, start: datetime | None, *, accepts_loss: bool, stop: threading.Event) -> int:
    """Rebuild, and print what was done; 0: the new state serves, 3: refused, and nothing has changed."""
    from_ms = milliseconds(start) if start else None
    if from_ms is not None and from_ms > time.time_ns() // 1_000_000:
        raise BadConfig([f"A state should begin in the past. Found {start}."])
    client = connect(settings.redis)
    reader = Log(kafka=settings.kafka)
    try:
        rebuilt = Rebuild(
            log=reader,
            broker=Broker(kafka=settings.kafka),
            client=client,
            prefix=settings.redis.prefix,
            topics=settings.topics,
            patience=Patience(stop),
            from_ms=from_ms,
            accepts_loss=accepts_loss,
        ).run()
    except (Refused, Overtaken, LostLog) as error:
        print(f"Nothing has changed: {error}", file=sys.stderr)
        return 3
    finally:
        reader.close()
        client.close()
    print("\n".join(lines(rebuilt)))
    return 0


def collect(settings: Settings, *, retires: bool) -> int:
    """Delete what serves nobody, with `retires` also the states of other layouts, and print how much that was; 0."""
    client = connect(settings.redis)
    try:
        generations = Generations(client=client, prefix=settings.redis.prefix)
        if retires:
            print(f"layouts     {', '.join(map(str, generations.retire())) or 'none'} retired")
        print(f"collected   {generations.collect():>12,} keys")
    finally:
        client.close()
    return 0


def lines(rebuilt: Rebuilt) -> Iterator[str]:
    """What was done, for a reader."""
    yield f"generation  {rebuilt.name:>12}   serves instead of {rebuilt.before or 'the first one'}"
    yield f"sources     {rebuilt.sources:>12,}"
    yield f"records     {rebuilt.records:>12,}   folded; {rebuilt.behind:,} had come meanwhile, which workers fold"
    yield f"collected   {rebuilt.collected:>12,}   keys of what served before"
    yield f"seconds     {rebuilt.seconds:>12,.1f}"
