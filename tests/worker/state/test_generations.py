"""Generations of the state: which one serves whom, who may build, and what is left when nobody needs it."""

from collections.abc import Iterator
from typing import Final

import pytest

from contract.errors import BadProfile, StaleState
from contract.hashing import BUCKETS, bucket_of
from contract.profiles.record import new_slice
from worker.redis.client import RedisClient
from worker.state.generations import FIRST, Generations, LeaseLost, generation_prefix
from worker.state.profile_store import RedisProfileStore, open_profile_store

USER: Final = "user:u"
SLICE: Final = bytes(new_slice().tobytes())
EVERYWHERE: Final = {bucket: {"orders/0": 7} for bucket in range(BUCKETS)}


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    made = RedisClient(url=redis_url, timeout_s=20)
    yield made
    made.close()


@pytest.fixture
def generations(client: RedisClient) -> Generations:
    return Generations(client=client, prefix="shop:")


def fill_generation(client: RedisClient, name: str) -> None:
    RedisProfileStore(client=client, prefix=generation_prefix("shop:", name)).merge(
        {USER: {"orders/0": SLICE}}, {}, EVERYWHERE
    )


def find_keys(client: RedisClient, beginning: str = "shop:") -> set[str]:
    return {key for page in client.scan(beginning) for key in page}


def begin_generation(generations: Generations) -> str:
    name = generations.begin_build()
    assert name is not None
    return name


def expire_lease(client: RedisClient) -> None:
    client.pipeline([("HSET", "shop:generations", "until", 0)])


def test_a_reader_is_told_that_another_generation_serves_and_goes_over(
    client: RedisClient, generations: Generations
) -> None:
    # given
    fill_generation(client, FIRST)
    profiles = open_profile_store(client, "shop:")
    profiles.refresh_generation()
    assert list(profiles.read([USER, "user:v"])) == [{"orders/0": SLICE}, {}]
    # when
    name = begin_generation(generations)
    generations.switch(name, FIRST)
    # then
    for ask in (lambda: profiles.read([USER]), lambda: profiles.read_offsets(["orders/0"])):
        with pytest.raises(StaleState, match=f"Found that `{name}` does"):
            ask()
    profiles.refresh_generation()
    assert list(profiles.read([USER])) == [{}]
    assert profiles.read_offsets(["orders/0"])[3] == {}


def test_the_late_merge_of_one_who_is_in_the_former_generation_is_refused(
    client: RedisClient, generations: Generations
) -> None:
    # given
    fill_generation(client, FIRST)
    zombie, bucket = open_profile_store(client, "shop:"), bucket_of(USER)
    zombie.refresh_generation()
    # when
    generations.switch(begin_generation(generations), FIRST)
    generations.fence(FIRST)
    # then
    with pytest.raises(StaleState):
        zombie.merge({USER: {"orders/0": SLICE}}, EVERYWHERE, {bucket: {"orders/0": 9}})
    assert not any("merged" in key for key in find_keys(client))


def test_one_builds_at_a_time_until_it_is_taken_for_dead(client: RedisClient, generations: Generations) -> None:
    # given
    first = begin_generation(generations)
    assert generations.begin_build() is None
    generations.renew_lease(first)
    # when the first one is not heard of for longer than its lease, and another one begins
    expire_lease(client)
    second = begin_generation(generations)
    # then
    assert second != first
    with pytest.raises(LeaseLost):
        generations.renew_lease(first)
    with pytest.raises(LeaseLost):
        generations.switch(first, FIRST)
    generations.end_build(first)
    generations.renew_lease(second)
    assert generations.read_serving() == FIRST


def test_a_build_goes_on_after_its_lease_where_nobody_else_began(client: RedisClient, generations: Generations) -> None:
    name = begin_generation(generations)
    expire_lease(client)
    generations.renew_lease(name)
    assert generations.begin_build() is None


def test_a_switch_that_is_told_twice_is_one(generations: Generations) -> None:
    name = begin_generation(generations)
    generations.switch(name, FIRST)
    generations.switch(name, FIRST)
    assert generations.read_serving() == name


def test_a_switch_over_another_generation_than_was_found_is_refused(generations: Generations) -> None:
    # given a build that began while the first one served, and was overtaken by a whole other build
    generations.open()
    name = begin_generation(generations)
    # then
    with pytest.raises(LeaseLost):
        generations.switch(name, "g9")
    assert generations.read_serving() == FIRST


def test_what_serves_nobody_is_collected_and_nothing_else(client: RedisClient, generations: Generations) -> None:
    # given the state that serves, what a dead build left, one that is being built, and keys of others
    generations.open()
    dead = begin_generation(generations)
    expire_lease(client)
    alive = begin_generation(generations)
    for name in (FIRST, dead, alive):
        fill_generation(client, name)
    RedisProfileStore(client=client, prefix=generation_prefix("shop:", dead)).write_log_starts({"orders/0": 3})
    others = [
        "shop:rec:g1:profile:{3}",
        "shop:decision:o-1",
        "shop:g1:other",
        "shop:profile-like",
        "shopping:g1:begins",
    ]
    client.pipeline([("SET", key, "x") for key in others])
    before = find_keys(client, "shop")
    # when
    count = generations.delete_unused()
    # then
    assert {key for key in before if key.startswith(f"shop:{dead}:")} - {"shop:g1:other"} == before - find_keys(
        client, "shop"
    )
    assert count == BUCKETS + 2
    # and when the one that was built serves
    generations.switch(alive, FIRST)
    generations.delete_unused()
    left = {key for key in find_keys(client) if ":profile:{" in key}
    assert left == {f"shop:{alive}:profile:{{{bucket_of(USER)}}}:{USER}", "shop:rec:g1:profile:{3}"}


def test_before_anybody_said_what_serves_the_first_generation_is_kept(
    client: RedisClient, generations: Generations
) -> None:
    fill_generation(client, FIRST)
    assert generations.delete_unused() == 0


def test_each_layout_has_its_own_generation_until_it_is_retired(client: RedisClient) -> None:
    # given the state of a release that serves
    former, latter = (Generations(client=client, prefix="shop:", layout=layout) for layout in (111, 222))
    assert former.open() == FIRST
    fill_generation(client, FIRST)
    # then the next release does not mistake it for its own
    with pytest.raises(BadProfile, match=r"should have layout 222.*python -m worker rebuild"):
        latter.open()
    # and when that has built one
    name = begin_generation(latter)
    fill_generation(client, name)
    latter.switch(name, FIRST)
    latter.end_build(name)
    latter.fence(FIRST)
    latter.delete_unused()
    # then both serve
    assert (former.open(), latter.open()) == (FIRST, name)
    assert len([key for key in find_keys(client) if "merged" in key]) == 2 * BUCKETS
    # and when the former is retired
    assert latter.delete_other_layouts() == [111]
    assert latter.delete_unused() == BUCKETS + 1
    assert latter.open() == name
