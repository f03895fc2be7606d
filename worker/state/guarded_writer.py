"""Writes answers of users to Redis, in one script with the look at the user's erasure mark and the entry in the index.

Everything about one answer happens at one moment: a mark that is set later finds the answer in the index. On a Redis
Cluster the three keys are on different servers, so there the mark is read after the write, and what it forbids is
deleted again.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

from worker.ops import metrics
from worker.redis.client import RedisClient
from worker.state.erasure_fence import ErasureFence
from worker.state.user_key_index import EXPIRY_MARGIN_S, UserKeyIndex

# KEYS: n answers; then, unless in a cluster, n marks and n indexes. ARGV: n, the time in s, the margin of an index's
# expiry, the time to live, the mode, the number of values that each answer has after these: its value, its member of
# the index, its `source_ms`, the time up to which the caller knows its user to be erased, its time, and a former value
# that is unreadable; the last ones are left out where no answer has them. A reply: false (nothing was there), the value
# that was there, -1 (an unreadable one was replaced), 0 (a newer one was kept), or {mark} (nothing was written). The
# last reply is the number of unreadable indexes that were replaced.
WRITE: Final = """
local call, try = redis.call, redis.pcall
local n, now, margin, ttl, mode, width = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local fenced, expires_s, replaced, extended = #KEYS > n, now + ttl, 0, {}
local marks = fenced and call('MGET', unpack(KEYS, n + 1, 2 * n)) or {}
local replies = {}

local function is_other_type(reply) return type(reply) == 'table' and reply.err and reply.err:find('^WRONGTYPE') end

local function extend_index(key)
  extended[key] = true
  if call('PTTL', key) < ttl * 1000 then
    call('ZREMRANGEBYSCORE', key, '-inf', '(' .. (now - margin))
    call('EXPIRE', key, ttl + margin)
  end
end

local function add_to_index(key, member)
  local added = try('ZADD', key, 'GT', expires_s, member)
  if is_other_type(added) then
    call('DEL', key)
    replaced = replaced + 1
    added = call('ZADD', key, expires_s, member)
  end
  if type(added) == 'table' then return added end
  if not extended[key] then extend_index(key) end
end

local function put(key, value, source, unreadable)
  if mode == 'first' then
    local held = try('SET', key, value, 'NX', 'GET', 'EX', ttl)
    if not held then return false end
    if type(held) == 'table' and not is_other_type(held) then return held end
    if type(held) == 'string' and held ~= unreadable then return held end
    local set = try('SET', key, value, 'EX', ttl)
    return set.err and set or -1
  end
  local held = mode == 'newest' and try('GET', key)
  if type(held) == 'string' then
    local ok, answer = pcall(cjson.decode, held)
    ok = ok and type(answer) == 'table'
    if ok and (tonumber(answer['source_ms']) or 0) > tonumber(source) then return 0 end
    held = ok and held or -1
  elseif is_other_type(held) then
    held = -1
  end
  if type(held) == 'table' then return held end
  local set = try('SET', key, value, 'EX', ttl)
  return set.err and set or held
end

for i = 1, n do
  local at = 7 + width * (i - 1)
  local value, member, source = ARGV[at], ARGV[at + 1], width > 2 and ARGV[at + 2]
  local mark, known, unreadable, reply = tonumber(marks[i] or '') or -1, -1, '', false
  if width > 3 then known, unreadable = tonumber(ARGV[at + 3]), ARGV[at + 5] end
  if mark > known then
    reply = {string.format('%.0f', mark)}
  elseif known >= 0 and tonumber(ARGV[at + 4]) <= known then
    local held = mode == 'first' and try('GET', KEYS[i])
    if type(held) == 'string' and held ~= unreadable then reply = held end
  else
    local failed = fenced and member ~= '' and add_to_index(KEYS[2 * n + i], member)
    reply = failed or put(KEYS[i], value, source, unreadable)
    if type(reply) == 'table' then return reply end
  end
  replies[i] = reply
