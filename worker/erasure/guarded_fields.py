"""Writes fields of profiles or histories again, guarded by the merged offsets of their buckets."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from contract.errors import StaleState
from contract.profiles.store import MergedOffsets
from worker.state.profile_store import RedisProfileStore

# KEYS: merged:{bucket}, then hashes of the bucket. ARGV: number of sources; for each its name and the expected offset
# ('' for none); then the number of a hash, a field and its value ('' to delete it), for each field to write.
WRITE: Final = """
local call = redis.call
local last = 2 * tonumber(ARGV[1]) + 1
for at = 2, last, 2 do
  if (call('HGET', KEYS[1], ARGV[at]) or '') ~= ARGV[at + 1] then return 0 end
end
for at = last + 1, #ARGV, 3 do
  local key = KEYS[1 + ARGV[at]]
  if ARGV[at + 2] == '' then call('HDEL', key, ARGV[at + 1])
  elseif call('HEXISTS', key, ARGV[at + 1]) == 1 then call('HSET', key, ARGV[at + 1], ARGV[at + 2]) end  -- not expired
end
return 1
"""


class FieldWrite(NamedTuple):
    """A field of a hash in a bucket, and its new value; empty: it is deleted.

    `guard`: the source whose merged offset should be as this worker left it; None where no worker writes the field.
    """

    bucket: int
    key: str
    field: str
    value: bytes
    guard: str | None


def write_fields(profiles: RedisProfileStore, writes: Sequence[FieldWrite], merged: MergedOffsets) -> None:
    """Write fields that exist; raises `StaleState` or `Unavailable`. `merged`: the offsets that Redis should hold."""
    by_bucket = defaultdict[int, list[FieldWrite]](list)
    for write in writes:
        by_bucket[write.bucket].append(write)
    if not by_bucket:
        return
    calls = [build_call(profiles.keys.offsets(b), own, merged.get(b, {})) for b, own in by_bucket.items()]
    replies = profiles.client.run_script(WRITE, calls)
    if stale := [bucket for bucket, reply in zip(by_bucket, replies, strict=True) if not reply]:
        raise StaleState(f"Buckets {stale} should be merged as this worker left them. Found other positions.")


def build_call(
    offsets_key: str, writes: Sequence[FieldWrite], merged: Mapping[str, int]
) -> tuple[list[str], list[Any]]:
    """Keys and arguments of the script for one bucket."""
    numbers = {key: n for n, key in enumerate(dict.fromkeys(write.key for write in writes), 1)}
    sources = sorted({write.guard for write in writes if write.guard is not None})
    guards = chain.from_iterable((source, merged.get(source, "")) for source in sources)
    fields = chain.from_iterable((numbers[write.key], write.field, write.value) for write in writes)
    return [offsets_key, *numbers], [len(sources), *guards, *fields]
