"""Traces: whatever was noted of a user is found for as long as the answer itself may be there."""

from collections.abc import Iterator

import pytest

from worker.redis.client import RedisClient
from worker.state.user_key_index import SPANS, UserKeyIndex

TTL_S = 800


class ManualClock:
    """Stands still unless told."""

    now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    made = RedisClient(url=redis_url, timeout_s=20)
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def traces(client: RedisClient, clock: ManualClock) -> UserKeyIndex:
    return UserKeyIndex(client=client, prefix="shop:decided:", ttl_s=TTL_S, clock_s=clock)


def add_traces(client: RedisClient, traces: UserKeyIndex, *events: tuple[str, str]) -> None:
    client.pipeline(traces.add_commands(events))


def test_each_user_s_are_found_and_nobody_else_s(client: RedisClient, traces: UserKeyIndex) -> None:
    # given users of one bucket, too, as there are more of them than buckets; and one whose id a pattern would read
    users = ["*", "u*", "u?", "ü", *(f"u{n}" for n in range(200))]
    # when
    add_traces(client, traces, *((user, f"o-{user}-{n}") for user in users if user != "ü" for n in range(2)))
    # then
    assert {user: traces.find(user) for user in users} == {
        user: {f"o-{user}-{n}" for n in range(2)} if user != "ü" else set() for user in users
    }


def test_they_are_found_to_the_end_of_their_life_and_the_sets_stay_as_long(
    client: RedisClient, traces: UserKeyIndex, clock: ManualClock
) -> None:
    # given
    add_traces(client, traces, ("u1", "o1"))
    (keys,) = client.pipeline([("KEYS", "*")])
    assert all(TTL_S < ttl_s <= TTL_S + 2 * TTL_S / SPANS for ttl_s in client.pipeline([("TTL", key) for key in keys]))
    # when
    clock.now_s += TTL_S
    add_traces(client, traces, ("u1", "o2"))
    # then
    assert traces.find("u1") == {"o1", "o2"}
    clock.now_s += 2 * TTL_S / SPANS
    assert traces.find("u1") == {"o2"}


def test_one_of_a_worker_whose_clock_is_ahead_is_found(
    client: RedisClient, traces: UserKeyIndex, clock: ManualClock
) -> None:
    clock.now_s += TTL_S / SPANS
    add_traces(client, traces, ("u1", "o1"))
    clock.now_s -= TTL_S / SPANS

    assert traces.find("u1") == {"o1"}


def test_what_is_dropped_is_noted_no_more(client: RedisClient, traces: UserKeyIndex) -> None:
    add_traces(client, traces, ("u1", "o1"), ("u1", "o2"), ("u2", "o1"))

    traces.remove("u1", ["o1"])
    traces.remove("u2", [])

    assert (traces.find("u1"), traces.find("u2")) == ({"o2"}, {"o1"})


def test_a_batch_of_many_answers_takes_a_command_for_each_bucket_and_none_for_each_answer(traces: UserKeyIndex) -> None:
    assert len(traces.add_commands((f"u{n}", f"o{n}") for n in range(10_000))) == 2 * 64
    assert traces.add_commands([]) == []
