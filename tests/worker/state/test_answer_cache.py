"""Cached answers: lists never go backwards, and every key has a time to live."""

from collections.abc import Iterator

import msgspec
import pytest

from contract.messages import Ranking, Recommendations, read_recommendations
from contract.settings.worker import ListSettings
from devservers.embedded import EmbeddedValkey
from tests.metrics import assert_increases
from tests.worker.answers import make_answer
from worker.ops import metrics
from worker.records.answers import DECISION, LIST, RANKING, Answer
from worker.redis.client import RedisClient
from worker.state.answer_cache import AnswerCache


def make_list(user: str, source_ms: int, computed_ms: int = 0) -> Answer:
    recommendations = Recommendations(
        user_id=user,
        recommendation_id=f"r{source_ms}",
        items=(),
        model_version="",
        computed_ms=computed_ms,
        source_ms=source_ms,
    )
    return make_answer(LIST, recommendations)


def make_ranking(query: str, user: str = "u") -> Answer:
    ranking = Ranking(event_id="s", user_id=user, query=query, items=("a",), relevance=(0.5,), model_version="v")
    return make_answer(RANKING, ranking)


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


@pytest.fixture
def cache(client: RedisClient) -> AnswerCache:
    return AnswerCache(client=client, prefix="shop:", lists=ListSettings(ttl_s=60))


def read_cached_list(client: RedisClient, user: str) -> Recommendations:
    (value,) = client.pipeline([("GET", f"shop:rec:{user}")])
    return read_recommendations(value)


def test_the_list_of_a_user_called_popular_is_not_the_popular_list(cache: AnswerCache, client: RedisClient) -> None:
    # given
    cache.write_popular({"": ["bought-by-all"]}, 1_700_000_000_000)

    # when
    cache.write([make_list("popular", 1_700_000_000_000)])

    # then
    (popular,) = client.pipeline([("GET", "shop:rec:popular")])
    assert b"bought-by-all" in popular
    assert read_cached_list(client, "%70opular").user_id == "popular"


@pytest.mark.parametrize(
    ("source_ms", "stored_ms"), [(1_700_000_000_000, 1), (1_700_000_000_001, 1), (1_699_999_999_999, 0)]
)
def test_a_list_is_replaced_by_a_newer_or_equally_new_one_only(
    cache: AnswerCache, client: RedisClient, source_ms: int, stored_ms: int
) -> None:
    # given
    cache.write([make_list("u", 1_700_000_000_000)])
    # when
    cache.write([make_list("u", source_ms, computed_ms=1)])
    # then
    assert read_cached_list(client, "u").computed_ms == stored_ms


def test_a_list_that_is_not_replaced_keeps_no_other_from_being_written(cache: AnswerCache, client: RedisClient) -> None:
    # given
    cache.write([make_list("b", 10)])
    # when
    cache.write([make_list("a", 5), make_list("b", 5), make_list("c", 5)])
    # then
    assert [read_cached_list(client, user).source_ms for user in "abc"] == [5, 10, 5]


@pytest.mark.parametrize("foreign", [b"", b"no json", b"[]", b"7", b'{"source_ms": "soon"}', b'{"source_ms": null}'])
def test_a_value_that_is_no_list_is_replaced(cache: AnswerCache, client: RedisClient, foreign: bytes) -> None:
    # given
    client.pipeline([("SET", "shop:rec:u", foreign)])
    # when
    cache.write([make_list("u", 5)])
    # then
    assert read_cached_list(client, "u").source_ms == 5


def test_popular_items_are_stored_for_all_items_and_by_category(cache: AnswerCache, client: RedisClient) -> None:
    # when
    cache.write_popular({"": ["a", "b"], "home & garden": ["b"]}, now_ms=7)
    cache.write_popular({}, now_ms=8)
    # then
    values = client.pipeline([("GET", "shop:rec:popular"), ("GET", "shop:rec:popular:home & garden")])
    assert [msgspec.json.decode(value) for value in values] == [
        {"items": ["a", "b"], "computed_ms": 7},
        {"items": ["b"], "computed_ms": 7},
    ]


