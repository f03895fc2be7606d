"""The recommendation reader reads the lists that workers cache."""

from collections.abc import Iterator

import pytest
import redis

from contract.messages import Recommendations, RecommendedItem
from contract.settings.worker import ListSettings
from demo.recommendation_reader import EMPTY_PAGE, Page, RecommendationReader
from tests.worker.answers import make_answer
from worker.records.answers import LIST
from worker.redis.client import RedisClient
from worker.state.answer_cache import AnswerCache


@pytest.fixture
def caches(redis_url: str) -> Iterator[AnswerCache]:
    client = RedisClient(url=redis_url, timeout_s=5)
    yield AnswerCache(client=client, prefix="shop:", lists=ListSettings())
    client.close()


@pytest.fixture
def reader(redis_url: str) -> Iterator[RecommendationReader]:
    client = redis.Redis.from_url(redis_url)
    yield RecommendationReader(client)
    client.close()


def make_recommendations(user: str, *items: str) -> Recommendations:
    return Recommendations(
        user_id=user,
        recommendation_id=f"r-{user}",
        items=tuple(RecommendedItem(item_id=item, score=1.0, probability={}, why="popular") for item in items),
        model_version="",
        computed_ms=0,
        source_ms=0,
    )


def test_a_users_list_is_read_with_its_id(caches: AnswerCache, reader: RecommendationReader) -> None:
    caches.write([make_answer(LIST, make_recommendations("u-1", "b", "a"))])
    caches.write_popular({"": ["c"], "shoes": ["d"]}, 0)

    assert reader.read("u-1", "shoes") == Page(("b", "a"), "r-u-1")


def test_a_user_without_a_list_gets_popular_items_of_the_category(
    caches: AnswerCache, reader: RecommendationReader
) -> None:
    caches.write_popular({"": ["c"], "shoes": ["d"]}, 0)

    assert reader.read("u-2", "shoes") == Page(("d",), None)
    assert reader.read("u-2", "hats") == reader.read("u-2") == Page(("c",), None)


def test_popular_items_are_read_also_where_users_have_lists(caches: AnswerCache, reader: RecommendationReader) -> None:
    caches.write([make_answer(LIST, make_recommendations("", "b", "a"))])
    caches.write_popular({"": ["c"], "shoes": ["d"]}, 0)

    assert reader.read_popular() == Page(("c",), None)
    assert reader.read_popular("shoes") == Page(("d",), None)


def test_without_cached_lists_the_page_is_empty(reader: RecommendationReader) -> None:
    assert reader.read("u-3") == EMPTY_PAGE
