"""Caches in Redis for readers in any language: lists, popular items, rankings. Always with a time to live."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from contract.features.columns import encode_text
from contract.hashing import hash_id
from contract.messages import Ranking, Recommendations, to_json
from contract.settings import ListSettings
from worker.redis.client import RedisClient
from worker.state.user_key_index import UserKeyIndex

# A cached list never goes backwards: it is written only over one whose source is not newer.
PUT: Final = """
local held = redis.call('GET', KEYS[1])
if held then
  local ok, list = pcall(cjson.decode, held)
  if ok and type(list) == 'table' and (tonumber(list['source_ms']) or 0) > tonumber(ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
SEARCH_TTL_S: Final = 3_600


class AnswerCache:
    """Writes what readers read; nothing here is needed to be exact again after a crash."""

    def __init__(self, *, client: RedisClient, prefix: str, lists: ListSettings) -> None:
        self._client, self._prefix, self._ttl_s = client, prefix, lists.ttl_s
        self._search_index = UserKeyIndex(client=client, prefix=f"{prefix}searched:", ttl_s=SEARCH_TTL_S)

    def write(self, lists: Sequence[Recommendations], rankings: Sequence[Ranking]) -> None:
        calls = [
            (
                [f"{self._prefix}rec:{recommendations.user_id}"],
                (recommendations.source_ms, to_json(recommendations), self._ttl_s),
            )
            for recommendations in lists
        ]
        if calls:
            self._client.run_script(PUT, calls)
        if rankings:
            keyed_rankings = [(ranking, self.search_key(ranking)) for ranking in rankings]
            index_commands = self._search_index.add_commands(
                (ranking.user_id, key.rpartition(":")[2]) for ranking, key in keyed_rankings
            )
            self._client.pipeline(
                [*index_commands, *(("SET", key, to_json(r), "EX", SEARCH_TTL_S) for r, key in keyed_rankings)]
            )

    def delete_users(self, users: Iterable[str]) -> None:
        """Delete the lists and rankings of these users."""
        for user in users:
            digests = self._search_index.find(user)
            keys = [f"{self._prefix}rec:{user}", *(f"{self._prefix}search:{user}:{digest}" for digest in digests)]
            self._client.pipeline([("DEL", key) for key in keys])
            self._search_index.remove(user, digests)

    def write_popular(self, popular: Mapping[str, Sequence[str]], now_ms: int) -> None:
        """The fallback for users we do not know: popular items, by category and ('') of all; none: no list."""
        commands = []
        for category, items in popular.items():
            key = f"{self._prefix}rec:popular" + (f":{category}" if category else "")
            payload = to_json({"items": items, "computed_ms": now_ms})
            commands.append(("SET", key, payload, "EX", self._ttl_s) if items else ("DEL", key))
        if commands:
            self._client.pipeline(commands)

    def search_key(self, ranking: Ranking) -> str:
        """`search:{user_id}:{digest}`: the digest is of the query's words, so that case and spaces do not matter."""
        return f"{self._prefix}search:{ranking.user_id}:{hash_id(' '.join(map(str, encode_text(ranking.query)))):016x}"
