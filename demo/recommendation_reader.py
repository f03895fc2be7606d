"""Reads recommendations as a web shop does: one round trip to Redis, and popular items for users without a list.

Imports only redis-py, so that a shop can copy it; docs/reading.md explains how to use a page.
"""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import redis


class Page(NamedTuple):
    """Items to show, best first. `recommendation_id` goes into the impressions and clicks of this page.

    It is None for popular items: they were not chosen for this user, so the model cannot learn from them.
    """

    items: tuple[str, ...]
    recommendation_id: str | None


EMPTY_PAGE = Page((), None)


class RecommendationReader:
    """Reads the lists that workers cache in Redis; `prefix` is their setting `redis.prefix`."""

    def __init__(self, client: redis.Redis, prefix: str = "shop:") -> None:
        self._client, self._prefix = client, prefix

    def read(self, user_id: str, category: str | None = None) -> Page:
        """The user's list, else popular items of the category they are in, else popular items.

        Raises `redis.RedisError` if Redis does not answer; a shop should then show its default items.
        """
        return self._read_first([f"rec:{user_id}", *popular_keys(category)])

    def read_popular(self, category: str | None = None) -> Page:
        """What `read` returns for a user without a list."""
        return self._read_first(popular_keys(category))

    def _read_first(self, keys: list[str]) -> Page:
        """The first of these pages that has items."""
        values: Any = self._client.mget([self._prefix + key for key in keys])
        for page in map(parse_page, values):
            if page.items:
                return page
        return EMPTY_PAGE

    def read_placement(self, name: str, user_id: str = "", items: Sequence[str] = ()) -> tuple[str, ...]:
        """What `home`, `product` (with its item) or `cart` (with the items in it) shows; not the given items.

        Each list of the placement fills what the ones before have left; the lists of several items take turns.
        Raises `redis.RedisError` if Redis does not answer.
        """
        value: Any = self._client.get(f"{self._prefix}placements")
        placement = json.loads(value or "{}").get(name, {"length": 0, "keys": []})
        keys_by_list = [list(expand_key(key, user_id, items)) for key in placement["keys"]]
        values: Any = iter(self._client.mget([self._prefix + key for key in chain(*keys_by_list)] or [self._prefix]))
        shown = dict[str, None]()
        for keys in keys_by_list:
            pages = [parse_page(next(values)).items for _ in keys]
            shown |= dict.fromkeys(item for turn in zip_longest(*pages) for item in turn if item and item not in items)
        return tuple(shown)[: placement["length"]]


def expand_key(key: str, user_id: str, items: Iterable[str]) -> Iterable[str]:
    """The keys of one list of a placement: one for each item, one for the user, if there is one, or the key itself."""
    if "{item_id}" in key:
        return [key.replace("{item_id}", escape_id(item)) for item in items]
    if "{user_id}" in key:
        return [key.replace("{user_id}", escape_id(user_id))] if user_id else []
    return [key]


def escape_id(ident: str) -> str:
    """An id as a part of a key: see docs/keys.md."""
    return re.sub(r"[^ -~]|[%:{}]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), ident)


def popular_keys(category: str | None) -> list[str]:
    return [*([f"rec:popular:{category}"] if category else []), "rec:popular"]


def parse_page(value: bytes | None) -> Page:
    """Parse a cached list: the items of a user's list are objects, popular items are ids."""
    if value is None:
        return EMPTY_PAGE
    content = json.loads(value)
    items = tuple(item if isinstance(item, str) else str(item["item_id"]) for item in content["items"])
    return Page(items, content.get("recommendation_id"))
