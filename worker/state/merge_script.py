"""The script that merges a batch into one bucket: slices, histories, logins and merged offsets, under their guard.

`docs/decisions/0038-histories.md` has the reasons for what it does with histories.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.hashing import BUCKETS, buckets_of, hash_texts
from contract.profiles.histories import ENTRIES_BYTES_MAX, ENTRY, HEADER
from contract.profiles.logins import LOGINS
from contract.profiles.record import RECORD
from contract.profiles.slices import SliceWrites
from worker.state.profile_keys import ProfileKeys

HISTORY_ADDRESS: Final = np.dtype([("slice", "<u4"), ("length", "<u2")])
IS_NEW: Final = 128  # added to a length
NO_SOURCE: Final = 0xFFFF << 16
LoginRecords: TypeAlias = Mapping[tuple[str, str], bytes]  # by entity and source
LUA_HEADER: Final = "".join(f"\\{byte:03d}" for byte in HEADER)
# KEYS: merged:{bucket}, the profiles to write, a key for each write to a history, then one for each record of logins.
# ARGV: time to live in ms, its minimum, number of sources; for each source its name, the expected offset ('' for none)
# and the new one; then, packed into one string, the number of the key and of the source for each slice; then all slices
# as one string, since an argument for each would cost the client more than the rest of a write. In the same way the
# HISTORY_ADDRESS of each history: the number of its slice, from 1 on, and of its entries; then all entries. Then the
# field and the value of each record of logins. The expiry is refreshed only when days of it have passed: it costs a
# third of the write. A history is written right before its slice, since the fold never counts what a slice contains a
# second time. `merged` is written last: where a key of another type fails the script half-way, its bucket stays
# unmerged. A reply: 1; 0 for other offsets; {n}: the nth history is unreadable.
MERGE: Final = f"""
local call, try, unpack, sub = redis.call, redis.pcall, struct.unpack, string.sub
local ttl, least, sources = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local index = 3 * sources + 4
for at = 4, index - 1, 3 do
  if (call('HGET', KEYS[1], ARGV[at]) or '') ~= ARGV[at + 1] then return 0 end