end
replies[n + 1] = replaced
return replies
"""
KEPT, REPLACED = 0, -1
Reply: TypeAlias = bytes | int | None


class Mode(StrEnum):
    """What becomes of a value that is there already."""

    FIRST = "first"  # it stays
    NEWEST = "newest"  # it stays if its `source_ms` is later
    LATEST = "latest"  # it is replaced


class GuardedWrite(NamedTuple):
    """One answer to write. `user_index` lists it as `entry`; `unreadable` is a value that counts as none."""

    key: str
    value: bytes
    user: str
    ts_ms: int
    ttl_s: int
    mode: Mode
    source_ms: int = 0
    user_index: UserKeyIndex | None = None
    entry: str = ""
    unreadable: bytes = b""


class GuardedWriter:
    """Writes answers to one server or cluster; `kind` labels the unreadable keys that it replaces."""

    def __init__(self, *, client: RedisClient, fence: ErasureFence, kind: str) -> None:
        self._client, self._fence, self._kind = client, fence, kind

    def write(self, writes: Sequence[GuardedWrite], now_s: int) -> list[Reply]:
        """The value that was there before, for each write; None where it was none.

        An answer that its user's erasure covers is not written, and the value that is there is returned all the same.
        Raises `UnknownErasure` after all others are written, or `Unavailable`; then it may be called again.
        """
        replies, marks = list[Reply](), dict[str, int]()
        for write, reply in zip(writes, self._write(writes, now_s), strict=True):
            if isinstance(reply, list):
                marks[write.user] = int(reply[0])
                reply = None
            elif reply == REPLACED:
                metrics.UNREADABLE_KEYS.labels(self._kind).inc()
            replies.append(reply)
        self._fence.raise_unknown(marks)
        return replies

    def _write(self, writes: Sequence[GuardedWrite], now_s: int) -> list[Any]:
        if self._client.spans_slots:
            return self._run(writes, now_s, fenced=True)
        self._add_to_indexes([write for write in writes if write.ts_ms > self._find_known(write)], now_s)
        return self._undo_fenced(writes, self._run(writes, now_s, fenced=False))

    def _run(self, writes: Sequence[GuardedWrite], now_s: int, *, fenced: bool) -> list[Any]:
        """The replies of the script; one call for many writes that have time to live and mode in common."""
        calls, items_max = list[tuple[list[str], list[Any]]](), self._client.script_items_max if fenced else 1
        for (ttl_s, mode), group in groupby(writes, key=attrgetter("ttl_s", "mode")):
            while chunk := list(islice(group, items_max)):
                calls.append(self._build_call(chunk, [now_s, EXPIRY_MARGIN_S, ttl_s, mode], fenced))
        replies = list[Any]()
        for *chunk_replies, replaced_indexes in self._client.run_script(WRITE, calls):
            replies += chunk_replies
            metrics.UNREADABLE_KEYS.labels("index").inc(replaced_indexes)
        return replies

    def _build_call(
        self, chunk: Sequence[GuardedWrite], common: Sequence[Any], fenced: bool
    ) -> tuple[list[str], list[Any]]:
        keys = [write.key for write in chunk]
        if fenced:
            keys += [self._fence.mark_key(write.user) for write in chunk]
            keys += [write.user_index.key(write.user) if write.user_index else write.key for write in chunk]
        known = [self._find_known(write) for write in chunk]
        columns: list[list[Any]] = [
            [write.value for write in chunk],
            [write.user_index.member(write.user, write.entry) if write.user_index else "" for write in chunk],
        ]
        is_plain = max(known) < 0 and not any(write.unreadable for write in chunk)
        if not is_plain or chunk[0].mode is Mode.NEWEST:
            columns.append([write.source_ms for write in chunk])
        if not is_plain:
            columns += [known, [write.ts_ms for write in chunk], [write.unreadable for write in chunk]]
        return keys, [len(chunk), *common, len(columns), *chain.from_iterable(zip(*columns, strict=True))]

    def _find_known(self, write: GuardedWrite) -> int:
        return self._fence.find_until_ms(write.user)

    def _add_to_indexes(self, writes: Sequence[GuardedWrite], now_s: int) -> None:
        entries: dict[tuple[UserKeyIndex, int], list[tuple[str, str]]] = {}
        for write in writes:
            if write.user_index:
                entries.setdefault((write.user_index, write.ttl_s), []).append((write.user, write.entry))
        for (index, ttl_s), index_entries in entries.items():
            index.add(index_entries, ttl_s, now_s)

    def _undo_fenced(self, writes: Sequence[GuardedWrite], replies: list[Any]) -> list[Any]:
        """Delete what was written although a mark forbids it, and reply so."""
        marks = self._client.pipeline([("MGET", self._fence.mark_key(write.user)) for write in writes])
        for number, (write, (mark,)) in enumerate(zip(writes, marks, strict=True)):
            known, until_ms = self._find_known(write), int(mark) if mark is not None and mark.isdigit() else -1
            if until_ms <= known:
                continue
            is_written = (
                replies[number] != KEPT if write.mode is not Mode.FIRST else replies[number] in (None, REPLACED)
            )
            if is_written and write.ts_ms > known:
                self._client.pipeline([("DEL", write.key)])
                if write.user_index:
                    write.user_index.remove(write.user, [write.entry])
            replies[number] = [mark]
        return replies
