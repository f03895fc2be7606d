"""Profiles in Redis, as far as only Redis can tell: keys, expiry, a forgotten script, names of sources.

What every store promises is proved in tests/contract/test_profile_laws.py.
"""

from collections.abc import Iterator

import pytest

from contract.errors import StaleState
from contract.hashing import BUCKETS, bucket_of
from contract.profiles.record import RECORD, new_slice, profile_key
from worker.redis.client import RedisClient
from worker.state.profile_store import TTL_MS, RedisProfileStore, source_name

USER = "user:ü"
SLICE, OTHER = (b"\x00slice\xff".ljust(RECORD.itemsize), b"other".ljust(RECORD.itemsize))
BUCKET = bucket_of(USER)


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    made = RedisClient(url=redis_url, timeout_s=20)
    yield made
    made.close()


@pytest.fixture
def profiles(client: RedisClient) -> RedisProfileStore:
    return RedisProfileStore(client=client, prefix="shop:")


def test_a_slice_and_its_position_stand_where_the_docs_say(profiles: RedisProfileStore, client: RedisClient) -> None:
    # when
    profiles.merge({USER: {"orders/3": SLICE}}, {}, {BUCKET: {"orders/3": 7}})
    # then
    assert client.pipeline([("HGETALL", f"shop:{profile_key(USER)}"), ("HGETALL", f"shop:merged:{{{BUCKET}}}")]) == [
        [b"orders/3", SLICE],
        [b"orders/3", b"7"],
    ]


def test_profiles_expire_when_nobody_writes_them_and_positions_never(
    profiles: RedisProfileStore, client: RedisClient
) -> None:
    # given
    profiles.merge({USER: {"orders/3": SLICE}}, {}, {BUCKET: {"orders/3": 1}})
    key = f"shop:{profile_key(USER)}"
    assert 0.99 * TTL_MS < client.pipeline([("PTTL", key)])[0] <= TTL_MS
    assert client.pipeline([("PTTL", f"shop:merged:{{{BUCKET}}}")]) == [-1]
    # when it is written again after some time, and after a long time
    for left, refreshed in ((0.99, False), (0.5, True)):
        client.pipeline([("PEXPIRE", key, round(TTL_MS * left))])
        at = profiles.read_offsets(["orders/3"])
        profiles.merge({USER: {"orders/3": OTHER}}, at, {BUCKET: {"orders/3": at[BUCKET]["orders/3"] + 1}})
        # then
        assert (client.pipeline([("PTTL", key)])[0] > 0.995 * TTL_MS) == refreshed


def test_a_flush_of_the_scripts_costs_neither_reads_nor_writes(
    profiles: RedisProfileStore, client: RedisClient
) -> None:
    # given
    profiles.merge({USER: {"orders/3": SLICE}}, {}, {BUCKET: {"orders/3": 1}})
    # when
    client.pipeline([("SCRIPT", "FLUSH")])
    profiles.merge({USER: {"orders/3": OTHER}}, {BUCKET: {"orders/3": 1}}, {BUCKET: {"orders/3": 2}})
    client.pipeline([("SCRIPT", "FLUSH")])
    # then
    assert list(profiles.read([USER, "user:nobody"])) == [{"orders/3": OTHER}, {}]


def test_a_flush_of_everything_is_noticed_by_the_next_write(profiles: RedisProfileStore, client: RedisClient) -> None:
    # given
    profiles.merge({}, {}, {bucket: {"orders/3": 1} for bucket in range(BUCKETS)})
    # when
    client.pipeline([("FLUSHALL",)])
    # then
    with pytest.raises(StaleState):
        profiles.merge({USER: {"orders/3": OTHER}}, {BUCKET: {"orders/3": 1}}, {BUCKET: {"orders/3": 2}})
    assert client.pipeline([("DBSIZE",)]) == [0]


def test_no_source_is_no_question(profiles: RedisProfileStore) -> None:
    assert profiles.read_offsets([]) == {bucket: {} for bucket in range(BUCKETS)}


def test_many_entities_are_read_in_the_order_asked(profiles: RedisProfileStore) -> None:
    # given
    users = [f"user:{n}" for n in range(300)]
    after = {bucket: {"orders/0": 1} for bucket in range(BUCKETS)}
    profiles.merge({user: {"orders/0": user.encode().ljust(RECORD.itemsize)} for user in users}, {}, after)
    # then
    asked = [*reversed(users), "user:nobody", users[7]]
    assert [slices.get("orders/0", b"").decode().rstrip() for slices in profiles.read(asked)] == [
        *reversed(users),
        "",
        users[7],
    ]


@pytest.mark.parametrize(
    ("topic_id", "name"),
    [(None, "orders/3"), ("", "orders/3"), ("MkTng_5-Q", "orders~MkTng_5-Q/3"), ("a/b~c=", "orders~abc/3")],
)
def test_a_source_is_named_by_its_topic_s_id_where_that_is_known(topic_id: str | None, name: str) -> None:
    assert source_name("orders", topic_id, 3) == name


def test_a_slice_that_is_refused_half_way_leaves_its_bucket_unmerged(
    profiles: RedisProfileStore, client: RedisClient
) -> None:
    # given a key that somebody has given another type
    client.pipeline([("SET", f"shop:{profile_key(USER)}", "no hash")])
    # when
    with pytest.raises(Exception, match="wrong kind of value"):
        profiles.merge({USER: {"orders/3": SLICE}}, {}, {BUCKET: {"orders/3": 7}})
    # then
    assert client.pipeline([("EXISTS", f"shop:merged:{{{BUCKET}}}")]) == [0]


def test_what_to_run_names_the_keys_of_unreadable_profiles_and_no_others(
    profiles: RedisProfileStore, client: RedisClient
) -> None:
    # given
    whole = bytes(new_slice().tobytes())
    client.pipeline([("HSET", f"shop:{profile_key(USER)}", "orders/3", whole[:-1])])
    profiles.merge({"user:v": {"orders/3": whole}}, {}, {bucket_of("user:v"): {"orders/3": 7}})
    # when
    said = profiles.suggest_repair([USER, "user:v"])
    # then
    assert f"redis-cli DEL 'shop:merged:{{{BUCKET}}}' 'shop:{profile_key(USER)}';" in said
    assert "user:v" not in said
