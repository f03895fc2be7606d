"""Caches: lists that never go backwards, popular items, rankings; all with a time to live."""

from collections.abc import Iterator

import msgspec
import pytest

from contract.messages import Ranking, Recommendations, read_recommendations
from contract.settings import ListSettings
from worker.redis.client import RedisClient
from worker.state.answer_cache import AnswerCache


def make_recommendations(user: str, source_ms: int, computed_ms: int = 0) -> Recommendations:
    return Recommendations(
        user_id=user,
        recommendation_id=f"r{source_ms}",
        items=(),
        model_version="",
        computed_ms=computed_ms,
        source_ms=source_ms,
    )


def make_ranking(query: str, user: str = "u") -> Ranking:
    return Ranking(event_id="s", user_id=user, query=query, items=("a",), relevance=(0.5,), model_version="v")


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


@pytest.fixture
def caches(client: RedisClient) -> AnswerCache:
    return AnswerCache(client=client, prefix="shop:", lists=ListSettings(ttl_s=60))


def read_cached_list(client: RedisClient, user: str) -> Recommendations:
    (value,) = client.pipeline([("GET", f"shop:rec:{user}")])
    return read_recommendations(value)


@pytest.mark.parametrize(
    ("source_ms", "stands"), [(1_700_000_000_000, 1), (1_700_000_000_001, 1), (1_699_999_999_999, 0)]
)
def test_a_list_is_replaced_by_one_as_new_or_newer_and_by_no_older_one(
    caches: AnswerCache, client: RedisClient, source_ms: int, stands: int
) -> None:
    # given
    caches.write([make_recommendations("u", 1_700_000_000_000)], [])
    # when
    caches.write([make_recommendations("u", source_ms, computed_ms=1)], [])
    # then
    assert read_cached_list(client, "u").computed_ms == stands


def test_one_list_that_stays_keeps_no_other_from_being_written(caches: AnswerCache, client: RedisClient) -> None:
    # given
    caches.write([make_recommendations("b", 10)], [])
    # when
    caches.write([make_recommendations("a", 5), make_recommendations("b", 5), make_recommendations("c", 5)], [])
    # then
    assert [read_cached_list(client, user).source_ms for user in "abc"] == [5, 10, 5]


@pytest.mark.parametrize("foreign", [b"", b"no json", b"[]", b"7", b'{"source_ms": "soon"}', b'{"source_ms": null}'])
def test_what_is_no_list_is_replaced(caches: AnswerCache, client: RedisClient, foreign: bytes) -> None:
    # given
    client.pipeline([("SET", "shop:rec:u", foreign)])
    # when
    caches.write([make_recommendations("u", 5)], [])
    # then
    assert read_cached_list(client, "u").source_ms == 5


def test_popular_items_are_kept_of_all_and_by_category(caches: AnswerCache, client: RedisClient) -> None:
    # when
    caches.write_popular({"": ["a", "b"], "home & garden": ["b"]}, now_ms=7)
    caches.write_popular({}, now_ms=8)
    # then
    values = client.pipeline([("GET", "shop:rec:popular"), ("GET", "shop:rec:popular:home & garden")])
    assert [msgspec.json.decode(value) for value in values] == [
        {"items": ["a", "b"], "computed_ms": 7},
        {"items": ["b"], "computed_ms": 7},
    ]


def test_a_ranking_is_found_whatever_case_and_spaces_the_query_has(caches: AnswerCache, client: RedisClient) -> None:
    # when
    caches.write([], [make_ranking("Red  shoes")])
    # then
    assert client.pipeline([("GET", caches.search_key(make_ranking("red shoes ")))])[0] is not None
    assert client.pipeline([("GET", caches.search_key(make_ranking("red shirts")))])[0] is None


def test_nothing_stays_for_ever(caches: AnswerCache, client: RedisClient) -> None:
    # when
    caches.write([make_recommendations("u", 5)], [make_ranking("red")])
    caches.write_popular({"": ["a"], "c": ["a"]}, now_ms=7)
    # then
    (keys,) = client.pipeline([("KEYS", "*")])
    assert len(keys) == 5
    assert all(ttl_s > 0 for ttl_s in client.pipeline([("TTL", key) for key in keys]))


def test_a_person_s_lists_and_rankings_are_forgotten_and_nobody_else_s(
    caches: AnswerCache, client: RedisClient
) -> None:
    # given
    caches.write(
        [make_recommendations("u1", 5), make_recommendations("u11", 5)],
        [make_ranking("red", "u1"), make_ranking("blue", "u1"), make_ranking("red", "u11")],
    )
    # when
    caches.delete_users(["u1", "nobody"])
    # then
    keys = [f"shop:rec:{user}" for user in ("u1", "u11")]
    keys += [
        caches.search_key(one)
        for one in (make_ranking("red", "u1"), make_ranking("blue", "u1"), make_ranking("red", "u11"))
    ]
    assert client.pipeline([("EXISTS", key) for key in keys]) == [0, 1, 0, 0, 1]
    assert not [key for key in client.pipeline([("KEYS", "*")])[0] if b":u1:" in key]
