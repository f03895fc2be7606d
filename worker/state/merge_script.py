"""The script that merges a batch into one bucket: slices, histories and merged offsets, guarded by the former offsets.

`docs/decisions/0038-histories.md` has the reasons for what it does with histories.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from contract.profiles.histories import ENTRIES_BYTES_MAX, ENTRY, HEADER
from contract.profiles.slices import SliceWrites

HISTORY_ADDRESS: Final = np.dtype([("slice", "<u4"), ("length", "<u2")])
IS_NEW: Final = 128  # added to a length
LUA_HEADER: Final = "".join(f"\\{byte:03d}" for byte in HEADER)
# KEYS: merged:{bucket}, the profiles to write, then a key for each write to a history. ARGV: time to live in ms, its
# minimum, number of sources; for each source its name, the expected offset ('' for none) and the new one; then, packed
# into one string, the number of the key and of the source for each slice; then all slices as one string, since an
# argument for each would cost the client more than the rest of a write. In the same way the HISTORY_ADDRESS of each
# history: the number of its slice, from 1 on, and of its entries; then all entries. The expiry is refreshed only when
# days of it have passed: it costs a third of the write. A history is written right before its slice, since the fold
# never counts what a slice contains a second time. `merged` is written last: where a key of another type fails the
# script half-way, its bucket stays unmerged. A reply: 1; 0 for other offsets; {n}: the nth history is unreadable.
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
local profiles, history, begin, due, length = #KEYS - #histories / width, 0, 1, 0, 0

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
