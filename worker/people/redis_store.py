"""Samples of the people who visited items, in Redis: sorted sets of codes by rank, in the slot of the item's profile.

Adding keeps the highest rank of each code and the visits of highest rank, so several workers may add the same visits
in any order, and again after a crash. The salt is one random number of the shop; a worker that finds it lost, as in a
flushed server, writes its own again.
"""

import math
import secrets
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.hashing import BUCKETS, buckets_of, hash_texts
from contract.profiles.entity_updates import UpdateBatch
from contract.redis_keys import escape_ids
from contract.units import DAY_MS
from worker.ops import metrics
from worker.people.samples import SAMPLE_MAX, PeopleSamples
from worker.people.visits import CODE_BITS, SAMPLES, Visits, collect_visits
from worker.redis.client import RedisClient, WrongType

TTL_MS: Final = 60 * DAY_MS  # after it a person weighs nothing
RETENTION_MIN_MS: Final = TTL_MS - DAY_MS
SALTS: Final = 2**64
ENTRY: Final = np.dtype([("key", "<u2"), ("code", "<u4"), ("rank", "<f8")])
COMPACT_MAX: Final = 128  # members that Redis stores in the compact form by default, a quarter of the other one
# KEYS: the samples of one bucket. ARGV: time to live in ms, its minimum; then the ENTRYs of all keys as one string, in
# the order of keys. Visits below all of a full sample are skipped: of a hot item those are nearly all. Returns the
# number of keys of another type, which are replaced.
ADD: Final = f"""
local call, try = redis.call, redis.pcall
local ttl, least, entries, replaced = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], 0
local command, current, lowest

local function write()
  if not current or #command == 3 then return end
  local key = KEYS[current + 1]
  local added = try(unpack(command))
  if type(added) == 'table' then
    if not added.err:find('WRONGTYPE') then return added end
    call('DEL', key)
    call(unpack(command))
    replaced = replaced + 1
  end
  call('ZREMRANGEBYRANK', key, 0, -{SAMPLE_MAX + 1})
  if call('PTTL', key) < least then call('PEXPIRE', key, ttl) end
end

local function begin(number)
  local key = KEYS[number + 1]
  command, current, lowest = {{'ZADD', key, 'GT'}}, number, -math.huge
  if try('ZCARD', key) == {SAMPLE_MAX} then lowest = tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) end
end

for at = 1, #entries, {ENTRY.itemsize} do
  local number, code, rank = struct.unpack('<I2I4d', entries, at)
  if number ~= current or #command >= {3 + 2 * (COMPACT_MAX - SAMPLE_MAX)} then
    local failed = write()
    if failed then return failed end
    begin(number)
  end
  if rank >= lowest then
    command[#command + 1] = string.format('%.17g', rank)
    command[#command + 1] = code
  end
end
return write() or replaced
"""
# KEYS: samples of one bucket. Returns them as one text: of each the number of visits, then codes and ranks.
READ: Final = """
local replies = {}
for n = 1, #KEYS do
  local visits = redis.pcall('ZRANGE', KEYS[n], 0, -1, 'WITHSCORES')
  if visits.err then
    if not visits.err:find('WRONGTYPE') then return visits end
    visits = {}
  end
  replies[n] = #visits / 2 .. ' ' .. table.concat(visits, ' ')
end
return table.concat(replies, ' ')
"""


