"""Erasing slices of a user, bucket by bucket, under the guard of merging: by the worker that owns their source alone.

What an erasure covers has to be as if it had never been folded. A slice that may hold some of it is deleted. Where that
slice may hold something later, too, `merged` of its bucket goes back in the same script call to before that, so that
recovery folds it again, now knowing the erasure: there is no second way to make a slice.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import numpy as np

from contract.errors import StaleState
from contract.events import AHEAD_MS_MAX
from contract.hashing import bucket_of
from contract.memory import Merged
from contract.profiles import RECORD, source_family
from worker.intake import Place
from worker.profile_store import RedisProfiles

# KEYS: merged:{bucket}, then profiles. ARGV: number of sources; for each its name, the offset that must be there (''
# for none) and the new one ('': as it is); then pairs of a profile's number and the source of the slice to delete.
FORGET: Final = """
local call = redis.call
local last = 3 * tonumber(ARGV[1]) + 1
for at = 2, last, 3 do
  if (call('HGET', KEYS[1], ARGV[at]) or '') ~= ARGV[at + 1] then return 0 end
end
for at = last + 1, #ARGV, 2 do call('HDEL', KEYS[1 + ARGV[at]], ARGV[at + 1]) end
for at = 2, last, 3 do
  if ARGV[at + 2] ~= '' then call('HSET', KEYS[1], ARGV[at], ARGV[at + 2]) end
end
return 1
"""
PAGE: Final = 500
# Every event that touches a slice of these counts, so its first and last time tell what is in it. Of an order that came
# twice, or a judgement of another task, only the offset may.
TELLING: Final = ("clicks", "impressions", "reviews", "searches")
OffsetsAt = Callable[[Iterable[Place], int], Mapping[Place, int]]


class Doomed(NamedTuple):
    """A slice to be deleted; `again` if something later than the erasure may be in it."""

    user: str
    source: str
    until_ms: int
    offset: int
    again: bool


class SliceEraser:
    """Deletes what erasures cover from the slices of given sources. `offsets_at` asks Kafka where a time begins."""

    def __init__(self, *, profiles: RedisProfiles, offsets_at: OffsetsAt) -> None:
        self._profiles, self._offsets_at = profiles, offsets_at

    def erase(
        self, until_ms: Mapping[str, int], sources: Mapping[Place, str], merged: Merged, *, doubted: bool
    ) -> bool:
        """Delete; whether something has to be folded again. `until_ms` is by entity.

        `merged` is what Redis should hold, and follows what is written. `doubted`: also delete what may hold what is
        covered though its times do not tell. Raises `StaleState` or `Unavailable`; to call it again is always right.
        """
        again, entities = False, iter(until_ms.items())
        while page := dict(islice(entities, PAGE)):
            doomed = list(self._doomed(page, sources.values(), doubted))
            if doomed:
                again |= self._delete(doomed, self._starts(doomed, sources), merged)
        return again

    def _doomed(self, until_ms: Mapping[str, int], sources: Iterable[str], doubted: bool) -> Iterable[Doomed]:
        names = sorted(sources)
        if not names:
            return
        commands = [("HMGET", self._profiles.key(user), *names) for user in until_ms]
        for (user, until), records in zip(until_ms.items(), self._profiles.client.pipeline(commands), strict=True):
            for source, record in zip(names, records, strict=True):
                if record is not None and (found := judge(user, source, until, record, doubted)):
                    yield found

    def _starts(self, doomed: Sequence[Doomed], sources: Mapping[Place, str]) -> dict[str, int]:
        """From where each source has to be folded again, if at all.

        No event is later than its record by more than it may be ahead: what Kafka was given before that is covered.
        """
        since_ms: dict[str, int] = {}
        for one in doomed:
            if one.again:
                since_ms[one.source] = min(one.until_ms, since_ms.get(one.source, one.until_ms))
        places, found = {source: place for place, source in sources.items()}, dict[str, int]()
        for source, ms in since_ms.items():
            start = self._offsets_at([places[source]], max(0, ms - AHEAD_MS_MAX))[places[source]]
            if any(one.offset >= start for one in doomed if one.source == source and one.again):
                found[source] = start
        return found

    def _delete(self, doomed: Sequence[Doomed], starts: Mapping[str, int], merged: Merged) -> bool:
        by_bucket = defaultdict[int, list[Doomed]](list)
        for one in doomed:
            by_bucket[bucket_of(one.user)].append(one)
        after = {b: self._after(some, starts, merged.get(b, {})) for b, some in by_bucket.items()}
        calls = [self._call(b, some, merged.get(b, {}), after[b]) for b, some in by_bucket.items()]
        replies = self._profiles.client.scripts(FORGET, calls)
        if stale := [bucket for bucket, reply in zip(by_bucket, replies, strict=True) if not reply]:
            raise StaleState(f"Buckets {stale} should be merged as this worker left them. Found other positions.")
        for bucket, lowered in after.items():
            merged.get(bucket, {}).update(lowered)
        return any(after.values())

    @staticmethod
    def _after(doomed: Iterable[Doomed], starts: Mapping[str, int], merged: Mapping[str, int]) -> dict[str, int]:
        """The positions that go back in a bucket."""
        wanted = {one.source for one in doomed if one.again and one.offset >= starts.get(one.source, one.offset + 1)}
        return {source: starts[source] for source in wanted if starts[source] < merged.get(source, 0)}

    def _call(
        self, bucket: int, doomed: Sequence[Doomed], merged: Mapping[str, int], after: Mapping[str, int]
    ) -> tuple[list[str], list[Any]]:
        numbers = {user: n for n, user in enumerate(dict.fromkeys(one.user for one in doomed), 1)}
        keys = [self._profiles.merged_key(bucket), *map(self._profiles.key, numbers)]
        sources = sorted({one.source for one in doomed})
        guards = chain.from_iterable((s, merged.get(s, ""), after.get(s, "")) for s in sources)
        fields = chain.from_iterable((numbers[one.user], one.source) for one in doomed)
        return keys, [len(sources), *guards, *fields]


def judge(user: str, source: str, until_ms: int, record: bytes, doubted: bool) -> Doomed | None:
    """What is to be done with a slice; None if nothing in it is covered. What cannot be read is deleted whole."""
    if len(record) != RECORD.itemsize:
        return Doomed(user, source, until_ms, 2**62, again=True)
    one = np.frombuffer(record, RECORD)[0]
    first_ms, last_ms, offset = int(one["first_ms"]), int(one["last_ms"]), int(one["offset"])
    telling = source_family(source) in TELLING
    # Where nothing counted there is no time (0): a judgement of a task that nobody keeps moved the offset and no more.
    covered = 0 < last_ms <= until_ms or (int(one["count"]) > 0 and first_ms <= until_ms)
    if not covered and (telling or not doubted):
        return None
    return Doomed(user, source, until_ms, offset, again=not telling or last_ms > until_ms)
