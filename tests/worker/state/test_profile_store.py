"""Profiles in Redis: keys, expiry, a flushed script, pages of a scan, names of sources.

tests/contract/test_profile_laws.py has the laws of every store.
"""

from collections import Counter
from collections.abc import Iterator

import pytest

from contract.errors import StaleState
from contract.hashing import BUCKETS, bucket_of
from contract.profiles.record import LAYOUT, RECORD, new_slice, profile_key, source_family
from contract.profiles.slices import Slices
from transport.records import TopicPartition
from worker.redis.client import RedisClient, WrongType
from worker.state.profile_keys import hash_tag
from worker.state.profile_repair import ProfileRepair, UnreadableProfile
from worker.state.profile_scan import PAGE_KEYS, ProfileScan
from worker.state.profile_store import TTL_MS, RedisProfileStore, name_sources, source_name

USER = "user:ü"
LAYOUT_BYTES = LAYOUT.to_bytes(4, "little")
SLICE, OTHER = [(LAYOUT_BYTES + text).ljust(RECORD.itemsize) for text in (b"\x00slice\xff", b"other")]
BUCKET = bucket_of(USER)


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


@pytest.fixture
def profiles(client: RedisClient) -> RedisProfileStore:
    return RedisProfileStore(client=client, prefix="shop:")


def test_slices_and_merged_offsets_have_the_documented_keys(profiles: RedisProfileStore, client: RedisClient) -> None:
    # when
    profiles.merge({USER: {"orders/3": SLICE}}, {}, {BUCKET: {"orders/3": 7}})
    # then
    assert client.pipeline([("HGETALL", f"shop:{profile_key(USER)}"), ("HGETALL", f"shop:merged:{{{BUCKET}}}")]) == [
        [b"orders/3", SLICE],
        [b"orders/3", b"7"],
    ]


def test_unwritten_profiles_expire_and_merged_offsets_never(profiles: RedisProfileStore, client: RedisClient) -> None:
    # given
    profiles.merge({USER: {"orders/3": SLICE}}, {}, {BUCKET: {"orders/3": 1}})
    key = f"shop:{profile_key(USER)}"
    assert 0.99 * TTL_MS < client.pipeline([("PTTL", key)])[0] <= TTL_MS
    assert client.pipeline([("PTTL", f"shop:merged:{{{BUCKET}}}")]) == [-1]
    # when it is written again after some time, and after a long time
    for left, refreshed in ((0.99, False), (0.5, True)):
        client.pipeline([("PEXPIRE", key, round(TTL_MS * left))])
        merged = profiles.read_offsets(["orders/3"])
        after = {BUCKET: {"orders/3": merged[BUCKET]["orders/3"] + 1}}
        profiles.merge({USER: {"orders/3": OTHER}}, merged, after)
        # then
        assert (client.pipeline([("PTTL", key)])[0] > 0.995 * TTL_MS) == refreshed


def test_a_script_flush_loses_neither_reads_nor_writes(profiles: RedisProfileStore, client: RedisClient) -> None:
    # given
    profiles.merge({USER: {"orders/3": SLICE}}, {}, {BUCKET: {"orders/3": 1}})
    # when
    client.pipeline([("SCRIPT", "FLUSH")])
    profiles.merge({USER: {"orders/3": OTHER}}, {BUCKET: {"orders/3": 1}}, {BUCKET: {"orders/3": 2}})
    client.pipeline([("SCRIPT", "FLUSH")])
    # then
    assert list(profiles.read([USER, "user:unknown"])) == [{"orders/3": OTHER}, {}]


def test_a_flush_is_found_by_the_next_write(profiles: RedisProfileStore, client: RedisClient) -> None:
    # given
    profiles.merge({}, {}, {bucket: {"orders/3": 1} for bucket in range(BUCKETS)})
    # when
    client.pipeline([("FLUSHALL",)])
    # then
    with pytest.raises(StaleState):
        profiles.merge({USER: {"orders/3": OTHER}}, {BUCKET: {"orders/3": 1}}, {BUCKET: {"orders/3": 2}})
    assert client.pipeline([("DBSIZE",)]) == [0]


def test_no_sources_need_no_request(profiles: RedisProfileStore) -> None:
    assert profiles.read_offsets([]) == {bucket: {} for bucket in range(BUCKETS)}


def test_entities_are_read_in_the_requested_order(profiles: RedisProfileStore) -> None:
    # given
    users = [f"user:{n}" for n in range(300)]
    after = {bucket: {"orders/0": 1} for bucket in range(BUCKETS)}
    profiles.merge(
        {user: {"orders/0": (LAYOUT_BYTES + user.encode()).ljust(RECORD.itemsize)} for user in users}, {}, after
    )
    # then
    requested = [*reversed(users), "user:unknown", users[7]]
    assert [slices.get("orders/0", b"")[4:].decode().rstrip() for slices in profiles.read(requested)] == [
        *reversed(users),
        "",
        users[7],
    ]


