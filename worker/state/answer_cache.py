"""Answers cached in Redis for readers in any language, and popular items. Every key has a time to live."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from contract.messages import to_json
from contract.settings.worker import ListSettings
from worker.records.answers import ANSWER_KINDS, Answer, AnswerKind, CachePolicy, kinds_among
from worker.redis.client import RedisClient
from worker.state.user_key_index import UserKeyIndex

# An entry never goes backwards: it is written only over one whose source is not newer.
PUT: Final = """
local cached = redis.call('GET', KEYS[1])
if cached then
  local ok, list = pcall(cjson.decode, cached)
  if ok and type(list) == 'table' and (tonumber(list['source_ms']) or 0) > tonumber(ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
Command = tuple[Any, ...]


class AnswerCache:
    """Writes answers of the kinds that have a `CachePolicy`. A crash may lose an entry; the next answer writes it.

    `kinds`: those whose entries this worker deletes for erased users.
    """

    def __init__(
        self, *, client: RedisClient, prefix: str, lists: ListSettings, kinds: Iterable[AnswerKind] = ANSWER_KINDS
    ) -> None:
        self.client, self._prefix, self._lists = client, prefix, lists
        self._policies = [kind.cache for kind in kinds if kind.cache]
        self._indexes: dict[str, UserKeyIndex] = {}

    def write(self, answers: Sequence[Answer]) -> None:
        """Cache the answers that are cached at all; raises `Unavailable`, and then it may be called again."""
        if not any(kind.cache for kind in kinds_among(answers)):
            return
        guarded, commands = list[tuple[list[str], Command]](), list[Command]()
        index_entries = dict[str, tuple[CachePolicy, list[tuple[str, str]]]]()
        for kind, scored, message in answers:
            if (policy := kind.cache) is None:
                continue
            entry_id = policy.entry_id(message) if policy.entry_id else ""
            key, ttl_s = self._key(policy, scored.user_id, entry_id), policy.ttl_s(self._lists)
            if policy.index_key:
                index_entries.setdefault(policy.index_key, (policy, []))[1].append((scored.user_id, entry_id))
            if policy.keeps_newer:
                guarded.append(([key], (message.source_ms, kind.encode(message), ttl_s)))
            else:
                commands.append(("SET", key, kind.encode(message), "EX", ttl_s))
        for policy, entries in index_entries.values():
            commands = [*self._index(policy).add_commands(entries), *commands]
        if commands:
            self.client.pipeline(commands)
        if guarded:
            self.client.run_script(PUT, guarded)

    def delete_users(self, users: Iterable[str]) -> None:
        """Delete the entries of these users."""
        for user in users:
            for policy in self._policies:
                if policy.index_key:
                    entry_ids = self._index(policy).find(user)
                    self._delete([self._key(policy, user, entry_id) for entry_id in entry_ids])
                    self._index(policy).remove(user, entry_ids)
                else:
                    self._delete([self._key(policy, user)])

    def write_popular(self, popular: Mapping[str, Sequence[str]], now_ms: int) -> None:
        """Write popular items by category ('' for all of them): the list of users without one. Empty: delete it."""
        commands = list[Command]()
        for category, items in popular.items():
            key = f"{self._prefix}rec:popular" + (f":{category}" if category else "")
            payload = to_json({"items": items, "computed_ms": now_ms})
            commands.append(("SET", key, payload, "EX", self._lists.ttl_s) if items else ("DEL", key))
        if commands:
            self.client.pipeline(commands)

    def key(self, answer: Answer) -> str:
        """The key at which an answer is cached; its kind must have a `CachePolicy`."""
        policy = answer.kind.cache
        assert policy is not None
        return self._key(policy, answer.scored.user_id, policy.entry_id(answer.message) if policy.entry_id else "")

    def _key(self, policy: CachePolicy, user_id: str, entry_id: str = "") -> str:
        return f"{self._prefix}{policy.key}:{user_id}" + (f":{entry_id}" if policy.entry_id else "")

    def _delete(self, keys: Sequence[str]) -> None:
        if keys:
            self.client.pipeline([("DEL", key) for key in keys])

    def _index(self, policy: CachePolicy) -> UserKeyIndex:
        if policy.index_key not in self._indexes:
            self._indexes[policy.index_key] = UserKeyIndex(
                client=self.client, prefix=f"{self._prefix}{policy.index_key}:", ttl_s=policy.ttl_s(self._lists)
            )
        return self._indexes[policy.index_key]
