"""An erasure is confirmed once every worker that ever ran has carried it out, and not before."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import pytest

from contract.events.model import Erasure
from contract.mapping.event_topics import EventTopics
from contract.messages import to_json
from contract.profiles.erasures import Erasures
from contract.profiles.record import LAYOUT, RECORD, profile_key
from contract.settings.servers import TopicSettings
from testkit.metrics import read_metric
from transport.log_reader import TopicTailer
from transport.records import Record, TopicPartition
from worker.erasure.confirmation import ErasureConfirmer
from worker.erasure.owners import LaneOwners
from worker.erasure.progress import ErasureProgress, owner_field
from worker.erasure.topic import ErasureConsumer
from worker.kafka.admin import KafkaAdmin
from worker.kafka.outgoing import OutgoingRecord
from worker.ops import metrics
from worker.records.lanes import LANES
from worker.redis.client import RedisClient
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import RedisProfileStore

TOPICS: Final = TopicSettings()
ERASED_MS: Final = 1_700_000_000_000
ORDERS, JUDGED, CLICKS = (TopicPartition(topic, 0) for topic in (TOPICS.orders, TOPICS.judgements, TOPICS.clicks))
ORDERS_OWNERS: Final = (owner_field("orders", ORDERS), owner_field("orders", JUDGED))
ALL_OWNERS: Final = (*ORDERS_OWNERS, owner_field("browsing", CLICKS), owner_field("browsing", ORDERS))


class FakeKafkaAdmin(KafkaAdmin):
    """A cluster with one partition of each of three topics, in which the given lanes have committed."""

    def __init__(self, *lanes: str) -> None:
        self.lanes = lanes

    def fetch_topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        return {}

    def list_partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        return [partition for partition in (ORDERS, JUDGED, CLICKS) if partition.topic in set(topics)]

    def filter_committed(self, lane: str, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        return set(partitions) if lane in self.lanes else set()


class FakeErasureTailer(TopicTailer):
    """The erasures topic: one partition with these values."""

    def __init__(self, *values: bytes | None) -> None:
        partition = TopicPartition(TOPICS.erasures, 0)
        self._records = [Record(partition, n, b"%d" % n, value, [], ERASED_MS) for n, value in enumerate(values)]

    @property
    def partitions_behind(self) -> int:
        return 0

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        return self._records

    def take_restarted(self) -> set[str]:
        return set()


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


def encode_erasure(user: str) -> bytes:
    return to_json(Erasure(event_id=f"g-{user}", ts_ms=ERASED_MS, user_id=user))


def make_confirmer(
    client: RedisClient,
    admin: FakeKafkaAdmin,
    *values: bytes | None,
    is_owner: bool = True,
    clock_s: Callable[[], float] = lambda: 0.0,
) -> ErasureConfirmer:
    """The confirmer of a worker that owns, or not, the only erasures partition, which holds these values."""
    profiles = RedisProfileStore(client=client, prefix="shop:")
    consumer = ErasureConsumer(tailer=FakeErasureTailer(*values), erasures=Erasures())
    consumer.poll()
    progress = ErasureProgress(profiles=profiles)
    return ErasureConfirmer(
        topics=EventTopics(TOPICS),
        erasure_consumer=consumer,
        progress=progress,
        profiles=profiles,
        offsets=OffsetTracker(committed={TopicPartition(TOPICS.erasures, 0): 0} if is_owner else {}),
        admin=admin,
        owners=[
            LaneOwners(lane=lane, topics=EventTopics(TOPICS), progress=progress, admin=admin) for lane in LANES.values()
        ],
        clock_s=clock_s,
    )


def set_progress(client: RedisClient, fields: Iterable[str], end: int = 1) -> None:
    ErasureProgress(profiles=RedisProfileStore(client=client, prefix="shop:")).write(fields, {"erasures/0": end})


def store_slice(client: RedisClient, source: str, **fields: int) -> None:
    """Write this slice of user u1 to Redis."""
    record = np.zeros(1, RECORD)
    for name, value in {"layout": LAYOUT, **fields}.items():
        record[name] = value
    client.pipeline([("HSET", f"shop:{profile_key('user:u1')}", source, record.tobytes())])


def confirmable_offsets(confirmer: ErasureConfirmer) -> list[int]:
    return [record.offset for record in confirmer.find_confirmable()]


@pytest.mark.parametrize("lagging", ALL_OWNERS)
def test_confirmation_waits_for_every_owner(client: RedisClient, lagging: str) -> None:
    # given
    set_progress(client, set(ALL_OWNERS) - {lagging})
    set_progress(client, [lagging], end=0)
    confirmer = make_confirmer(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))
    assert confirmable_offsets(confirmer) == []
    # when
    set_progress(client, [lagging])
    # then
    assert confirmable_offsets(confirmer) == [0]


def test_confirmation_waits_for_every_lane_after_redis_data_loss(
    client: RedisClient,
) -> None:
    # given
    set_progress(client, ALL_OWNERS)
    confirmer = make_confirmer(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))
    assert confirmable_offsets(confirmer) == [0]
    # when
    client.pipeline([("FLUSHALL",)])
    # then
    assert confirmable_offsets(confirmer) == []
    for number, field in enumerate(ALL_OWNERS, 1):
        set_progress(client, [field])
        assert confirmable_offsets(confirmer) == ([0] if number == len(ALL_OWNERS) else []), field


def test_confirmation_does_not_wait_for_a_lane_that_never_ran(client: RedisClient) -> None:
    confirmer = make_confirmer(client, FakeKafkaAdmin("orders"), encode_erasure("u1"))

    set_progress(client, ORDERS_OWNERS)

    assert confirmable_offsets(confirmer) == [0]


def test_progress_of_a_deleted_partition_does_not_block_confirmation(client: RedisClient) -> None:
    confirmer = make_confirmer(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))

    set_progress(client, ALL_OWNERS)
    set_progress(client, [owner_field("orders", TopicPartition(TOPICS.orders, 7))], end=0)

    assert confirmable_offsets(confirmer) == [0]


@pytest.mark.parametrize(
    ("fields", "is_erased"),
    [
        ({"count": 1, "first_ms": ERASED_MS, "last_ms": ERASED_MS + 9}, False),
        ({"count": 1, "first_ms": ERASED_MS + 1, "last_ms": ERASED_MS + 9}, True),
        ({"count": 0, "last_ms": ERASED_MS}, False),  # an earlier judgement, which counts no event
        ({"count": 0, "last_ms": ERASED_MS + 1}, True),
        ({"count": 0, "last_ms": 0, "offset": 9}, True),  # only an offset, which no erasure removes
    ],
)
def test_a_profile_with_older_events_is_not_confirmed(
    client: RedisClient, fields: dict[str, int], is_erased: bool
) -> None:
    set_progress(client, ALL_OWNERS)
    store_slice(client, "judgements/0" if not fields["count"] else "orders/0", **fields)

    confirmer = make_confirmer(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))

    assert confirmable_offsets(confirmer) == ([0] if is_erased else [])


def test_slices_of_deleted_partitions_are_deleted(client: RedisClient) -> None:
    set_progress(client, ALL_OWNERS)
    store_slice(client, "clicks~gone/7", count=1, first_ms=ERASED_MS, last_ms=ERASED_MS)

    confirmer = make_confirmer(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))

    assert confirmable_offsets(confirmer) == [0]
    assert client.pipeline([("EXISTS", f"shop:{profile_key('user:u1')}")]) == [0]


def test_invalid_erasures_are_rejected_in_their_order(client: RedisClient) -> None:
    # given a tombstone, an invalid record, an erasure that has to wait, and another tombstone
    confirmer = make_confirmer(client, FakeKafkaAdmin("orders"), None, b"not JSON", encode_erasure("u1"), None)
    set_progress(client, ORDERS_OWNERS, end=2)
    # then the dead letter is published, and no record after the waiting erasure
    assert confirmable_offsets(confirmer) == [0, 1]
    assert count_topics(confirmer.build_records(confirmer.find_confirmable())) == {TOPICS.dead_letters: 2}
    # when
    set_progress(client, ORDERS_OWNERS, end=3)
    # then
    assert confirmable_offsets(confirmer) == [0, 1, 2, 3]
    assert count_topics(confirmer.build_records(confirmer.find_confirmable())) == {
        TOPICS.dead_letters: 3,
        TOPICS.erased: 1,
    }


def count_topics(outgoing: Sequence[OutgoingRecord]) -> Counter[str]:
    return Counter(record.topic for record in outgoing)


def test_a_worker_without_an_erasures_partition_confirms_nothing(client: RedisClient) -> None:
    set_progress(client, ALL_OWNERS)

    confirmer = make_confirmer(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"), is_owner=False)

    assert confirmable_offsets(confirmer) == []


def test_a_pending_erasure_names_the_owners_that_it_waits_for(
    client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    # given an erasure that one lane has executed, and the other one in none of its partitions
    now_s = 0.0
    set_progress(client, ORDERS_OWNERS)
    confirmer = make_confirmer(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"), clock_s=lambda: now_s)
    # when it has waited for a minute
    assert confirmable_offsets(confirmer) == []
    assert "wait for" not in caplog.text
    now_s = 60.0
    assert confirmable_offsets(confirmer) == []
    # then
    assert f"they wait for {owner_field('browsing', CLICKS)} and 1 more of browsing." in caplog.text
    assert [read_metric(metrics.ERASURES_WAITING.labels(lane)) for lane in ("orders", "browsing")] == [0, 2]
    # when
    set_progress(client, ALL_OWNERS)
    # then
    assert confirmable_offsets(confirmer) == [0]
    assert read_metric(metrics.ERASURES_WAITING.labels("browsing")) == 0
