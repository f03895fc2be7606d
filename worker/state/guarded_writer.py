"""Writes answers of users to Redis, in one script with the look at the user's erasure mark and the entry in the index.

Everything about one answer happens at one moment: a mark that is set later finds the answer in the index. On a Redis
Cluster the three keys are on different servers, so there the mark is read after the write, and what it forbids is
deleted again.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import chain
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
local fenced, expires_s, replaced = #KEYS > n, now + ttl, 0
local marks = fenced and call('MGET', unpack(KEYS, n + 1, 2 * n)) or {}
local replies = {}

local function is_other_type(reply) return type(reply) == 'table' and reply.err and reply.err:find('^WRONGTYPE') end

local function extend_index(key)
  if call('PTTL', key) < ttl * 1000 then
    call('ZREMRANGEBYSCORE', key, '-inf', '(' .. (now - margin))
    call('EXPIRE', key, ttl + margin)
  end
end

local function add_to_index(key, members)
  local added = try('ZADD', key, 'GT', unpack(members))
  if is_other_type(added) then
    call('DEL', key)
    replaced = replaced + 1
    added = call('ZADD', key, unpack(members))
  end
  if type(added) == 'table' then return added end
  extend_index(key)
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

local members_of, is_written = {}, {}
for i = 1, n do
  local at = 7 + width * (i - 1)
  local member, mark, known = ARGV[at + 1], tonumber(marks[i] or '') or -1, width > 3 and tonumber(ARGV[at + 3]) or -1
  if mark > known then
    replies[i] = {string.format('%.0f', mark)}
  elseif known >= 0 and tonumber(ARGV[at + 4]) <= known then
    local held = mode == 'first' and try('GET', KEYS[i])
    replies[i] = type(held) == 'string' and held ~= ARGV[at + 5] and held
  else
    is_written[i] = true
    if fenced and member ~= '' then
      local members = members_of[KEYS[2 * n + i]] or {}
      members_of[KEYS[2 * n + i]] = members
      members[#members + 1], members[#members + 2] = expires_s, member
    end
  end
end
for key, members in pairs(members_of) do
  local failed = add_to_index(key, members)
  if failed then return failed end
end
for i = 1, n do
  if is_written[i] then
    local at = 7 + width * (i - 1)
    local reply = put(KEYS[i], ARGV[at], width > 2 and ARGV[at + 2], width > 3 and ARGV[at + 5] or '')
    if type(reply) == 'table' then return reply end
    replies[i] = reply
  end
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


class WritePolicy(NamedTuple):
    """What many writes have in common. `user_index` lists their keys."""

    ttl_s: int
    mode: Mode
    user_index: UserKeyIndex | None = None


class GuardedWrite(NamedTuple):
    """One answer to write. The policy's index lists it as `entry`; `unreadable` is a value that counts as none."""

    key: str
    value: bytes
    user: str
    ts_ms: int
    entry: str = ""
    source_ms: int = 0
    unreadable: bytes = b""


class GuardedWriter:
    """Writes answers to one server or cluster; `kind` labels the unreadable keys that it replaces."""

    def __init__(self, *, client: RedisClient, fence: ErasureFence, kind: str) -> None:
        self._client, self._fence, self._kind = client, fence, kind

    def write(self, policy: WritePolicy, writes: Sequence[GuardedWrite], now_s: int) -> list[Reply]:
        """The value that was there before, for each write; None where it was none.

        An answer that its user's erasure covers is not written, and the value that is there is returned all the same.
        Raises `UnknownErasure` after all others are written, or `Unavailable`; then it may be called again.
        """
        replies, marks = self._write(policy, writes, now_s), dict[str, int]()
        for number, reply in enumerate(replies):
            if reply is None:  # nearly all
                continue
            if isinstance(reply, list):
                marks[writes[number].user] = int(reply[0])
                replies[number] = None
            elif reply == REPLACED:
                metrics.UNREADABLE_KEYS.labels(self._kind).inc()
        self._fence.raise_unknown(marks)
        return replies

    def _write(self, policy: WritePolicy, writes: Sequence[GuardedWrite], now_s: int) -> list[Any]:
        known = self._fence.find_until_ms([write.user for write in writes])
        if self._client.spans_slots:
            return self._run(policy, writes, known, now_s, fenced=True)
        if policy.user_index:
            pairs = zip(writes, known, strict=True)
            entries = [(write.user, write.entry) for write, known_ms in pairs if write.ts_ms > known_ms]
            policy.user_index.add(entries, policy.ttl_s, now_s)
        replies = self._run(policy, writes, known, now_s, fenced=False)
        return self._undo_fenced(policy, writes, known, replies)

    def _run(
        self, policy: WritePolicy, writes: Sequence[GuardedWrite], known: Sequence[int], now_s: int, *, fenced: bool
    ) -> list[Any]:
        """The replies of the script, of which one call has many writes."""
        size = self._client.script_items_max if fenced else 1
        calls = [
            self._build_call(policy, writes[begin : begin + size], known[begin : begin + size], now_s, fenced)
            for begin in range(0, len(writes), size)
        ]
        replies = list[Any]()
        for *chunk_replies, replaced_indexes in self._client.run_script(WRITE, calls):
            replies += chunk_replies
            metrics.UNREADABLE_KEYS.labels("index").inc(replaced_indexes)
        return replies

    def _build_call(
        self, policy: WritePolicy, chunk: Sequence[GuardedWrite], known: Sequence[int], now_s: int, fenced: bool
    ) -> tuple[list[str], list[Any]]:
        keys, values, users, times_ms, entries, sources_ms, unreadable = map(list, zip(*chunk, strict=True))
        index = policy.user_index
        members = index.members(users, entries) if index else [""] * len(chunk)
        columns: list[Sequence[Any]] = [values, members]
        is_plain = max(known) < 0 and not any(unreadable)
        if not is_plain or policy.mode is Mode.NEWEST:
            columns.append(sources_ms)
        if not is_plain:
            columns += [known, times_ms, unreadable]
        if fenced:
            keys += [*self._fence.mark_keys(users), *(index.keys(users) if index else keys)]
        common = [len(chunk), now_s, EXPIRY_MARGIN_S, policy.ttl_s, policy.mode, len(columns)]
        return keys, [*common, *chain.from_iterable(zip(*columns, strict=True))]

    def _undo_fenced(
        self, policy: WritePolicy, writes: Sequence[GuardedWrite], known: Sequence[int], replies: list[Any]
    ) -> list[Any]:
        """Delete what was written although a mark forbids it, and reply so."""
        marks = self._client.pipeline([("MGET", self._fence.mark_key(write.user)) for write in writes])
        for number, (write, known_ms, (mark,)) in enumerate(zip(writes, known, marks, strict=True)):
            until_ms = int(mark) if mark is not None and mark.isdigit() else -1
            if until_ms <= known_ms:
                continue
            is_written = (
                replies[number] != KEPT if policy.mode is not Mode.FIRST else replies[number] in (None, REPLACED)
            )
            if is_written and write.ts_ms > known_ms:
                self._client.pipeline([("DEL", write.key)])
                if policy.user_index:
                    policy.user_index.remove(write.user, [write.entry])
            replies[number] = [mark]
        return replies
