"""Answers cached in Redis for readers in any language, and popular items. Every key has a time to live."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

import msgspec

from contract.messages import PlacementKeys, ShopList, to_json
from contract.redis_keys import POPULAR, escape_user_id
from contract.settings.worker import ListSettings
from worker.records.answers import ANSWER_KINDS, Answer, AnswerKind, CachePolicy, kinds_among
from worker.redis.client import RedisClient
from worker.state.erasure_fence import ErasureFence, UnknownErasure
from worker.state.guarded_writer import GuardedWrite, GuardedWriter, Mode, WritePolicy
from worker.state.user_key_index import UserKeyIndex


class Source(msgspec.Struct):
    """The event time that a cached answer reflects."""

    source_ms: int


NO_RULES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({})
DECODE_SOURCE: Final = msgspec.json.Decoder(Source).decode


class AnswerCache:
    """Writes answers of the kinds that have a `CachePolicy`. A crash may lose an entry; the next answer writes it,
    and answers by the clock are given again.

    `kinds`: those whose entries this worker deletes for erased users. `former_client`: of the server that has the
    entries written before the caches got a server of their own.
    """

    def __init__(
        self,
        *,
        client: RedisClient,
        prefix: str,
        lists: ListSettings,
        kinds: Iterable[AnswerKind] = ANSWER_KINDS,
        former_client: RedisClient | None = None,
        fence: ErasureFence | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self.client, self._prefix, self._lists = client, prefix, lists
        self._clients = [client, *([former_client] if former_client not in (None, client) else [])]
        self._fence = fence or ErasureFence(prefix=prefix)
        self._writer = GuardedWriter(client=client, fence=self._fence, kind="cache")
        self._clock_s = clock_s
        self._policies = [kind.cache for kind in kinds if kind.cache]
        self._indexes: dict[tuple[RedisClient, str], UserKeyIndex] = {}

    def write(self, answers: Sequence[Answer]) -> None:
        """Cache the answers that are cached at all, except those that their users' erasures cover.

        Raises `UnknownErasure` after all others are written, or `Unavailable`; then it may be called again.
        """
        unknown: UnknownErasure | None = None
        for kind in kinds_among(answers):
            if kind.cache:
                try:
                    self._write_kind(kind.cache, [answer for answer in answers if answer.kind is kind])
                except UnknownErasure as error:
                    unknown = error
        if unknown:
            raise unknown

    def _write_kind(self, policy: CachePolicy, answers: Iterable[Answer]) -> None:
        writes = list[GuardedWrite]()
        for answer in answers:
            scored, message = answer.scored, answer.message
            entry_id = policy.entry_id(message) if policy.entry_id else ""
            writes.append(
                GuardedWrite(
                    key=self._key(policy, scored.user_id, entry_id),
                    value=answer.encode_message(),
                    user=scored.user_id,
                    ts_ms=scored.ts_ms,
                    entry=entry_id,
                    source_ms=message.source_ms if policy.keeps_newer else 0,
                )
            )
        mode = Mode.NEWEST if policy.keeps_newer else Mode.LATEST
        index = self._index(self.client, policy) if policy.index_key else None
        self._writer.write(WritePolicy(policy.ttl_s(self._lists), mode, index), writes, int(self._clock_s()))
        if policy.observe_age_s:
            now_s = self._clock_s()
            for write in writes:
                policy.observe_age_s(max(0.0, now_s - write.source_ms / 1000))

    def read_source_ms(self, kind: AnswerKind, users: Sequence[str]) -> dict[str, int]:
        """The `source_ms` of the answers of a kind with one entry a user; nothing for users without a readable one."""
        policy = kind.cache
        assert policy is not None
        # MGET gives nothing for a key of another type, where GET would fail.
        values = self.client.pipeline([("MGET", self._key(policy, user)) for user in users]) if users else []
        source_ms = dict[str, int]()
        for user, (value,) in zip(users, values, strict=True):
            with suppress(msgspec.MsgspecError, TypeError):
                source_ms[user] = DECODE_SOURCE(value).source_ms
        return source_ms

    def delete_users(self, until_ms: Mapping[str, int]) -> None:
        """Delete the entries of these users (by id), and keep late ones out from now on."""
        if not self._policies:
            return
        ttl_s = max(policy.ttl_s(self._lists) for policy in self._policies)
        for client in self._clients:
            self._fence.mark(client, until_ms, ttl_s)
            for user in until_ms:
                for policy in self._policies:
                    self._delete_user(client, policy, user)

    def _delete_user(self, client: RedisClient, policy: CachePolicy, user: str) -> None:
        if not policy.index_key:
            client.pipeline([("DEL", self._key(policy, user))])
            return
        index = self._index(client, policy)
        if entry_ids := index.find(user):
            client.pipeline([("DEL", self._key(policy, user, entry_id)) for entry_id in entry_ids])
            index.remove(user, entry_ids)

    def write_popular(
        self,
        popular: Mapping[str, Sequence[str]],
        now_ms: int,
        rules: Mapping[str, Mapping[str, str]] = NO_RULES,
    ) -> None:
        """Write popular items by category ('' for all of them): the list of users without one. Empty: delete it.

        `rules`: by category the names of the list rules that put an item where it is.
        """
        commands = list[tuple[Any, ...]]()
        for category, items in popular.items():
            key = f"{self._prefix}rec:{POPULAR}" + (f":{category}" if category else "")
            document = {"items": items, "computed_ms": now_ms}
            payload = to_json(document | {"rules": rules[category]} if category in rules else document)
            commands.append(("SET", key, payload, "EX", self._lists.ttl_s) if items else ("DEL", key))
        if commands:
            self.client.pipeline(commands)

    def write_shop_lists(self, lists: Mapping[str, ShopList | None]) -> None:
        """Write lists of no user by key, without the shop's prefix; None: delete it. Raises `Unavailable`."""
        commands = [
            ("SET", self._prefix + key, to_json(shop_list), "EX", self._lists.ttl_s)
            if shop_list
            else ("DEL", self._prefix + key)
            for key, shop_list in lists.items()
        ]
        if commands:
            self.client.pipeline(commands)

    def write_placements(self, placements: Mapping[str, PlacementKeys]) -> None:
        """Write where readers find the lists of each placement, by its name."""
        self.client.pipeline([("SET", f"{self._prefix}placements", to_json(dict(placements)), "EX", self._lists.ttl_s)])

    def key(self, answer: Answer) -> str:
        """The key at which an answer is cached; its kind must have a `CachePolicy`."""
        policy = answer.kind.cache
        assert policy is not None
        return self._key(policy, answer.scored.user_id, policy.entry_id(answer.message) if policy.entry_id else "")

    def _key(self, policy: CachePolicy, user_id: str, entry_id: str = "") -> str:
        return f"{self._prefix}{policy.key}:{escape_user_id(user_id)}" + (f":{entry_id}" if policy.entry_id else "")

    def _index(self, client: RedisClient, policy: CachePolicy) -> UserKeyIndex:
        if (client, policy.index_key) not in self._indexes:
            self._indexes[client, policy.index_key] = UserKeyIndex(
                client=client,
                prefix=f"{self._prefix}{policy.index_key}:",
                former_ttls_s=[policy.ttl_s(self._lists)],
                clock_s=self._clock_s,
            )
        return self._indexes[client, policy.index_key]