class RedisPeopleStore:
    """`worker.people.samples.PeopleStore` in a Redis or Valkey."""

    def __init__(self, *, client: RedisClient, prefix: str) -> None:
        self._client, self._prefix = client, prefix
        self._keys = [[f"{prefix}{sample}:{{{bucket}}}:" for bucket in range(BUCKETS)] for sample in SAMPLES]
        self._salt, self._has_agreed = secrets.randbelow(SALTS), False

    def agree(self) -> None:
        """Use the salt that is stored, or store the own one; raises `Unavailable`."""
        key = f"{self._prefix}people:salt"
        try:
            (held,) = self._client.pipeline([("SET", key, self._salt, "NX", "GET")])
        except WrongType:
            self._client.delete_other_type(key, "string")
            (held,) = self._client.pipeline([("SET", key, self._salt, "NX", "GET")])
        if held is not None and held.isdigit() and int(held) < SALTS:
            self._salt = int(held)
        elif held is not None:
            self._client.pipeline([("SET", key, self._salt)])
        self._has_agreed = True

    def add(self, updates: UpdateBatch) -> None:
        """Raises `Unavailable`; then it may be called again."""
        if not self._has_agreed:
            self.agree()
        visits = collect_visits(updates, self._salt)
        if not len(visits):
            return
        replaced = self._client.run_script(ADD, [*self._build_calls(visits)])
        metrics.UNREADABLE_KEYS.labels("people").inc(sum(replaced))

    def _build_calls(self, visits: Visits) -> Iterable[tuple[list[str], list[Any]]]:
        """A call for each bucket."""
        parts = escape_ids(visits.items)
        bounds = np.searchsorted(visits.bucket, np.arange(BUCKETS + 1)).tolist()
        is_new_key = np.ones(len(visits), np.bool_)
        is_new_key[1:] = (np.diff(visits.item) != 0) | (np.diff(visits.sample) != 0)
        key = np.cumsum(is_new_key) - 1
        first = np.flatnonzero(is_new_key)
        keys = [
            self._keys[sample][bucket] + parts[item]
            for sample, bucket, item in zip(
                visits.sample[first].tolist(), visits.bucket[first].tolist(), visits.item[first].tolist(), strict=True
            )
        ]
        entries = np.empty(len(visits), ENTRY)
        entries["code"], entries["rank"] = visits.code, visits.rank
        for begin, end in pairwise(bounds):
            if begin < end:
                own_keys = keys[key[begin] : key[end - 1] + 1]
                entries["key"][begin:end] = key[begin:end] - key[begin]
                yield own_keys, [TTL_MS, RETENTION_MIN_MS, entries[begin:end].tobytes()]

    def read(self, sample: int, items: Sequence[str]) -> PeopleSamples:
        """Raises `Unavailable`. A sample that is none is empty."""
        bucket = buckets_of(hash_texts([f"item:{item}" for item in items]))
        parts = escape_ids(items)
        order = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[order], np.arange(BUCKETS + 1)).tolist()
        calls: list[tuple[list[str], list[Any]]] = [
            ([self._keys[sample][n] + parts[i] for i in order[begin:end].tolist()], [])
            for n, (begin, end) in enumerate(pairwise(bounds))
            if begin < end
        ]
        replies: list[bytes] = self._client.run_script(READ, calls)
        return parse_samples(b" ".join(replies), order)


def parse_samples(text: bytes, order: npt.NDArray[np.int64]) -> PeopleSamples:
    """The samples in the texts of `READ`, of which the nth is that of item `order[n]`; what is no visit is left out."""
    words, items = text.split(), len(order)
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        numbers = np.array([to_number(word) for word in words], np.float64)
    counts, is_count, place = np.zeros(items, np.int64), np.zeros(len(numbers), np.bool_), 0
    for n in range(items):
        counts[n], is_count[place] = numbers[place], True
        place += 1 + 2 * int(counts[n])
    visits = numbers[~is_count].reshape(-1, 2)
    is_visit = np.isfinite(visits).all(1) & (visits[:, 0] >= 0) & (visits[:, 0] < 1 << CODE_BITS)
    item, visits = np.repeat(order, counts)[is_visit], visits[is_visit]
    return PeopleSamples(items, item, visits[:, 0].astype(np.int64), visits[:, 1])


def to_number(word: bytes) -> float:
    """The number that a word is, NaN for none."""
    try:
        return float(word)
    except ValueError:
        return math.nan
