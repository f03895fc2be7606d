"""The index of answers by user: an answer is found for as long as it may exist."""

from collections.abc import Iterator

import pytest

from worker.redis.client import RedisClient
from worker.state.user_key_index import SPANS, UserKeyIndex

TTL_S = 800


class ManualClock:
    """A clock that only advances by hand."""

    now_s = 1_700_000_000.0

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
    return UserKeyIndex(client=client, prefix="shop:decided:", ttl_s=TTL_S, clock_s=clock)


def add_entries(client: RedisClient, index: UserKeyIndex, *entries: tuple[str, str]) -> None:
    client.pipeline(index.add_commands(entries))


def test_the_answers_of_a_user_are_found_and_no_others(client: RedisClient, index: UserKeyIndex) -> None:
    # given more users than buckets, so that some share one, and users whose ids look like patterns
    users = ["*", "u*", "u?", "ü", *(f"u{n}" for n in range(200))]
    # when
    add_entries(client, index, *((user, f"o-{user}-{n}") for user in users if user != "ü" for n in range(2)))
    # then
    assert {user: index.find(user) for user in users} == {
        user: {f"o-{user}-{n}" for n in range(2)} if user != "ü" else set() for user in users
    }


def test_an_answer_is_found_until_it_expires_and_its_set_lives_as_long(
    client: RedisClient, index: UserKeyIndex, clock: ManualClock
) -> None:
    # given
    add_entries(client, index, ("u1", "o1"))
    (keys,) = client.pipeline([("KEYS", "*")])
    assert all(TTL_S < ttl_s <= TTL_S + 2 * TTL_S / SPANS for ttl_s in client.pipeline([("TTL", key) for key in keys]))
    # when
    clock.now_s += TTL_S
    add_entries(client, index, ("u1", "o2"))
    # then
    assert index.find("u1") == {"o1", "o2"}
    clock.now_s += 2 * TTL_S / SPANS
    assert index.find("u1") == {"o2"}


def test_an_answer_of_a_worker_whose_clock_is_ahead_is_found(
    client: RedisClient, index: UserKeyIndex, clock: ManualClock
) -> None:
    clock.now_s += TTL_S / SPANS
    add_entries(client, index, ("u1", "o1"))
    clock.now_s -= TTL_S / SPANS

    assert index.find("u1") == {"o1"}


def test_a_removed_answer_is_not_found(client: RedisClient, index: UserKeyIndex) -> None:
    add_entries(client, index, ("u1", "o1"), ("u1", "o2"), ("u2", "o1"))

    index.remove("u1", ["o1"])
    index.remove("u2", [])

    assert (index.find("u1"), index.find("u2")) == ({"o2"}, {"o1"})


def test_a_batch_of_many_answers_takes_two_commands_for_each_bucket(index: UserKeyIndex) -> None:
    assert len(index.add_commands((f"u{n}", f"o{n}") for n in range(10_000))) == 2 * 64
    assert index.add_commands([]) == []
