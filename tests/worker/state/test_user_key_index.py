"""The index of answers by user: an answer is found for as long as it may exist."""

from collections.abc import Iterator

import pytest

from tests.metrics import assert_increases
from worker.ops import metrics
from worker.redis.client import RedisClient
from worker.state.user_key_index import EXPIRY_MARGIN_S, FORMER_SPANS, UserKeyIndex

TTL_S = 800


class ManualClock:
    """A clock that only advances by hand."""

    now_s = 1_700_000_000

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def index(client: RedisClient, clock: ManualClock) -> UserKeyIndex:
    return UserKeyIndex(client=client, prefix="shop:decided:", former_ttls_s=[TTL_S], clock_s=clock)


def test_the_answers_of_a_user_are_found_and_no_others(index: UserKeyIndex) -> None:
    # given more users than buckets, so that some share one, and users whose ids look like patterns
    users = ["*", "u*", "u?", "[u]", "ü", *(f"u{n}" for n in range(200))]
    # when
    index.add([(user, f"o-{user}-{n}") for user in users if user != "ü" for n in range(2)], TTL_S, ManualClock.now_s)
    # then
    assert {user: index.find(user) for user in users} == {
        user: {f"o-{user}-{n}" for n in range(2)} if user != "ü" else set() for user in users
    }


@pytest.mark.parametrize("ttls_s", [(10 * TTL_S, TTL_S), (TTL_S, 10 * TTL_S)])
def test_a_set_lives_as_long_as_the_longest_of_its_answers(
    client: RedisClient, index: UserKeyIndex, ttls_s: tuple[int, int]
) -> None:
    for number, ttl_s in enumerate(ttls_s):
        index.add([("u1", f"o{number}")], ttl_s, ManualClock.now_s)

    (remaining_s,) = client.pipeline([("TTL", index.key("u1"))])
    assert 10 * TTL_S < remaining_s <= 10 * TTL_S + EXPIRY_MARGIN_S
    assert index.find("u1") == {"o0", "o1"}


def test_expired_entries_leave_the_set(index: UserKeyIndex, clock: ManualClock) -> None:
    # given
    index.add([("u1", "o1")], TTL_S, clock.now_s)
    # when
    index.add([("u1", "o2")], TTL_S, clock.now_s + TTL_S + EXPIRY_MARGIN_S)
    assert index.find("u1") == {"o1", "o2"}
    index.add([("u1", "o3")], TTL_S, clock.now_s + TTL_S + EXPIRY_MARGIN_S + 1)
    # then
    assert index.find("u1") == {"o2", "o3"}


def test_answers_listed_by_the_former_release_are_found_and_removed(
    client: RedisClient, index: UserKeyIndex, clock: ManualClock
) -> None:
    # given its sets, one for each eighth of the time to live
    bucket = index.key("u1").rpartition(":")[2]
    span_s = TTL_S // FORMER_SPANS
    for age in range(FORMER_SPANS + 1):
        since_s = clock.now_s // span_s * span_s - age * span_s
        client.pipeline([("SADD", f"shop:decided:{bucket}:{since_s}", f"u1:o{age}", f"u11:o{age}")])
    # when
    answer_ids = index.find("u1")
    index.remove("u1", answer_ids)
    # then
    assert answer_ids == {f"o{age}" for age in range(FORMER_SPANS + 1)}
    assert index.find("u1") == set()
    (keys,) = client.pipeline([("KEYS", "shop:decided:*")])
    assert len(keys) == FORMER_SPANS + 1


def test_a_removed_answer_is_not_found(index: UserKeyIndex) -> None:
    index.add([("u1", "o1"), ("u1", "o2"), ("u2", "o1")], TTL_S, ManualClock.now_s)

    index.remove("u1", ["o1"])
    index.remove("u2", [])

    assert (index.find("u1"), index.find("u2")) == ({"o2"}, {"o1"})


def test_a_set_of_another_type_lists_nothing_and_is_replaced(client: RedisClient, index: UserKeyIndex) -> None:
    # given
    client.pipeline([("SET", index.key("u1"), "x")])
    # then
    with assert_increases(metrics.UNREADABLE_KEYS.labels("index")):
        assert index.find("u1") == set()
    # and
    client.pipeline([("HSET", index.key("u1"), "a", "b")])
    index.remove("u1", ["o1"])
    client.pipeline([("LPUSH", index.key("u1"), "a")])
    index.add([("u1", "o1")], TTL_S, ManualClock.now_s)
    assert index.find("u1") == {"o1"}
