"""Marks of erased users in Redis, which keep late writes of their answers out.

A worker may be stopped for any time between computing an answer and writing it, while its partitions move and an
erasure is carried out and confirmed. So a worker that deletes a user's answers sets a mark first, and every script that
writes an answer reads the mark of its user: see `worker.state.guarded_writer`.

    erased:{hash of the user}    string    the time up to which the user is erased, in epoch milliseconds
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from contract.errors import StaleState
from contract.hashing import digest_all
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.units import DAY_MS
from worker.ops import metrics
from worker.redis.client import RedisClient

log = logging.getLogger(__name__)
# Longer than answers live and than a stopped process is left alone.
MARK_TTL_MIN_S: Final = 30 * DAY_MS // 1000
UNKNOWN_MAX_S: Final = 10.0  # in which a worker should have read an erasure that others carry out
HASH_BYTES: Final = 16
# KEYS: the mark. ARGV: its time, its time to live. A mark never goes back.
MARK: Final = """
local held = redis.pcall('GET', KEYS[1])
local until_ms = type(held) == 'string' and tonumber(held) or -1
if until_ms < tonumber(ARGV[1]) then return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return redis.call('EXPIRE', KEYS[1], ARGV[2])
"""


class UnknownErasure(StaleState):
    """Answers of a user were not written, since others carry out an erasure that this worker has not read yet."""


class ErasureFence:
    """What this worker knows of erasures, compared with the marks that it meets.

    `erasures`: those that it has read.
    """

    def __init__(
        self, *, prefix: str, erasures: Erasures = NO_ERASURES, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.erasures = erasures
        self._prefix = prefix
        self._clock_s = clock_s
        self._first_met_s: dict[tuple[str, int], float] = {}
        self._accepted: dict[str, int] = {}

    def mark_key(self, user: str) -> str:
        """The key of a user's mark; a hash, since it outlives everything else of the user."""
        (key,) = self.mark_keys([user])
        return key

    def mark_keys(self, users: Iterable[str]) -> list[str]:
        """`mark_key` of each, without the cost of a call for each."""
        start = f"{self._prefix}erased:"
        return [start + digest for digest in digest_all(map(str.encode, users), HASH_BYTES)]

    def mark(self, client: RedisClient, until_ms: Mapping[str, int], ttl_s: int) -> None:
        """Mark these users (by id) on a server where answers live for at most `ttl_s`; before these are deleted."""
        calls = [([self.mark_key(user)], [ms, max(ttl_s, MARK_TTL_MIN_S)]) for user, ms in until_ms.items()]
        if calls:
            client.run_script(MARK, calls)

    def find_until_ms(self, users: Sequence[str]) -> list[int]:
        """The time up to which this worker knows each user to be erased; -1 for none."""
        if not self.erasures and not self._accepted:
            return [-1] * len(users)
        known = self.erasures.until_ms
        return [max(known.get(f"user:{user}", -1), self._accepted.get(user, -1)) for user in users]

    def raise_unknown(self, marks: Mapping[str, int]) -> None:
        """Raise `UnknownErasure` for marks (by user) beyond what this worker knows; nothing was written for them.

        Recovery reads the erasures. One that the topic no longer holds would be waited for without an end, so after
        `UNKNOWN_MAX_S` the mark itself is taken for it: what it covers is still not written.
        """
        if not marks:
            return
        metrics.WRITES_FENCED.inc(len(marks))
        now_s = self._clock_s()
        for user, until_ms in marks.items():
            if now_s - self._first_met_s.setdefault((user, until_ms), now_s) >= UNKNOWN_MAX_S:
                self._accepted[user] = until_ms
                log.warning("Going on with an erasure that is marked in Redis and is not on the topic of erasures.")
        raise UnknownErasure(
            f"Answers should be of users whose erasures this worker has read. Found {len(marks)} with a later one."
        )
