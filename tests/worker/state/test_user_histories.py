"""The latest items of users are read from Redis, whatever their id; what is unreadable is named and repaired."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from contract.events.model import Event
from contract.hashing import bucket_of, item_hash
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.histories import CLICK, ORDER, history_key, user_from_history_key
from contract.profiles.store import fold
from testkit.oracle.feeder import ProfileFeeder
from tests.worker.events import NOW_MS, make_click, make_order
from worker.redis.client import RedisClient
from worker.state.profile_repair import ProfileRepair, UnreadableProfile
from worker.state.profile_store import TTL_MS, RedisProfileStore, UnreadableProfiles
from worker.state.user_histories import UserHistories


@pytest.fixture
def profiles(redis_url: str) -> Iterator[RedisProfileStore]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield RedisProfileStore(client=client, prefix="shop:")
    client.close()


def make_arrivals(user: str) -> list[Arrival]:
    """Two clicks, and an order of two items between them."""
    events: list[Event] = [
        make_click("c1", "i1", user=user, ts_ms=NOW_MS),
        make_order("o1", "i2", "i3", "i2", user=user, ts_ms=NOW_MS + 2_000),
        make_click("c2", "i4", user=user, ts_ms=NOW_MS + 4_000),
    ]
    return [Arrival(("clicks/0", "orders/0", "clicks/0")[n], n, event) for n, event in enumerate(events)]


@pytest.mark.parametrize("user", ["u1", "ü:{%}", "popular"])
def test_the_latest_items_of_a_user_come_newest_first(profiles: RedisProfileStore, user: str) -> None:
    # given
    ProfileFeeder(profiles).feed(make_arrivals(user))
    # when
    latest = UserHistories(profiles).read(["unknown", user]).latest
    # then
    assert latest.items[1, :5].tolist() == [*map(item_hash, ("i4", "i3", "i2", "i1")), 0]
    assert latest.actions[1, :5].tolist() == [CLICK, ORDER, ORDER, CLICK, 0]
    assert latest.seen_s[1, :5].tolist() == [NOW_MS // 1_000 + n for n in (4, 2, 2, 0)] + [0]
    assert not latest.items[0].any()
    # and the history is in the slot of the profile
    assert profiles.keys.histories([f"user:{user}"]) == [f"shop:{history_key(f'user:{user}')}"]
    assert user_from_history_key(history_key(f"user:{user}")) == f"user:{user}"


def test_a_guest_has_no_history(profiles: RedisProfileStore) -> None:
    ProfileFeeder(profiles).feed(make_arrivals(""))
    assert not [key for page in profiles.client.scan("shop:history:") for key in page]


def test_a_history_expires_like_a_profile(profiles: RedisProfileStore) -> None:
    ProfileFeeder(profiles).feed(make_arrivals("u1"))
    (ttl_ms,) = profiles.client.pipeline([("PTTL", *profiles.keys.histories(["user:u1"]))])
    assert 0.99 * TTL_MS < ttl_ms <= TTL_MS


SPOILED: Final[dict[str, list[tuple[Any, ...]]]] = {
    "text": [("DEL",), ("SET", "x")],
    "cut short": [("HSET", "clicks/0", b"short")],
    "of another layout": [("HSET", "clicks/0", bytes(17))],
}


@pytest.mark.parametrize("fault", SPOILED)
def test_an_unreadable_history_is_repaired_with_its_slice(profiles: RedisProfileStore, fault: str) -> None:
    # given
    arrivals, user = make_arrivals("u1"), "user:u1"
    ProfileFeeder(profiles).feed(arrivals[:2])
    (key,) = profiles.keys.histories([user])
    profiles.client.pipeline([(command[0], key, *command[1:]) for command in SPOILED[fault]])
    # when the next click is merged, nothing of its bucket is written
    before = profiles.read_offsets(["clicks/0"])[bucket_of(user)]
    with pytest.raises(UnreadableProfiles) as raised:
        ProfileFeeder(profiles).feed(arrivals[2:])
    assert list(raised.value.entities) == [user]
    assert profiles.read_offsets(["clicks/0"])[bucket_of(user)] == before
    with pytest.raises(UnreadableProfiles):
        UserHistories(profiles).read(["u1"])
    # then it is found and deleted with its slice and offset
    repair = ProfileRepair(profiles)
    unreadable = repair.find(raised.value.entities)
    assert unreadable == [UnreadableProfile(user, () if fault == "text" else ("clicks/0",))]
    repair.delete(unreadable)
    assert "clicks/0" not in profiles.read_offsets(["clicks/0"])[bucket_of(user)]
    # and reading the log again gives what an undisturbed pass gives
    ProfileFeeder(profiles).feed(arrivals)
    assert UserHistories(profiles).read(["u1"]).latest.items[0, :5].tolist() == [
        *map(item_hash, ("i4", "i3", "i2", "i1")),
        0,
    ]


def test_a_write_that_fails_half_way_leaves_each_history_with_its_slice(profiles: RedisProfileStore) -> None:
    # given users of one bucket, the profile of one of which is replaced by text after it was read
    users = [f"u{n}" for n in range(1_000) if bucket_of(f"user:u{n}") == 3][:5]
    arrivals = [Arrival("clicks/0", n, make_click(f"c{n}", "i1", user=user)) for n, user in enumerate(users)]
    updates = to_updates(arrivals)
    writes = fold(profiles.read(updates.entities), updates).slice_writes()
    spoiled = profiles.keys.profile(f"user:{users[2]}")
    profiles.client.pipeline([("SET", spoiled, "x")])
    # when
    with pytest.raises(Exception, match="should have the type"):
        profiles.merge(writes, {}, {3: {"clicks/0": 5}})
    # then the others have both or none, and after the repair all is folded once
    repair = ProfileRepair(profiles)
    repair.delete(repair.find([f"user:{users[2]}"]))
    ProfileFeeder(profiles).feed(arrivals)
    latest = UserHistories(profiles).read(users).latest
    assert (latest.actions > 0).sum(axis=1).tolist() == [1] * 5
