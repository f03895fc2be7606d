"""An index from users to the keys of their answers in Redis, so that they can be deleted for erased users.

Keys of answers are named by events, and an erasure must not scan the server. So written answers are listed in sets,
one for each bucket of users and span of time: a batch costs a command per bucket and not per answer, and an erasure
reads the sets of one bucket.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from contract.hashing import bucket_of
from worker.redis.client import RedisClient

PAGE_SIZE: Final = 5_000
SPANS: Final = 8  # into which the time to live of answers is divided


class UserKeyIndex:
    """The answers of one kind, which live for `ttl_s`, as pairs of a user and an answer's id."""

    def __init__(
        self, *, client: RedisClient, prefix: str, ttl_s: int, clock_s: Callable[[], float] = time.time
    ) -> None:
        """`prefix`: of the keys of these sets."""
        self._client = client
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._clock_s = clock_s
        self._span_s = -(-ttl_s // SPANS)

    def add_commands(self, entries: Iterable[tuple[str, str]]) -> list[tuple[Any, ...]]:
        """The commands that add pairs of a user and an id; send them with those that write the answers."""
        span = self._current_span()
        members = defaultdict[int, list[str]](list)
        for user, ident in entries:
            members[bucket_of(f"user:{user}")].append(f"{user}:{ident}")
        commands: list[tuple[Any, ...]] = []
        for bucket, bucket_members in members.items():
            key = self._set_key(bucket, span)
            commands += [("SADD", key, *bucket_members), ("EXPIRE", key, self._ttl_s + 2 * self._span_s)]
        return commands

    def find(self, user: str) -> set[str]:
        """The ids of all answers of a user that may still exist."""
        return {ident for key in self._user_set_keys(user) for ident in self._scan(key, user)}

    def remove(self, user: str, idents: Iterable[str]) -> None:
        """Remove answers of a user, which are deleted."""
        members = [f"{user}:{ident}" for ident in idents]
        if members:
            self._client.pipeline([("SREM", key, *members) for key in self._user_set_keys(user)])

    def _scan(self, key: str, user: str) -> Iterator[str]:
        cursor, pattern = b"0", user.replace("*", r"\*") + ":*"  # `*` is the only special character of patterns in ids
        while True:
            ((cursor, page),) = self._client.pipeline([("SSCAN", key, cursor, "MATCH", pattern, "COUNT", PAGE_SIZE)])
            yield from (member.decode().removeprefix(f"{user}:") for member in page)
            if cursor == b"0":
                return

    def _user_set_keys(self, user: str) -> list[str]:
        """The sets that may list a user's answers, including those of a worker whose clock is a little ahead."""
        bucket, current = bucket_of(f"user:{user}"), self._current_span()
        return [self._set_key(bucket, span) for span in range(current - SPANS - 1, current + 2)]

    def _set_key(self, bucket: int, span: int) -> str:
        return f"{self._prefix}{bucket}:{span * self._span_s}"

    def _current_span(self) -> int:
        return int(self._clock_s()) // self._span_s
