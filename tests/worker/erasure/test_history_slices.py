"""Erasures reach the slices of a history, which have neither a log nor a worker that writes them."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from contract.events.model import Click, Erasure
from contract.hashing import BUCKETS, hash_id
from contract.history.format import HistoricEvent
from contract.history.sources import partition_of
from contract.profiles.erasures import Erasures
from devservers.redis_server import RedisServer
from testkit.oracle.profiles import ProfileOracle
from testkit.oracle.records import parse_record
from transport.records import TopicPartition
from worker.erasure.link_sweeper import LinkSweeper, assign_historic
from worker.erasure.slice_eraser import SliceEraser
from worker.maintenance.history_folder import HistoryFolder
from worker.redis.client import RedisClient
from worker.state.history_registry import HistoryRegistry
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import RedisProfileStore

START_MS: Final = 1_700_000_000_000
PARTITIONS: Final = 2


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisProfileStore]:
    client = RedisClient(url=redis_server.url, timeout_s=20)
    yield RedisProfileStore(client=client, prefix=f"{uuid.uuid4().hex}:")
    client.close()
    redis_server.flush()


def make_click(n: int, user: str) -> HistoricEvent:
    event = Click(event_id=f"c{n}", ts_ms=START_MS + 1000 * n, user_id=user, item_id="i1", device_id="d1")
    return HistoricEvent("clicks", event)


def bootstrap(store: RedisProfileStore, erasures: Erasures | None = None) -> HistoryFolder:
    """A state with a history in which u1 clicks first, then u2, then u1."""
    more: dict[str, Any] = {"erasures": erasures} if erasures else {}
    folder = HistoryFolder(profiles=store, digest="0" * 32, partitions={"clicks": PARTITIONS}, **more)
    folder.fold(folder.to_arrivals([make_click(n, user) for n, user in enumerate(["u1", "u2", "u1"])]))
    folder.finish()
    HistoryRegistry(store).write(folder.counts)
    return folder


def erase(store: RedisProfileStore, until_ms: Mapping[str, int]) -> None:
    eraser = SliceEraser(profiles=store, offsets_at=lambda partitions, ms: {})
    assert not eraser.erase(until_ms, {}, {}, include_ambiguous=True)


def read_slices(store: RedisProfileStore, entity: str) -> dict[str, bytes]:
    return dict(store.read([entity])[0])


def test_an_erasure_deletes_the_slices_of_its_user_and_of_nobody_else(store: RedisProfileStore) -> None:
    bootstrap(store)
    erase(store, {"user:u1": START_MS + 10_000})
    assert read_slices(store, "user:u1") == {}
    assert len(read_slices(store, "user:u2")) == 1


def test_an_erasure_that_the_bootstrap_knew_deletes_nothing_later(store: RedisProfileStore) -> None:
    # given a user who was erased after the first click, and clicked again
    erasures = Erasures([Erasure(event_id="x", user_id="u1", ts_ms=START_MS + 500)])
    bootstrap(store, erasures)
    before = read_slices(store, "user:u1")
    # when a worker that starts executes all erasures
    erase(store, erasures.until_ms)
    # then
    (record,) = read_slices(store, "user:u1").values()
    assert before == read_slices(store, "user:u1")
    assert parse_record(record).count == 1


def test_links_with_an_erased_user_are_masked_by_the_owner_of_the_partition_of_that_number(
    store: RedisProfileStore,
) -> None:
    # given a history, and workers that own one partition of clicks each
    bootstrap(store)
    erasures = Erasures([Erasure(event_id="x", user_id="u1", ts_ms=START_MS + 10_000)])
    for number in range(PARTITIONS):
        own = {TopicPartition("shop.clicks", number): f"clicks~topic/{number}"}
        offsets = OffsetTracker(sources=own, merged={bucket: {} for bucket in range(BUCKETS)})
        sweeper = LinkSweeper(profiles=store, offsets=offsets, erasures=erasures)
        # when
        while (sweep := sweeper.step({})) is None:
            pass
        # then
        assert (sweep.masked > 0) == (number == partition_of("u1", PARTITIONS))
    links = [ident for record in read_slices(store, "device:d1").values() for ident in parse_record(record).first_links]
    assert hash_id("user:u1") not in links
    assert hash_id("user:u2") in links


def test_a_history_of_another_kind_or_number_is_of_another_owner() -> None:
    historic = ["clicks~history.aa/0", "clicks~history.aa/1", "orders~history.aa/0"]
    assert assign_historic(historic, ["clicks~topic/1", "orders/3"]) == {"clicks~history.aa/1": "clicks~topic/1"}


def test_lost_buckets_of_a_history_are_counted(store: RedisProfileStore) -> None:
    assert HistoryRegistry(store).count_lost_buckets() == 0
    bootstrap(store)
    assert HistoryRegistry(store).count_lost_buckets() == 0
    store.client.pipeline([("DEL", store.keys.offsets(bucket)) for bucket in (3, 5)])
    assert HistoryRegistry(store).count_lost_buckets() == 2


def test_the_slices_in_redis_equal_the_oracles(store: RedisProfileStore) -> None:
    folder, oracle = bootstrap(store), ProfileOracle()
    again = HistoryFolder(profiles=store, digest="0" * 32, partitions={"clicks": PARTITIONS})
    for arrival in again.to_arrivals([make_click(n, user) for n, user in enumerate(["u1", "u2", "u1"])]):
        oracle.add(arrival.source, arrival.offset, arrival.event)
    for entity in ("user:u1", "user:u2", "item:i1", "device:d1"):
        counts = {source: parse_record(record).count for source, record in read_slices(store, entity).items()}
        assert counts == {source: expected.count for source, expected in oracle.slices_of(entity).items()}
    assert HistoryRegistry(store).read() == folder.counts
