"""Confirming: an erasure is said to be carried out when all who ever worked are past it, and not a moment before."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import pytest

from contract.events import Erasure
from contract.messages import to_json
from contract.profiles.erasures import Erasures
from contract.profiles.record import LAYOUT, RECORD, profile_key
from contract.settings import TopicSettings
from transport.log_reader import TopicTailer
from transport.records import Record, TopicPartition
from worker.erasure.confirmation import ErasureConfirmer
from worker.erasure.progress import ErasureProgress, holder_field
from worker.erasure.topic import ErasureConsumer
from worker.kafka.admin import KafkaAdmin
from worker.kafka.producer import OutgoingRecord
from worker.redis.client import RedisClient
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import RedisProfileStore

TOPICS: Final = TopicSettings()
ERASED_MS: Final = 1_700_000_000_000
ORDERS, JUDGED, CLICKS = (TopicPartition(topic, 0) for topic in (TOPICS.orders, TOPICS.judgements, TOPICS.clicks))
OWN_HOLDERS: Final = (holder_field("orders", ORDERS), holder_field("orders", JUDGED))
ALL_HOLDERS: Final = (*OWN_HOLDERS, holder_field("browsing", CLICKS), holder_field("browsing", ORDERS))
LANES: Final = ("orders", "browsing")


class FakeKafkaAdmin(KafkaAdmin):
    """A cluster with a partition of each of three topics, in which given lanes have worked."""

    def __init__(self, *worked: str) -> None:
        self.lanes = worked

    def fetch_topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        return {}

    def list_partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        return [partition for partition in (ORDERS, JUDGED, CLICKS) if partition.topic in set(topics)]

    def filter_committed(self, lane: str, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        return set(partitions) if lane in self.lanes else set()


class FakeErasureTailer(TopicTailer):
    """The topic of erasures, one partition of these values."""

    def __init__(self, *values: bytes | None) -> None:
        partition = TopicPartition(TOPICS.erasures, 0)
        self._records = [Record(partition, n, b"", value, [], ERASED_MS) for n, value in enumerate(values)]

    @property
    def partitions_behind(self) -> int:
        return 0

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        return self._records


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    made = RedisClient(url=redis_url, timeout_s=20)
    yield made
    made.close()


def encode_erasure(user: str) -> bytes:
    return to_json(Erasure(event_id=f"g-{user}", ts_ms=ERASED_MS, user_id=user))


def make_confirming(
    client: RedisClient, kafka: FakeKafkaAdmin, *values: bytes | None, holds: bool = True
) -> ErasureConfirmer:
    """Whoever holds, or not, the one partition of erasures, on which these values are."""
    profiles = RedisProfileStore(client=client, prefix="shop:")
    log = ErasureConsumer(tailer=FakeErasureTailer(*values), erasures=Erasures())
    log.poll()
    return ErasureConfirmer(
        topics=TOPICS,
        erasure_consumer=log,
        progress=ErasureProgress(profiles=profiles),
        profiles=profiles,
        offsets=OffsetTracker(committed={TopicPartition(TOPICS.erasures, 0): 0} if holds else {}),
        admin=kafka,
    )


def set_progress(client: RedisClient, fields: Iterable[str], end: int = 1) -> None:
    ErasureProgress(profiles=RedisProfileStore(client=client, prefix="shop:")).write(fields, {"erasures/0": end})


def store_slice(client: RedisClient, source: str, **fields: int) -> None:
    """Redis holds this slice of user u1."""
    record = np.zeros(1, RECORD)
    for name, value in {"layout": LAYOUT, **fields}.items():
        record[name] = value
    client.pipeline([("HSET", f"shop:{profile_key('user:u1')}", source, record.tobytes())])


def outgoing_offsets(outgoing: ErasureConfirmer) -> list[int]:
    return [one.offset for one in outgoing.find_confirmable()]


@pytest.mark.parametrize("lagging", ALL_HOLDERS)
def test_nothing_is_confirmed_while_some_holder_has_not_forgotten(client: RedisClient, lagging: str) -> None:
    # given
    set_progress(client, set(ALL_HOLDERS) - {lagging})
    set_progress(client, [lagging], end=0)
    made = make_confirming(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))
    assert outgoing_offsets(made) == []
    # when
    set_progress(client, [lagging])
    # then
    assert outgoing_offsets(made) == [0]


def test_a_redis_that_lost_its_marks_confirms_nothing_until_every_lane_that_ever_worked_has_marked_again(
    client: RedisClient,
) -> None:
    # given
    set_progress(client, ALL_HOLDERS)
    made = make_confirming(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))
    assert outgoing_offsets(made) == [0]
    # when
    client.pipeline([("FLUSHALL",)])
    # then
    assert outgoing_offsets(made) == []
    for number, field in enumerate(ALL_HOLDERS, 1):
        set_progress(client, [field])
        assert outgoing_offsets(made) == ([0] if number == len(ALL_HOLDERS) else []), field


def test_a_lane_that_never_worked_is_not_waited_for(client: RedisClient) -> None:
    made = make_confirming(client, FakeKafkaAdmin("orders"), encode_erasure("u1"))

    set_progress(client, OWN_HOLDERS)

    assert outgoing_offsets(made) == [0]


def test_a_mark_of_a_partition_that_exists_no_more_holds_nothing_back(client: RedisClient) -> None:
    made = make_confirming(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))

    set_progress(client, ALL_HOLDERS)
    set_progress(client, [holder_field("orders", TopicPartition(TOPICS.orders, 7))], end=0)

    assert outgoing_offsets(made) == [0]


@pytest.mark.parametrize(
    ("slice_of", "is_gone"),
    [
        ({"count": 1, "first_ms": ERASED_MS, "last_ms": ERASED_MS + 9}, False),
        ({"count": 1, "first_ms": ERASED_MS + 1, "last_ms": ERASED_MS + 9}, True),
        ({"count": 0, "last_ms": ERASED_MS}, False),  # a judgement that counts no event, of before
        ({"count": 0, "last_ms": ERASED_MS + 1}, True),
        ({"count": 0, "last_ms": 0, "offset": 9}, True),  # nothing but an offset, which nobody would ever take away
    ],
)
def test_a_profile_that_holds_something_older_is_not_gone(
    client: RedisClient, slice_of: dict[str, int], is_gone: bool
) -> None:
    set_progress(client, ALL_HOLDERS)
    store_slice(client, "judgements/0" if not slice_of["count"] else "orders/0", **slice_of)

    made = make_confirming(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))

    assert outgoing_offsets(made) == ([0] if is_gone else [])


def test_slices_of_partitions_that_exist_no_more_go_with_the_rest(client: RedisClient) -> None:
    set_progress(client, ALL_HOLDERS)
    store_slice(client, "clicks~gone/7", count=1, first_ms=ERASED_MS, last_ms=ERASED_MS)

    made = make_confirming(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"))

    assert outgoing_offsets(made) == [0]
    assert client.pipeline([("EXISTS", f"shop:{profile_key('user:u1')}")]) == [0]


def test_what_is_no_erasure_is_passed_by_in_its_turn(client: RedisClient) -> None:
    # given one without a value, one that is broken, one that has to wait, another without a value
    made = make_confirming(client, FakeKafkaAdmin("orders"), None, b"not JSON", encode_erasure("u1"), None)
    set_progress(client, OWN_HOLDERS, end=2)
    # then the dead letter is said, and nothing that comes behind the waiting one
    assert outgoing_offsets(made) == [0, 1]
    assert count_topics(made.build_records(made.find_confirmable())) == {TOPICS.dead_letters: 1}
    # when
    set_progress(client, OWN_HOLDERS, end=3)
    # then
    assert outgoing_offsets(made) == [0, 1, 2, 3]
    assert count_topics(made.build_records(made.find_confirmable())) == {TOPICS.dead_letters: 1, TOPICS.erased: 1}


def count_topics(outgoing: Sequence[OutgoingRecord]) -> Counter[str]:
    return Counter(one.topic for one in outgoing)


def test_whoever_holds_no_partition_of_erasures_says_nothing(client: RedisClient) -> None:
    set_progress(client, ALL_HOLDERS)
    assert outgoing_offsets(make_confirming(client, FakeKafkaAdmin(*LANES), encode_erasure("u1"), holds=False)) == []
