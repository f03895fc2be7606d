"""People count once for an item, in memory and in Redis: whatever order, batches, repetitions and stores of visits."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import pytest
from msgspec.structs import replace

from contract.events.model import Click, Erasure, Event, Order
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.erasures import Erasures
from contract.units import DAY_MS, HOUR_MS
from tests.worker.events import NOW_MS, make_click, make_order
from worker.people.redis_store import TTL_MS, RedisPeopleStore
from worker.people.samples import SAMPLE_MAX, InMemoryPeopleStore, PeopleStore
from worker.people.visits import BUYERS, PEOPLE
from worker.redis.client import RedisClient

OpenStore: TypeAlias = Callable[[], PeopleStore]
SALT: Final = 1
DAY: Final = DAY_MS


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


@pytest.fixture(params=["memory", "redis"])
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    """Opens stores of one shop: a second one in memory is the first one."""
    if request.param == "memory":
        store = InMemoryPeopleStore(SALT)
        return lambda: store
    client: RedisClient = request.getfixturevalue("client")
    client.pipeline([("SET", "shop:people:salt", SALT)])

    def open_redis_store() -> PeopleStore:
        redis_store = RedisPeopleStore(client=client, prefix="shop:")
        redis_store.agree()
        return redis_store

    return open_redis_store


def add(store: PeopleStore, *events: Event, erasures: Erasures | None = None) -> None:
    arrivals = [Arrival(f"{'orders' if isinstance(e, Order) else 'clicks'}/0", n, e) for n, e in enumerate(events)]
    store.add(to_updates(arrivals, (), erasures or Erasures()))


def weigh(
    store: PeopleStore, *items: str, sample: int = PEOPLE, now_ms: int = NOW_MS, half_life_ms: int = DAY
) -> list[float]:
    weights: list[float] = store.read(sample, items).weigh(now_ms, half_life_ms).round(3).tolist()
    return weights


def click(item: str, user: str, ts_ms: int = NOW_MS) -> Click:
    return make_click(f"{item}{user}{ts_ms}", item, user=user, ts_ms=ts_ms)


def test_one_person_counts_once_however_often_an_item_is_clicked(open_store: OpenStore) -> None:
    store = open_store()
    for _ in range(3):
        add(store, *[click("i", "bot", NOW_MS - n) for n in range(500)])

    assert weigh(store, "i") == [1.0]


def test_a_hundred_people_are_a_hundred_people(open_store: OpenStore) -> None:
    store = open_store()
    add(store, *[click("i", f"u{n % 100}") for n in range(1_000)])

    assert weigh(store, "i", "other") == [100.0, 0.0]


def test_a_person_weighs_by_the_latest_visit_in_event_time(open_store: OpenStore) -> None:
    # given a visit that comes late
    store = open_store()
    add(store, click("i", "u", NOW_MS - DAY))
    add(store, click("i", "u", NOW_MS - 3 * DAY))
    # then
    assert weigh(store, "i") == [0.5]
    assert weigh(store, "i", half_life_ms=6 * HOUR_MS) == [0.062]
    # and a visit after `now_ms` counts as one of then
    assert weigh(store, "i", now_ms=NOW_MS - 9 * DAY) == [1.0]


def test_buyers_are_people_and_counted_apart(open_store: OpenStore) -> None:
    store = open_store()
    add(store, click("i", "u"), make_order("o1", "i", "i", user="u"), make_order("o2", "i", "j", user="v"))

    assert weigh(store, "i", "j") == [2.0, 1.0]
    assert weigh(store, "i", "j", sample=BUYERS) == [2.0, 1.0]


def test_guests_count_by_address_and_not_at_all_without(open_store: OpenStore) -> None:
    store = open_store()
    guests = [replace(click("i", ""), event_id=f"g{n}", ip=f"192.0.2.{n % 3}", device_id=f"d{n}") for n in range(30)]
    add(store, *guests, *[replace(click("i", ""), event_id=f"n{n}", device_id=f"d{n}") for n in range(30)])

    assert weigh(store, "i") == [3.0]


def test_a_guest_with_an_id_of_its_own_for_each_click_counts_by_address_too(open_store: OpenStore) -> None:
    store = open_store()
    add(store, *[replace(click("i", f"guest:s{n}"), ip="192.0.2.1") for n in range(50)])
    add(store, *[click("j", f"guest:s{n}") for n in range(50)])

    assert weigh(store, "i", "j") == [1.0, 0.0]


def test_what_an_erasure_covers_does_not_count(open_store: OpenStore) -> None:
    store, erasures = open_store(), Erasures()
    erasures.add(Erasure(event_id="e", ts_ms=NOW_MS, user_id="gone"))
    add(store, click("i", "gone"), click("i", "stays"), click("j", "gone", NOW_MS + 1_000), erasures=erasures)

    assert weigh(store, "i", "j", now_ms=NOW_MS + 1_000) == [1.0, 1.0]


def test_many_people_are_estimated_within_a_few_standard_deviations(open_store: OpenStore) -> None:
    store = open_store()
    items = [f"i{n}" for n in range(20)]
    add(store, *[click(item, f"u{n}", NOW_MS - n * DAY // 2_000) for item in items for n in range(2_000)])

    expected = sum(2.0 ** -(n / 2_000) for n in range(2_000))
    weights = np.array(weigh(store, *items))
    assert np.abs(weights / expected - 1).max() < 0.35
    assert abs(weights.mean() / expected - 1) < 0.08


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_is_the_same_however_the_log_is_cut_ordered_and_repeated(open_store: OpenStore, seed: int) -> None:
    # given visits of many people, who come back
    rng = np.random.default_rng(seed)
    visits = [
        click(f"i{rng.integers(3)}", f"u{rng.integers(400)}", NOW_MS - int(rng.integers(10 * DAY)))
        for _ in range(2_000)
    ]
    reference = InMemoryPeopleStore(SALT)
    add(reference, *visits)
    # when two workers add them in another order, in batches, some of them twice
    workers: Sequence[PeopleStore] = (open_store(), open_store())
    order = rng.permutation(len(visits)).tolist()
    for begin in range(0, len(order), 150):
        for worker in workers[: 1 + begin % 2]:
            add(worker, *[visits[n] for n in order[begin : begin + 150 + int(rng.integers(100))]])
    # then
    items = ["i0", "i1", "i2"]
    expected, actual = reference.read(PEOPLE, items), workers[0].read(PEOPLE, items)
    pairs = [set(zip(s.item.tolist(), s.code.tolist(), s.rank.tolist(), strict=True)) for s in (expected, actual)]
    assert len(pairs[0]) == 3 * SAMPLE_MAX
    assert pairs[0] == pairs[1]


def test_nobody_weighs_more_by_an_id_that_samples_prefer_under_another_salt() -> None:
    # given the people whose codes are the smallest of 20,000 under one salt
    chosen = InMemoryPeopleStore(1)
    add(chosen, *[click("i", f"u{n}") for n in range(20_000)])
    best = set(chosen.read(PEOPLE, ["i"]).code.tolist())
    people = [n for n in range(20_000) if code_of(n, 1) in best]
    # when they visit an item of a shop with another salt
    store = InMemoryPeopleStore(2)
    add(store, *[click("i", f"u{n}") for n in people], *[click("i", f"v{n}") for n in range(100)])
    # then
    assert 150 < weigh(store, "i")[0] < 350


def code_of(number: int, salt: int) -> int:
    store = InMemoryPeopleStore(salt)
    add(store, click("i", f"u{number}"))
    return int(store.read(PEOPLE, ["i"]).code[0])


@pytest.mark.parametrize("item", ["ü:{%}", "gid://shop/1", "people"])
def test_any_item_has_a_sample_in_the_slot_of_its_profile(client: RedisClient, item: str) -> None:
    store = RedisPeopleStore(client=client, prefix="shop:")
    add(store, click(item, "u"))

    assert weigh(store, item) == [1.0]
    (keys,) = client.scan("shop:people:{")
    assert len(keys) == 1
    (ttl_ms,) = client.pipeline([("PTTL", keys[0])])
    assert 0.99 * TTL_MS < ttl_ms <= TTL_MS


def test_keys_of_another_type_are_replaced_and_what_is_no_visit_is_left_out(client: RedisClient) -> None:
    # given
    store = RedisPeopleStore(client=client, prefix="shop:")
    add(store, click("i", "u"), click("j", "u"))
    keys = sorted(key for page in client.scan("shop:people:{") for key in page)
    client.pipeline([("SET", keys[0], "x"), ("ZADD", keys[1], 5, "text", 7, -3, "inf", 4)])
    # when they are read, and written again
    assert sorted(weigh(store, "i", "j")) == [0.0, 1.0]
    add(store, click("i", "v"), click("j", "v"))
    # then
    assert sorted(weigh(store, "i", "j")) == [1.0, 2.0]


def test_workers_agree_on_a_salt_again_after_redis_lost_it(client: RedisClient) -> None:
    # given
    first, second = (RedisPeopleStore(client=client, prefix="shop:") for _ in range(2))
    first.agree()
    second.agree()
    add(first, click("i", "u"))
    add(second, click("i", "u"))
    assert weigh(first, "i") == [1.0]
    # when it is lost, or spoiled
    for command in (("FLUSHALL",), ("SET", "shop:people:salt", "no number"), ("LPUSH", "shop:people:salt", 1)):
        client.pipeline([("DEL", "shop:people:salt"), command])
        second.agree()
        second.agree()
        third = RedisPeopleStore(client=client, prefix="shop:")
        third.agree()
        for store in (first, second, third):
            add(store, click("i", "u"))
        # then
        assert weigh(first, "i") == [1.0]
