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
from contract.memory import Merged
from contract.profiles import FAMILIES, entity_of, profile_key, source_family
from contract.settings import Settings
from contract.touches import Arrival
from worker.broker import Broker
from worker.difference import defect
from worker.erasure_log import read_erasures
from worker.follower import Extent, Log
from worker.intake import Place, Record
from worker.profile_store import KEPT_MS, RedisProfiles, open_profiles, source_name
from worker.recount import Logged, Recount
from worker.redis_cluster import connect
from worker.verdict import Comparison, Pair, Verdict, offset_of

log = logging.getLogger(__name__)
TOLD_EVERY_S: Final = 10.0


class Moved(ShopstreamError):
    """Redis went back to an earlier state meanwhile: what was read of it does not fit together."""


class Sample(NamedTuple):
    """A share of all entities, by their hash; parts 0, 1, 2 ... of one share are others, and together all."""

    share: float = 1.0
    part: int = 0

    def has(self, entity: str) -> bool:
        return self.part <= hash_id(entity) / 2**63 / self.share < self.part + 1


class Verification:
    """Compares the slices of a sample of entities with the logs of some topics (name -> kind of event).

    `erasures` names the topic of those who are to be forgotten.
    """

    def __init__(
        self,
        *,
        log: Log,
        broker: Broker,
        profiles: RedisProfiles,
        topics: Mapping[str, str],
        erasures: str,
        sample: Sample,
    ) -> None:
        self._log, self._broker, self._profiles = log, broker, profiles
        self._topics, self._erasures, self._sample = topics, erasures, sample

    def run(self, now_ms: int) -> Verdict:
        """Read Redis, then the log, then compare; raises `Moved`, `StaleState`, or `Unavailable`."""
        erasures, read = read_erasures(self._log, self._erasures)
        extents = self._log.extents(self._topics)
        sources = self._name(extents)
        self._profiles.take_up()
        begins, merged = self._profiles.begins(), self._profiles.merged(sources)
        found = self._snapshot()
        limits = Limits(found, merged)
        recount = Recount(wanted=self._sample.has, limit=limits.of, erasures=erasures)
        starts = {
            place: begins[source] for source, place in sources.items() if begins.get(source, 0) > extents[place].low
        }
        self._read(recount, sources, {p: min(limits.end(s), extents[p].high) for s, p in sources.items()}, starts)
        self._refuse_erasures(read)
        refuse_moved(merged, self._profiles.merged(sources))
        extents = self._log.extents(self._topics)  # anew: retention may have gone on meanwhile
        return Comparison(
            found=found,
            should={(entity, source): record for entity, of in recount.slices.items() for source, record in of.items()},
            logs={s: left_of(extents[p], begins.get(s, 0)) for s, p in sources.items() if p in extents},
            may_be_dropped=lambda pair: recount.last_kafka_ms[pair] + KEPT_MS < now_ms,
        ).verdict()

    def _refuse_erasures(self, read: Mapping[Place, int]) -> None:
        """Raise `Moved` if someone was erased meanwhile: what was read of Redis may be older or newer than that."""
        now = {place: extent.high for place, extent in self._log.extents([self._erasures]).items()}
        if now != read:
            raise Moved(f"{self._erasures} should stand still meanwhile. Found new erasures: verify again.")

    def _name(self, places: Iterable[Place]) -> dict[str, Place]:
        ids = self._broker.topic_ids(self._topics)
        return {source_name(self._topics[p.topic], ids.get(p.topic), p.partition): p for p in places}

    def _snapshot(self) -> dict[Pair, bytes]:
        """The slices of the sample that come from these topics, and those that come from nowhere."""
        found, foreign = dict[Pair, bytes](), set(FAMILIES) - set(self._topics.values())
        for key, slices in self._profiles.scan(self._sample.has):
            entity = entity_of(key)
            name = entity if profile_key(entity) == key else key  # nobody would find it there
            found |= {
                (name, source): record for source, record in slices.items() if source_family(source) not in foreign
            }
        return found

    def _read(
        self, recount: Recount, sources: Mapping[str, Place], ends: Mapping[Place, int], starts: Mapping[Place, int]
    ) -> None:
        names = {place: source for source, place in sources.items()}
        count, told_s = 0, time.monotonic()
        for records in self._log.read(ends, starts):
            recount.add([one for record in records if (one := self._logged(record, names)) is not None])
            count += len(records)
            if time.monotonic() > told_s + TOLD_EVERY_S:
                told_s = time.monotonic()
                log.info("Read %d of about %d records.", count, sum(ends.values()))

    def _logged(self, record: Record, names: Mapping[Place, str]) -> Logged | None:
        """What a worker makes of a record; None of one that it folds nowhere."""
        place = record.place
        try:
            event, _ = clamp(decode(self._topics[place.topic], record.value), record.kafka_ms)
        except BadEvent:
            return None
        return Logged(Arrival(names[place], record.offset, event, *place), record.kafka_ms)


