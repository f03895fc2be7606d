"""An index from users to the keys of their answers in Redis, so that they can be deleted for erased users.

Keys of answers are named by events, and an erasure must not scan the server. So written answers are listed in sorted
sets, one for each bucket of users, with the time at which each expires. Neither the keys nor the members depend on a
setting: an erasure finds what was written under any former one.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from contract.hashing import BUCKETS, bucket_of, buckets_of, hash_texts
from contract.redis_keys import escape_id, escape_ids
from contract.units import HOUR_MS
from worker.ops import metrics
from worker.redis.client import RedisClient, WrongType

PAGE_SIZE: Final = 5_000
EXPIRY_MARGIN_S: Final = HOUR_MS // 1000  # entries outlive their answers: clocks differ
FORMER_SPANS: Final = 8  # of the sets of the former release, each with the answers of one eighth of their time to live


class UserKeyIndex:
    """The answers of one kind, as pairs of a user and an answer's id.

    `former_ttls_s`: the times to live for which sets in the names of the former release are read, too.
    """

    def __init__(
        self,
        *,
        client: RedisClient,
        prefix: str,
        former_ttls_s: Iterable[int] = (),
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """`prefix`: of the keys of these sets."""
        self._client = client
        self._prefix = prefix
        self._keys = [f"{prefix}{bucket}" for bucket in range(BUCKETS)]
        self._former_spans_s = sorted({-(-ttl_s // FORMER_SPANS) for ttl_s in former_ttls_s})
        self._clock_s = clock_s

    def key(self, user: str) -> str:
        """The set that lists a user's answers."""
        return self._keys[bucket_of(f"user:{user}")]

    def keys(self, users: Iterable[str]) -> list[str]:
        """`key` of each."""
        return [self._keys[bucket] for bucket in buckets_of(hash_texts([f"user:{user}" for user in users])).tolist()]

    @staticmethod
    def member(user: str, ident: str) -> str:
        return f"{escape_id(user)}:{ident}"

    @staticmethod
    def members(users: Sequence[str], idents: Sequence[str]) -> list[str]:
        """`member` of each pair."""
        return [f"{user}:{ident}" for user, ident in zip(escape_ids(users), idents, strict=True)]

    def add(self, entries: Iterable[tuple[str, str]], ttl_s: int, now_s: int) -> None:
        """List pairs of a user and an id, of answers that live for `ttl_s`; only for where no script can do it."""
        members = defaultdict[str, list[Any]](list)
        for user, ident in entries:
            members[self.key(user)] += (now_s + ttl_s, self.member(user, ident))
        commands = list[tuple[Any, ...]]()
        for key, key_members in members.items():
            commands += [
                ("ZADD", key, "GT", *key_members),
                ("ZREMRANGEBYSCORE", key, "-inf", f"({now_s - EXPIRY_MARGIN_S}"),
                ("EXPIRE", key, ttl_s + EXPIRY_MARGIN_S, "NX"),
                ("EXPIRE", key, ttl_s + EXPIRY_MARGIN_S, "GT"),
            ]
        self._query(commands)

    def find(self, user: str) -> set[str]:
        """The ids of all answers of a user that may still exist."""
        idents = set(self._scan("ZSCAN", self.key(user), user, step=2))
        for key in self._former_keys(user):
            idents.update(self._scan("SSCAN", key, user, step=1))
        return idents

    def remove(self, user: str, idents: Iterable[str]) -> None:
        """Remove answers of a user, which are deleted."""
        members = [self.member(user, ident) for ident in idents]
        if members:
            self._query(
                [("ZREM", self.key(user), *members), *(("SREM", key, *members) for key in self._former_keys(user))]
            )

    def _scan(self, command: str, key: str, user: str, step: int) -> Iterator[str]:
        prefix = f"{escape_id(user)}:"
        cursor, pattern = b"0", re.sub(r"([*?\[\]\\^])", r"\\\1", prefix) + "*"
        while True:
            ((cursor, page),) = self._query([(command, key, cursor, "MATCH", pattern, "COUNT", PAGE_SIZE)])
            yield from (member.decode().removeprefix(prefix) for member in page[::step])
            if cursor == b"0":
                return

    def _query(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """The replies; a key of another type is deleted: it lists nothing."""
        while True:
            try:
                return self._client.pipeline(commands)
            except WrongType as error:
                expected = "zset" if error.key.removeprefix(self._prefix).isdigit() else "set"
                metrics.UNREADABLE_KEYS.labels("index").inc(self._client.delete_other_type(error.key, expected))

    def _former_keys(self, user: str) -> list[str]:
        """The sets of the former release that may list a user's answers: one for each span of time."""
        bucket, now_s = bucket_of(f"user:{user}"), int(self._clock_s())
        return [
            f"{self._prefix}{bucket}:{span * span_s}"
            for span_s in self._former_spans_s
            for span in range(now_s // span_s - FORMER_SPANS - 1, now_s // span_s + 2)
        ]