@pytest.mark.parametrize(
    ("topic_id", "name"),
    [(None, "orders/3"), ("", "orders/3"), ("MkTng_5-Q", "orders~MkTng_5-Q/3"), ("a/b~c=", "orders~abc/3")],
)
def test_a_source_is_named_by_its_topic_id_if_known(topic_id: str | None, name: str) -> None:
    assert source_name("orders", topic_id, 3) == name


@pytest.mark.parametrize(("topic_id", "name"), [(None, "orders~=acme.orders/3"), ("x1", "orders~x1/3")])
def test_a_topic_that_a_map_adds_is_never_the_source_of_the_topic_of_its_kind(topic_id: str | None, name: str) -> None:
    # given both topics, with ids or without
    partitions = [TopicPartition("acme.orders", 3), TopicPartition("shop.orders", 3)]
    kinds, ids = dict.fromkeys(["acme.orders", "shop.orders"], "orders"), {"acme.orders": topic_id} if topic_id else {}
    # when
    names = name_sources(partitions, kinds, ids, {"acme.orders"})
    # then
    assert list(names.values()) == [name, "orders/3"]
    assert source_family(name) == "orders"


def test_a_merge_that_fails_half_way_leaves_its_bucket_unmerged(
    profiles: RedisProfileStore, client: RedisClient
) -> None:
    # given a key of another type
    client.pipeline([("SET", f"shop:{profile_key(USER)}", "no hash")])
    # when
    with pytest.raises(WrongType):
        profiles.merge({USER: {"orders/3": SLICE}}, {}, {BUCKET: {"orders/3": 7}})
    # then
    assert client.pipeline([("EXISTS", f"shop:merged:{{{BUCKET}}}")]) == [0]


def test_only_the_keys_of_unreadable_profiles_are_to_be_deleted(
    profiles: RedisProfileStore, client: RedisClient
) -> None:
    # given
    whole = bytes(new_slice().tobytes())
    client.pipeline([("HSET", f"shop:{profile_key(USER)}", "orders/3", whole[:-1])])
    profiles.merge({"user:v": {"orders/3": whole}}, {}, {bucket_of("user:v"): {"orders/3": 7}})
    # when
    repairer = ProfileRepair(profiles)
    unreadable = repairer.find([USER, "user:v"])
    repair = repairer.suggest(unreadable)
    # then
    assert unreadable == [UnreadableProfile(USER, ("orders/3",))]
    assert f"Unreadable profiles: 1, in buckets [{BUCKET}];" in repair
    assert "redis-cli DEL 'shop:merged:{BUCKET}' 'shop:profile:{BUCKET}:ENTITY', for a user also" in repair


def test_the_suggested_repair_names_no_entity(profiles: RedisProfileStore, client: RedisClient) -> None:
    # given
    entities = ["user:anna", "card:4929-17", "ip:203.0.113.9"]
    client.pipeline([("HSET", f"shop:{profile_key(entity)}", "orders/3", b"short") for entity in entities])
    # when
    repairer = ProfileRepair(profiles)
    repair = repairer.suggest(repairer.find(entities))
    # then
    assert "Unreadable profiles: 3," in repair
    assert not [entity for entity in entities if entity in repair or entity.partition(":")[2] in repair]


def test_a_page_of_a_scan_has_the_merged_offsets_of_its_bucket(
    profiles: RedisProfileStore, client: RedisClient
) -> None:
    # given more profiles than a page has, a key in a wrong bucket, and one without a bucket
    users = [f"user:{n}" for n in range(70 * BUCKETS)]
    after = {bucket: {"orders/0": bucket + 1} for bucket in range(BUCKETS)}
    profiles.merge({user: {"orders/0": SLICE} for user in users}, {}, after)
    client.pipeline([("HSET", f"shop:{key}", "orders/0", OTHER) for key in ("profile:{64}:user:x", "profile:stray")])
    # when
    pages = list(ProfileScan(profiles.client, profiles.keys).pages(lambda entity: entity not in ("user:0", "user:1")))
    # then
    keys = Counter(key for page in pages for key in page.profiles)
    assert keys.keys() == {*map(profile_key, users[2:]), "profile:{64}:user:x", "profile:stray"}
    for page in pages:
        tags = {hash_tag(key, "") for key in page.profiles}
        assert len(tags) == 1
        assert page.merged == after.get(int(tags.pop().strip("{}")) if "profile:stray" not in page.profiles else -1, {})


def test_a_profile_deleted_during_a_scan_is_returned_empty(profiles: RedisProfileStore, client: RedisClient) -> None:
    # given two pages of one bucket, the second of which is deleted when the first is read
    users = [user for n in range(100 * BUCKETS) if bucket_of(user := f"user:{n}") == 3]
    profiles.merge({user: {"orders/0": SLICE} for user in users}, {}, {3: {"orders/0": 1}})
    # when
    slices = dict[str, Slices]()
    for page in ProfileScan(profiles.client, profiles.keys).pages(lambda _: True):
        slices |= page.profiles
        client.pipeline([("DEL", *(f"shop:{profile_key(user)}" for user in users))])
    # then
    assert sum(map(bool, slices.values())) == min(PAGE_KEYS, len(users))
