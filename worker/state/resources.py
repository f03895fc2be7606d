"""The clients and stores that a pipeline works with, and how stores are opened from settings.

A module of its own, so that `worker.erasure` and `worker.recommend` get the same ones without knowing the pipeline.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from contract.settings.reading import Settings
from worker.people.redis_store import RedisPeopleStore
from worker.records.answers import AnswerKind
from worker.redis.client import RedisClient
from worker.redis.cluster import connect, connect_cache
from worker.state.answer_cache import AnswerCache
from worker.state.claim_store import ClaimStore
from worker.state.erasure_fence import ErasureFence
from worker.state.profile_store import RedisProfileStore, open_profile_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What one worker reads and writes in Redis."""

    profiles: RedisProfileStore
    claim_store: ClaimStore
    answer_cache: AnswerCache
    fence: ErasureFence
    people: RedisPeopleStore


def open_stores(settings: Settings, kinds: Iterable[AnswerKind], client: RedisClient | None = None) -> Stores:
    """The stores of these settings; `kinds` are the kinds of answers that the worker gives."""
    redis, lists, answer_kinds = settings.redis, settings.lists, tuple(kinds)
    client, fence = client or connect(redis), ErasureFence(prefix=redis.prefix)
    return Stores(
        profiles=open_profile_store(client, redis.prefix),
        claim_store=ClaimStore(
            client=client, prefix=redis.prefix, ttl_s=lists.decision_ttl_s, kinds=answer_kinds, fence=fence
        ),
        answer_cache=AnswerCache(
            client=connect_cache(redis, client),
            prefix=redis.prefix,
            lists=lists,
            kinds=answer_kinds,
            former_client=client,
            fence=fence,
        ),
        fence=fence,
        people=RedisPeopleStore(client=client, prefix=redis.prefix),
    )
