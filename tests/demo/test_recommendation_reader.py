"""The recommendation reader reads the lists that workers cache."""

from collections.abc import Iterator

import pytest
import redis

from contract.messages import ListedItem, PlacementKeys, Recommendations, RecommendedItem, ShopList
from contract.settings.placements import PlacementSettings
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


def write_shop_list(caches: AnswerCache, key: str, *items: str) -> None:
    listed = tuple(ListedItem(item_id=item, score=1.0, why="together") for item in items)
    caches.write_shop_lists({key: ShopList(items=listed, computed_ms=0)})


def test_a_placement_is_filled_list_by_list_without_its_own_items(
    caches: AnswerCache, reader: RecommendationReader
) -> None:
    # given
    placements = PlacementSettings().by_name()
    caches.write_placements(
        {name: PlacementKeys(length=4, keys=placement.keys) for name, placement in placements.items()}
    )
    caches.write([make_answer(LIST, make_recommendations("u-17", "mug", "pot"))])
    caches.write_popular({"": ["hat", "tie"]}, now_ms=0)
    write_shop_list(caches, "trending", "pot", "cup", "tie", "lamp")
    write_shop_list(caches, "similar:mug", "cup", "bowl")
    write_shop_list(caches, "together:mug", "pot", "tea", "jar")
    write_shop_list(caches, "together:a%3A1", "ink", "mug", "pen")
    # then
    assert reader.read_placement("home", "u-17") == ("mug", "pot", "cup", "tie")
    assert reader.read_placement("home") == ("pot", "cup", "tie", "lamp")
    assert reader.read_placement("product", items=["mug"]) == ("cup", "bowl", "pot", "tea")
    # and the items of a cart take turns
    assert reader.read_placement("cart", items=["mug", "a:1"]) == ("pot", "ink", "tea", "jar")
    assert reader.read_placement("cart") == ("pot", "cup", "tie", "lamp")
    assert reader.read_placement("unknown") == ()


def test_a_placement_that_no_worker_has_written_shows_nothing(reader: RecommendationReader) -> None:
    assert reader.read_placement("home", "u-17") == ()
