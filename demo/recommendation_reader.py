"""Reading recommendations as a web shop does: one round trip to Redis, and popular items for whom no list is known.

It needs redis-py and nothing of shopstream, so that it can be copied; docs/reading.md says what to do with a page.
"""

import json
from typing import Any, NamedTuple

import redis


class Page(NamedTuple):
    """Items to show, best first. `recommendation_id` goes into the impressions and clicks of this page.

    It is None where the items are popular ones: of what nobody chose for this user nothing can be learned.
    """

    items: tuple[str, ...]
    recommendation_id: str | None


EMPTY_PAGE = Page((), None)


class RecommendationReader:
    """Reads from the Redis that workers cache lists in; `prefix` is theirs (`redis.prefix`)."""

    def __init__(self, client: redis.Redis, prefix: str = "shop:") -> None:
        self._client, self._prefix = client, prefix

    def read(self, user_id: str, category: str | None = None) -> Page:
        """The user's own list, else what is popular in the category where they are, else what is popular.

        Raises `redis.RedisError` where Redis does not answer; a shop then shows what it would show without us.
        """
        keys = [f"rec:{user_id}", *([f"rec:popular:{category}"] if category else []), "rec:popular"]
        values: Any = self._client.mget([self._prefix + key for key in keys])
        for page in map(parse_page, values):
            if page.items:
                return page
        return EMPTY_PAGE


def parse_page(value: bytes | None) -> Page:
    """A cached list of a user, whose items are objects, or of popular items, which are ids."""
    if value is None:
        return EMPTY_PAGE
    content = json.loads(value)
    items = tuple(item if isinstance(item, str) else str(item["item_id"]) for item in content["items"])
    return Page(items, content.get("recommendation_id"))
