"""Profiles in Redis: read whole, written bucket by bucket with the positions that they stand for, under a guard."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from contract.errors import StaleState
from contract.hashing import BUCKETS, bucket_of
from contract.memory import Merged, Slices
from contract.profiles import HORIZON_MS, profile_key
from worker.redis_client import RedisClient

# KEYS: profiles of one bucket. Returns the hash of each.
READ: Final = """
local found = {}
for i, key in ipairs(KEYS) do found[i] = redis.call('HGETALL', key) end
return found
"""

# KEYS: merged:{bucket}, then the profiles to write. ARGV: time to live in ms, number of sources, then for each source
# its name, the offset that must be there ('' for none) and the new one; then for each slice the index of its key, its
# source and its bytes. The expiry is refreshed only when 3 days of it have gone: it costs a third of the write.
MERGE: Final = """
local ttl, sources = tonumber(ARGV[1]), tonumber(ARGV[2])
local at = 3
for i = 0, sources - 1 do
  local found = redis.call('HGET', KEYS[1], ARGV[at + 3 * i]) or ''
  if found ~= ARGV[at + 3 * i + 1] then return 0 end
end
for i = 0, sources - 1 do redis.call('HSET', KEYS[1], ARGV[at + 3 * i], ARGV[at + 3 * i + 2]) end
at = at + 3 * sources
while at < #ARGV do
  local key = KEYS[1 + tonumber(ARGV[at])]
  redis.call('HSET', key, ARGV[at + 1], ARGV[at + 2])
  if redis.call('PTTL', key) < ttl - 259200000 then redis.call('PEXPIRE', key, ttl) end
  at = at + 3
end
return 1
"""
# Redis' own expiry only collects garbage, so it is later than the fold's horizon by the longest retention we foresee.
TTL_MS: Final = HORIZON_MS + 30 * 86_400_000


class RedisProfiles:
    """The promises of `contract.memory.Profiles` over a Redis or Valkey."""

    def __init__(self, *, client: RedisClient, prefix: str) -> None:
        self.client = client
        self.prefix = prefix

    def read(self, entities: Sequence[str]) -> list[Slices]:
        buckets = defaultdict[int, list[str]](list)
        for entity in entities:
            buckets[bucket_of(entity)].append(entity)
        calls = [([self.prefix + profile_key(entity) for entity in held], ()) for held in buckets.values()]
        found = dict[str, Slices]()
        for held, reply in zip(buckets.values(), self.client.scripts(READ, calls), strict=True):
            for entity, fields in zip(held, reply, strict=True):
                found[entity] = {fields[i].decode(): fields[i + 1] for i in range(0, len(fields), 2)}
        return [found[entity] for entity in entities]

    def merged(self, sources: Iterable[str]) -> Merged:
        wanted = sorted(sources)
        if not wanted:
            return {bucket: {} for bucket in range(BUCKETS)}
        replies = self.client.pipeline([("HMGET", self.merged_key(bucket), *wanted) for bucket in range(BUCKETS)])
        return {
            bucket: {source: int(at) for source, at in zip(wanted, reply, strict=True) if at is not None}
            for bucket, reply in enumerate(replies)
        }

    def merge(self, writes: Mapping[str, Slices], expected: Merged, after: Merged) -> None:
        held = defaultdict[int, list[str]](list)
        for entity in writes:
            held[bucket_of(entity)].append(entity)
        calls = [self._merge_call(b, after[b], expected.get(b, {}), {e: writes[e] for e in held[b]}) for b in after]
        replies = self.client.scripts(MERGE, calls)
        if stale := [bucket for bucket, reply in zip(after, replies, strict=True) if not reply]:
            raise StaleState(f"Buckets {stale} should be merged as this worker left them. Found other positions.")

    def merged_key(self, bucket: int) -> str:
        return f"{self.prefix}merged:{{{bucket}}}"

    def _merge_call(
        self, bucket: int, after: Mapping[str, int], expected: Mapping[str, int], writes: Mapping[str, Slices]
    ) -> tuple[list[str], list[object]]:
        arguments: list[object] = [TTL_MS, len(after)]
        for source, offset in after.items():
            arguments += [source, expected.get(source, ""), offset]
        for number, slices in enumerate(writes.values(), 1):
            for source, record in slices.items():
                arguments += [number, source, record]
        return [self.merged_key(bucket), *(self.prefix + profile_key(entity) for entity in writes)], arguments


def source_name(kind: str, topic_id: str | None, partition: int) -> str:
    """What one partition's slices are called: a topic created anew has another id, hence another source."""
    ident = f"~{re.sub('[^A-Za-z0-9_-]', '', topic_id)}" if topic_id else ""
    return f"{kind}{ident}/{partition}"
