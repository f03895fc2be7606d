"""The client of a Redis Cluster, over three real servers: slots move while they are read and written."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest

from contract.errors import BadConfig, StaleState, Unavailable
from contract.hashing import BUCKETS, bucket_of
from contract.profiles.record import new_slice, profile_key
from contract.settings.servers import RedisSettings
from devservers.redis_cluster import LocalRedisCluster as Servers
from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment
from tests.worker.redis.test_client import ask_until_answered
from tests.worker.worker_lifecycle import InProcessWorker
from worker.redis.client import RedisClient
from worker.redis.cluster import RedisCluster, command_slot, connect, connect_cache, hash_slot, replace_address
from worker.state.generations import FIRST, Generations
from worker.state.profile_repair import ProfileRepair
from worker.state.profile_scan import ProfileScan
from worker.state.profile_store import RedisProfileStore, UnreadableProfiles

KEYS: Final = [f"key{n}" for n in range(200)]
PUT: Final = "redis.call('SET', KEYS[1], ARGV[1]); return ARGV[1]"
SUM: Final = "return (redis.call('GET', KEYS[1]) or 0) + (redis.call('GET', KEYS[2]) or 0)"


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as started:
        yield started


@pytest.fixture
def cluster(servers: Servers) -> Servers:
    """The servers without any key."""
    servers.flush()
    return servers


@pytest.fixture
def client(cluster: Servers) -> Iterator[RedisCluster]:
    client = RedisCluster(url=cluster.url, timeout_s=20)
    yield client
    client.close()


def other_server(cluster: Servers, slot: int) -> int:
    return (cluster.owner_of(slot) + 1) % 3


def test_replies_come_in_the_order_of_the_commands(client: RedisCluster) -> None:
    # when
    written = client.pipeline([("SET", key, n) for n, key in enumerate(KEYS)])
    # then
    assert written == [b"OK"] * len(KEYS)
    assert client.pipeline([("GET", key) for key in KEYS]) == [b"%d" % n for n in range(len(KEYS))]
    assert client.run_script(PUT, [([key], [n]) for n, key in enumerate(KEYS)]) == [b"%d" % n for n in range(len(KEYS))]
    assert client.pipeline_then([("GET", "key1"), ("GET", "key2")], ("GET", "key3")) == [b"1", b"2", b"3"]
    assert Counter(key for page in client.scan("key") for key in page) == Counter(KEYS)
    assert len({client._find_owner(hash_slot(key)) for key in KEYS}) == 3


def test_slots_are_computed_as_servers_do(cluster: Servers) -> None:
    for key in ("key", "shop:profile:{47}:user:ü", "shop:merged:{47}", "{}x", "a{b}{c}", "a{b", "}{x}"):
        assert (
            command_slot(("GET", key))
            == command_slot(("EVALSHA", "sha", 1, key))
            == cluster.execute(0, "CLUSTER KEYSLOT", key)
        )


def test_a_moved_slot_is_followed(client: RedisCluster, cluster: Servers) -> None:
    # given a client that knows the owners
    client.pipeline([("SET", key, n) for n, key in enumerate(KEYS)])
    slot = hash_slot("key7")
    for _ in range(3):
        # when it moves to a server without scripts
        cluster.migrate_slot(slot, other_server(cluster, slot))
        cluster.execute(cluster.owner_of(slot), "SCRIPT FLUSH")
        # then
        assert client.run_script(PUT, [([key], ["x"]) for key in ("key7", "key8")]) == [b"x", b"x"]
        assert client.pipeline([("GET", key) for key in KEYS[7:10]]) == [b"x", b"x", b"9"]
        assert cluster.execute(cluster.owner_of(slot), "GET", "key7") == "x"


def test_a_moving_slot_is_read_and_written_on_both_servers(
    client: RedisCluster, cluster: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a slot with half of its keys moved
    keys = [f"{{t}}{n}" for n in range(6)]
    client.pipeline([("SET", key, n) for n, key in enumerate(keys)])
    slot = hash_slot("{t}")
    target = other_server(cluster, slot)
    cluster.begin_migration(slot, target)
    cluster.migrate_keys(slot, target, keys[:3])
    # then
    assert client.pipeline([("GET", key) for key in keys]) == [b"%d" % n for n in range(6)]
    assert client.pipeline([("SET", key, "x", "NX", "GET") for key in ("{t}0", "{t}5", "{t}new")]) == [b"0", b"5", None]
    assert client.run_script(SUM, [(["{t}3", "{t}4"], []), (["{t}1", "{t}2"], [])]) == [7, 3]
    # and a script that needs keys of both is unavailable
    with pytest.raises(Unavailable, match=r"should take commands\. Found: Multiple keys"):
        client.run_script(SUM, [(["{t}2", "{t}3"], [])])

    # and when the move ends before the next attempt
    def end(_: float) -> None:
        cluster.migrate_keys(slot, target)
        cluster.end_migration(slot, target)

    monkeypatch.setattr("worker.redis.cluster.time.sleep", end)
    assert client.run_script(SUM, [(["{t}2", "{t}3"], [])]) == [5]
    assert client.pipeline([("GET", "{t}new")]) == [b"x"]


def test_one_frozen_server_makes_the_cluster_unavailable(cluster: Servers) -> None:
    # given a client with a short timeout
    client = RedisCluster(url=cluster.url, timeout_s=0.3)
    ask_until_answered(client, *(("SET", key, "x") for key in KEYS))
    # when
    cluster.servers[2].pause()
    with pytest.raises(Unavailable, match="should answer"):
        client.pipeline([("GET", key) for key in KEYS])
    cluster.servers[2].resume()
    # then no late reply is taken for an answer
    assert ask_until_answered(client, *(("SET", key, key) for key in KEYS)) == [b"OK"] * len(KEYS)
    assert ask_until_answered(client, *(("GET", key) for key in KEYS)) == [key.encode() for key in KEYS]
    client.close()


def test_other_servers_return_the_slots_when_the_first_is_frozen(cluster: Servers) -> None:
    # given
    client = RedisCluster(url=cluster.url, timeout_s=0.3)
    others = [key for key in KEYS if cluster.owner_of(hash_slot(key)) != 0]
    ask_until_answered(client, *(("SET", key, "x") for key in KEYS))
    # when
    cluster.servers[0].pause()
    with pytest.raises(Unavailable):
        client.pipeline([("GET", key) for key in KEYS])
    # then
    assert ask_until_answered(client, *(("GET", key) for key in others)) == [b"x"] * len(others)
    cluster.servers[0].resume()
    client.close()


def test_a_slot_taken_over_from_a_frozen_server_is_found(cluster: Servers) -> None:
    # given
    client = RedisCluster(url=cluster.url, timeout_s=0.3)
    key = next(key for key in KEYS if cluster.owner_of(hash_slot(key)) == 2)
    ask_until_answered(client, ("SET", key, "x"))
    # when its owner is frozen, and the others agree on another one
    cluster.servers[2].pause()
    cluster.reassign_slot(hash_slot(key), 0)
    # then
    ask_until_answered(client, ("SET", key, "y"))
    cluster.servers[2].resume()
    assert ask_until_answered(client, ("GET", key)) == [b"y"]
    client.close()


def test_every_server_of_a_cluster_is_checked_for_eviction(client: RedisCluster, cluster: Servers) -> None:
    client.check()
    cluster.execute(2, "CONFIG SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(BadConfig) as raised:
        client.check()
    cluster.execute(2, "CONFIG SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
    assert [str(cluster.servers[2].port) in error for error in raised.value.errors] == [True]


def test_a_wrong_cluster_setting_is_an_error(cluster: Servers, redis_url: str) -> None:
    with pytest.raises(BadConfig, match=r"`redis.cluster` should be true"):
        connect(RedisSettings(url=cluster.url)).pipeline([("GET", key) for key in KEYS])
    with pytest.raises(BadConfig, match=r"`redis.cluster` should be true of a Redis Cluster. Found: .*disabled"):
        connect(RedisSettings(url=redis_url, cluster=True)).pipeline([("GET", "key")])


def test_caches_have_their_own_client_only_on_another_server() -> None:
    state = connect(RedisSettings())
    assert connect_cache(RedisSettings(), state) is state
    assert type(connect_cache(RedisSettings(cache_url="redis://caches"), state)) is RedisClient
    assert type(connect_cache(RedisSettings(cache_url="redis://caches", cache_cluster=True), state)) is RedisCluster


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("redis://one:1/0", "two", "redis://two:2/0"),
        ("rediss://me:p%40ss@one:1/0?ssl_cert_reqs=none", "two", "rediss://me:p%40ss@two:2/0?ssl_cert_reqs=none"),
        ("redis://:secret@one", "::1", "redis://:secret@[::1]:2"),
    ],
)
def test_other_servers_are_reached_with_the_same_credentials(url: str, host: str, expected: str) -> None:
    assert replace_address(url, host, 2) == expected


def test_unreadable_profiles_are_repaired_by_deleting_their_keys(client: RedisCluster) -> None:
    # given profiles in several buckets, cut short
    profiles, users = RedisProfileStore(client=client, prefix="shop:"), [f"user:u{n}" for n in range(6)]
    short = bytes(new_slice().tobytes())[:-1]
    client.pipeline([("HSET", f"shop:{profile_key(user)}", "orders/3", short) for user in users])
    client.pipeline([("HSET", profiles.keys.offsets(bucket), "orders/3", 7) for bucket in range(BUCKETS)])
    # when
    with pytest.raises(UnreadableProfiles):
        profiles.read(users)
    repair = ProfileRepair(profiles)
    unreadable = repair.find(users)
    assert "redis-cli -c DEL" in repair.suggest(unreadable)
    repair.delete(unreadable)
    # then
    assert set(profiles.read(users)[0]) == set()
    assert set(range(BUCKETS)) - {b for b, offsets in profiles.read_offsets(["orders/3"]).items() if offsets} == set(
        map(bucket_of, users)
    )


def test_an_unused_generation_is_deleted_from_every_server(client: RedisCluster) -> None:
    # given a state in every bucket, and another one that is being built
    generations = Generations(client=client, prefix="shop:")
    profiles = RedisProfileStore(client=client, prefix="shop:", generations=generations)
    profiles.refresh_generation()
    slices = {f"user:u{n}": {"orders/3": bytes(new_slice().tobytes())} for n in range(99)}
    profiles.merge(slices, {}, {bucket: {"orders/3": 7} for bucket in range(BUCKETS)})
    assert sum(1 for _ in ProfileScan(profiles.client, profiles.keys).slices(lambda _: True)) == len(slices)
    name = str(generations.begin_build())
    # when
    generations.switch(name, FIRST)
    # then
    with pytest.raises(StaleState):
        profiles.read(list(slices))
    generations.fence(FIRST)
    assert generations.delete_unused() == len(slices)
    assert [key for page in client.scan("shop:") for key in page] == ["shop:generations"]


def test_a_worker_keeps_its_guarantees_during_slot_moves_and_a_flush(
    apache_kafka: KafkaBroker, cluster: Servers, topic_prefix: str, seed: int
) -> None:
    # given
    stage = WorkerEnvironment(broker=apache_kafka, redis_url=cluster.url, prefix=topic_prefix, is_cluster=True)
    sent = stage.send_orders(seed, 40)
    with InProcessWorker(stage, erases=True) as worker:
        worker.run_until(lambda: bool(worker.offsets.folded))
        # when
        for bucket in range(0, BUCKETS, 7):
            slot = hash_slot(f"{{{bucket}}}")
            cluster.migrate_slot(slot, other_server(cluster, slot))
        worker.process_all(stage.end_offsets("orders"))
        cluster.execute(1, "FLUSHALL")
        sent |= stage.send_orders(seed, 10, first=40)
        stage.send_erasure("u3", time.time_ns() // 1_000_000)
        erased = stage.end_offsets("erasures")
        worker.run_until(
            lambda: all(worker.offsets.committed.get(partition) == end for partition, end in erased.items())
        )
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)
    assert stage.find_differences("orders") == []
    profiles = stage.open_profiles()
    scan = ProfileScan(profiles.client, profiles.keys)
    assert not [key for key, slices in scan.slices(lambda entity: entity == "user:u3") if slices]
    assert len(stage.read_records("erased")) == 1
    stage.close()