end
local addresses, slices, histories, entries = ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
local count = #addresses / 4
local size = #slices / count
local width, last_address = {HISTORY_ADDRESS.itemsize}, #histories - {HISTORY_ADDRESS.itemsize} + 1
local logins = (#ARGV - index - 3) / 2
local profiles, history, begin, due, length = #KEYS - logins - #histories / width, 0, 1, 0, 0

local function extend(key)
  if call('PTTL', key) < least then call('PEXPIRE', key, ttl) end
end

local function find_next_history()
  local at = width * history + 1
  history, due = history + 1, 0
  if at <= last_address then due, length = unpack('<I4I2', histories, at) end
end

local function write_history(key, source)
  local is_new = length >= {IS_NEW}
  local own_bytes = {ENTRY.itemsize} * (length % {IS_NEW})
  local own = sub(entries, begin, begin + own_bytes - 1)
  begin = begin + own_bytes
  local held = try('HGET', key, source)
  if type(held) == 'table' then return held.err:find('^WRONGTYPE') and {{history}} or held end
  if held and is_new and own == '' then call('HDEL', key, source) end
  if own == '' then return end
  if held and not is_new then
    if sub(held, 1, 4) ~= '{LUA_HEADER}' or (#held - 4) % {ENTRY.itemsize} ~= 0 then return {{history}} end
    own = sub(held, 5) .. own
    if #own > {ENTRIES_BYTES_MAX} then own = sub(own, -{ENTRIES_BYTES_MAX}) end
  end
  call('HSET', key, source, '{LUA_HEADER}' .. own)
  extend(key)
end

find_next_history()
for n = 1, count do
  local number, source = unpack('<I2I2', addresses, 4 * n - 3)
  local key, name = KEYS[2 + number], ARGV[4 + 3 * source]
  if n == due then
    local failed = write_history(KEYS[profiles + history], name)
    if failed then return failed end
    find_next_history()
  end
  call('HSET', key, name, sub(slices, size * (n - 1) + 1, size * n))
  extend(key)
end
for n = 1, logins do
  local key = KEYS[#KEYS - logins + n]
  call('HSET', key, ARGV[index + 2 * n + 2], ARGV[index + 2 * n + 3])
  extend(key)
end
for at = 4, index - 1, 3 do call('HSET', KEYS[1], ARGV[at], ARGV[at + 2]) end
return 1
"""


class PackedHistories:
    """The histories of a batch's writes, as the script takes those of each bucket."""

    def __init__(self, written: SliceWrites, bounds: npt.NDArray[np.int64]) -> None:
        """`bounds`: where the slices of each bucket begin."""
        own = written.histories
        self._bounds = np.searchsorted(own.slice, bounds).tolist()
        self._ends = [0, *(ENTRY.itemsize * np.cumsum(own.length)).tolist()]
        self._entries = own.entries
        addresses = np.empty(len(own.slice), HISTORY_ADDRESS)
        addresses["slice"] = own.slice - bounds[written.bucket[own.slice]] + 1
        addresses["length"] = own.length + IS_NEW * own.is_new
        self._addresses = addresses.tobytes()

    def range(self, bucket: int) -> tuple[int, int]:
        """The numbers of the histories of a bucket, the end exclusive."""
        return self._bounds[bucket], self._bounds[bucket + 1]

    def arguments(self, bucket: int) -> tuple[bytes, bytes]:
        """The addresses and the entries of a bucket."""
        first, last = self.range(bucket)
        width = HISTORY_ADDRESS.itemsize
        return self._addresses[width * first : width * last], self._entries[self._ends[first] : self._ends[last]]


class MergeCalls:
    """The calls of the script for a batch, one for each bucket that is advanced."""

    def __init__(self, written: SliceWrites, logins: LoginRecords, keys: ProfileKeys) -> None:
        self._written, self._keys = written, keys
        self._bounds = np.searchsorted(written.bucket, np.arange(BUCKETS + 1))
        self._profile_keys, number = keys.number_profiles(written)
        self._number = number
        self._key_numbers = number[:-1] - number[self._bounds[written.bucket]]
        self._records = memoryview(written.records)
        self._addresses: dict[tuple[str, ...], bytes] = {}  # of all slices, by list of sources, mostly one
        self._histories = PackedHistories(written, self._bounds)
        rows = written.histories.slice
        self._history_users: list[str] = [written.entities[entity] for entity in written.entity[rows].tolist()]
        self._history_keys = keys.histories(self._history_users, written.bucket[rows].tolist())
        self._logins = defaultdict[int, list[tuple[str, str, bytes]]](list)
        entities = [entity for entity, _ in logins]
        buckets = buckets_of(hash_texts(entities)).tolist() if entities else []
        own_keys = keys.histories(entities, buckets)
        for bucket, key, (_, source), record in zip(buckets, own_keys, logins, logins.values(), strict=True):
            self._logins[bucket].append((key, LOGINS + source, record))

    def build(
        self, bucket: int, expected: Mapping[str, int], positions: Mapping[str, int], ttl_ms: int, ttl_min_ms: int
    ) -> tuple[list[str], list[Any]]:
        """Keys and arguments; `positions`: the new offsets by source."""
        first, last = int(self._bounds[bucket]), int(self._bounds[bucket + 1])
        guards = chain.from_iterable((source, expected.get(source, ""), offset) for source, offset in positions.items())
        logins = self._logins[bucket]
        arguments = [
            ttl_ms,
            ttl_min_ms,
            len(positions),
            *guards,
            self._pack_addresses(tuple(positions))[4 * first : 4 * last],
            bytes(self._records[first * RECORD.itemsize : last * RECORD.itemsize]),
            *self._histories.arguments(bucket),
            *chain.from_iterable((field, record) for _, field, record in logins),
        ]
        begin, end = self._histories.range(bucket)
        keys = [
            self._keys.offsets(bucket),
            *self._profile_keys[self._number[first] : self._number[last]],
            *self._history_keys[begin:end],
            *(key for key, _, _ in logins),
        ]
        return keys, arguments

    def find_history_user(self, bucket: int, number: int) -> str:
        """The user of the history that is the bucket's `number`th, from 1 on."""
        first, _ = self._histories.range(bucket)
        return self._history_users[first + number - 1]

    def _pack_addresses(self, sources: tuple[str, ...]) -> bytes:
        if sources not in self._addresses:
            packed = self._key_numbers + pack_source_indexes(self._written.sources, sources)[self._written.source]
            self._addresses[sources] = packed.astype("<u4").tobytes()
        return self._addresses[sources]


def pack_source_indexes(sources: Sequence[str], positions: Sequence[str]) -> npt.NDArray[np.int64]:
    """The packed index of each source among `positions`; a slice of a source that is not among them is refused."""
    packed = {source: number << 16 for number, source in enumerate(positions)}
    return np.array([packed.get(source, NO_SOURCE) for source in sources], np.int64)