def left_of(extent: Extent, begin: int) -> Extent:
    """What is left of a log of which a state needs the records from `begin` on; low 0: all of these."""
    return Extent(extent.low if extent.low > begin else 0, extent.high)


class Limits:
    """Up to which offset each slice has to be recounted."""

    def __init__(self, found: Mapping[Pair, bytes], merged: Merged) -> None:
        self._merged = merged
        self._offsets = {pair: offset_of(record) for pair, record in found.items() if not defect(pair[1], record)}
        self._ends: dict[str, int] = {}
        for (_, source), offset in self._offsets.items():
            self._ends[source] = max(offset + 1, self._ends.get(source, 0))

    def of(self, entity: str, source: str) -> int:
        """The last offset that the slice should hold, if it is one of an event that touches it."""
        return max(self._offsets.get((entity, source), -1), self._merged[bucket_of(entity)].get(source, 0) - 1)

    def end(self, source: str) -> int:
        """Where (exclusive) reading a log for this may stop."""
        return max(self._ends.get(source, 0), *(positions.get(source, 0) for positions in self._merged.values()))


def refuse_moved(before: Merged, after: Merged) -> None:
    """Raise `Moved` if any position is not what it was, or later."""
    for bucket, positions in before.items():
        for source, offset in positions.items():
            if after[bucket].get(source, -1) < offset:
                raise Moved(
                    f"Bucket {bucket} should hold {source} up to {offset} or later. Found Redis gone back meanwhile: "
                    "verify again when workers have recovered."
                )


def verify(settings: Settings, sample: Sample, kinds: Iterable[str]) -> int:
    """Verify, and print what was found; 0: nothing differs, 1: something does, 3: that could not be told."""
    if sample.part < 0 or sample.part * sample.share >= 1:
        raise BadConfig([f"Parts of {sample.share:g} should be counted from 0 while they last. Found {sample.part}."])
    client = connect(settings.redis)
    reader = Log(kafka=settings.kafka)
    verification = Verification(
        log=reader,
        broker=Broker(kafka=settings.kafka),
        profiles=open_profiles(client, settings.redis.prefix),
        topics={settings.topics.of(kind): kind for kind in kinds},
        erasures=settings.topics.erasures,
        sample=sample,
    )
    try:
        verdict = verification.run(time.time_ns() // 1_000_000)
    except (LostLog, Moved, StaleState, Unavailable) as error:
        print(f"Nothing can be told: {error}", file=sys.stderr)
        return 3
    finally:
        reader.close()
        client.close()
    print("\n".join(lines(verdict)))
    return 1 if verdict.mismatches else 0


def lines(verdict: Verdict) -> Iterator[str]:
    """The verdict for a reader."""
    yield from verdict.remarks
    yield f"entities    {verdict.entities:>12,}"
    yield f"slices      {verdict.slices:>12,}"
    yield f"mismatches  {verdict.mismatches:>12,}"
    if verdict.unchecked:
        yield f"unchecked   {verdict.unchecked:>12,}   their log lost its beginning, is gone, or they may have expired"
    yield from verdict.differences
    if verdict.mismatches > len(verdict.differences):
        yield f"... and {verdict.mismatches - len(verdict.differences):,} more"