def test_a_ranking_is_found_by_its_query_in_any_case_and_spacing(cache: AnswerCache, client: RedisClient) -> None:
    # when
    cache.write([make_ranking("Red  shoes")])
    # then
    assert client.pipeline([("GET", cache.key(make_ranking("red shoes ")))])[0] is not None
    assert client.pipeline([("GET", cache.key(make_ranking("red shirts")))])[0] is None


def test_every_key_has_a_time_to_live(cache: AnswerCache, client: RedisClient) -> None:
    # when
    cache.write([make_list("u", 5), make_ranking("red")])
    cache.write_popular({"": ["a"], "c": ["a"]}, now_ms=7)
    # then
    (keys,) = client.pipeline([("KEYS", "*")])
    assert len(keys) == 5
    assert all(ttl_s > 0 for ttl_s in client.pipeline([("TTL", key) for key in keys]))


def test_the_entries_of_an_erased_user_are_deleted_and_no_others(cache: AnswerCache, client: RedisClient) -> None:
    # given
    answers = [make_list("u1", 5), make_ranking("red", "u1"), make_ranking("blue", "u1")]
    others = [make_list("u11", 5), make_ranking("red", "u11")]
    cache.write([*answers, *others])
    # when
    cache.delete_users({"u1": 5, "unknown": 5})
    # then
    assert client.pipeline([("EXISTS", cache.key(answer)) for answer in [*answers, *others]]) == [0, 0, 0, 1, 1]
    assert not [key for key in client.pipeline([("KEYS", "*")])[0] if b":u1:" in key]


def test_a_lane_deletes_no_entries_of_another_lane(cache: AnswerCache, client: RedisClient) -> None:
    # given
    answer = make_list("u1", 5)
    cache.write([answer])
    # when
    AnswerCache(client=client, prefix="shop:", lists=ListSettings(), kinds=(DECISION,)).delete_users({"u1": 5})
    # then
    assert client.pipeline([("EXISTS", cache.key(answer))]) == [1]


@pytest.mark.parametrize("spoil", [("HSET", "a", "b"), ("SET", "nonsense"), ("LPUSH", "x")])
def test_an_unreadable_entry_is_replaced(cache: AnswerCache, client: RedisClient, spoil: tuple[str, ...]) -> None:
    # given
    answers = [make_list("u", 5), make_ranking("red")]
    client.pipeline([(spoil[0], cache.key(answer), *spoil[1:]) for answer in answers])
    client.pipeline([("HSET", "shop:rec:popular", "a", "b")])
    # when
    with assert_increases(metrics.UNREADABLE_KEYS.labels("cache")):
        cache.write(answers)
    cache.write_popular({"": ["a"]}, now_ms=7)
    # then
    assert read_cached_list(client, "u").source_ms == 5
    assert client.pipeline([("TYPE", cache.key(answers[1])), ("TYPE", "shop:rec:popular")]) == [b"string"] * 2


def test_entries_from_before_the_caches_got_their_own_server_are_deleted_too(
    client: RedisClient, valkey: EmbeddedValkey
) -> None:
    # given
    valkey.flush()
    cache_client, answers = RedisClient(url=valkey.url, timeout_s=20), [make_list("u1", 5), make_ranking("red", "u1")]
    AnswerCache(client=client, prefix="shop:", lists=ListSettings()).write(answers)
    cache = AnswerCache(client=cache_client, prefix="shop:", lists=ListSettings(), former_client=client)
    cache.write(answers)
    # when
    cache.delete_users({"u1": 5})
    # then
    for server in (client, cache_client):
        assert server.pipeline([("EXISTS", cache.key(answer)) for answer in answers]) == [0, 0]
    cache_client.close()
