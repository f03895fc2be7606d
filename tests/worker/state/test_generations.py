"""Generations of the state: which one serves, which process may build, and which keys are deleted."""

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
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


@pytest.fixture
def generations(client: RedisClient) -> Generations:
    return Generations(client=client, prefix="shop:")


def fill_generation(client: RedisClient, name: str) -> None:
    RedisProfileStore(client=client, prefix=generation_prefix("shop:", name)).merge(
        {USER: {"orders/0": SLICE}}, {}, EVERYWHERE
    )


def find_keys(client: RedisClient, key_prefix: str = "shop:") -> set[str]:
    return {key for page in client.scan(key_prefix) for key in page}


def begin_generation(generations: Generations) -> str:
    name = generations.begin_build()
    assert name is not None
    return name


def expire_lease(client: RedisClient) -> None:
    client.pipeline([("HSET", "shop:generations", "until", 0)])


def test_a_reader_of_a_former_generation_is_refused_and_switches(client: RedisClient, generations: Generations) -> None:
    # given
    fill_generation(client, FIRST)
    profiles = open_profile_store(client, "shop:")
    profiles.refresh_generation()
    assert list(profiles.read([USER, "user:v"])) == [{"orders/0": SLICE}, {}]
    # when
    name = begin_generation(generations)
    generations.switch(name, FIRST)
    # then
    for read in (lambda: profiles.read([USER]), lambda: profiles.read_offsets(["orders/0"])):
        with pytest.raises(StaleState, match=f"Found that `{name}` does"):
            read()
    profiles.refresh_generation()
    assert list(profiles.read([USER])) == [{}]
    assert profiles.read_offsets(["orders/0"])[3] == {}


def test_a_late_merge_into_the_former_generation_is_refused(client: RedisClient, generations: Generations) -> None:
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


def test_one_build_runs_at_a_time_until_its_lease_ends(client: RedisClient, generations: Generations) -> None:
    # given
    first = begin_generation(generations)
    assert generations.begin_build() is None
    generations.renew_lease(first)
    # when the lease of the first one expires, and another one begins
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


def test_a_build_goes_on_after_its_lease_without_another_build(client: RedisClient, generations: Generations) -> None:
    name = begin_generation(generations)
    expire_lease(client)
    generations.renew_lease(name)
    assert generations.begin_build() is None


def test_a_repeated_switch_has_no_effect(generations: Generations) -> None:
    name = begin_generation(generations)
    generations.switch(name, FIRST)
    generations.switch(name, FIRST)
    assert generations.read_serving() == name


def test_a_switch_from_another_serving_generation_is_refused(generations: Generations) -> None:
    # given a build that began while the first generation served, overtaken by another build
    generations.open()
    name = begin_generation(generations)
    # then
    with pytest.raises(LeaseLost):
        generations.switch(name, "g9")
    assert generations.read_serving() == FIRST


def test_unused_generations_and_no_other_keys_are_deleted(client: RedisClient, generations: Generations) -> None:
    # given a serving generation, one of a crashed build, one that is being built, and other keys
    generations.open()
    crashed = begin_generation(generations)
    expire_lease(client)
    alive = begin_generation(generations)
    for name in (FIRST, crashed, alive):
        fill_generation(client, name)
    RedisProfileStore(client=client, prefix=generation_prefix("shop:", crashed)).write_log_starts({"orders/0": 3})
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
    assert {key for key in before if key.startswith(f"shop:{crashed}:")} - {"shop:g1:other"} == before - find_keys(
        client, "shop"
    )
    assert count == BUCKETS + 2
    # and when the built one serves
    generations.switch(alive, FIRST)
    generations.delete_unused()
    remaining = {key for key in find_keys(client) if ":profile:{" in key}
    assert remaining == {f"shop:{alive}:profile:{{{bucket_of(USER)}}}:{USER}", "shop:rec:g1:profile:{3}"}


def test_the_first_generation_is_kept_before_any_is_recorded(client: RedisClient, generations: Generations) -> None:
    fill_generation(client, FIRST)
    assert generations.delete_unused() == 0


def test_each_layout_has_its_own_generation_until_retired(client: RedisClient) -> None:
    # given the serving state of a release
    former, latter = (Generations(client=client, prefix="shop:", layout=layout) for layout in (111, 222))
    assert former.open() == FIRST
    fill_generation(client, FIRST)
    # then the next release does not take it for its own
    with pytest.raises(BadProfile, match=r"should have layout 222.*python -m worker rebuild"):
        latter.open()
    # and when that release has built its own
    name = begin_generation(latter)
    fill_generation(client, name)
    latter.switch(name, FIRST)
    latter.end_build(name)
    latter.fence(FIRST)
    latter.delete_unused()
    # then both serve
    assert (former.open(), latter.open()) == (FIRST, name)
    assert len([key for key in find_keys(client) if "merged" in key]) == 2 * BUCKETS
    # and when the former layout is retired
    assert latter.delete_other_layouts() == [111]
    assert latter.delete_unused() == BUCKETS + 1
    assert latter.open() == name
