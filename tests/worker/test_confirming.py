"""Confirming: an erasure is said to be carried out when all who ever worked are past it, and not a moment before."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import pytest

from contract.erasures import Erasures
from contract.events import Erasure
from contract.profiles import LAYOUT, RECORD, profile_key
from contract.rows import to_json
from contract.settings import Topics
from worker.broker import Broker
from worker.confirming import Confirming
from worker.erasure_log import ErasureLog
from worker.erasure_marks import ErasureMarks, holder
from worker.follower import Follower
from worker.intake import Place, Record
from worker.positions import Positions
from worker.profile_store import RedisProfiles
from worker.publisher import Outgoing
from worker.redis_client import RedisClient

TOPICS: Final = Topics()
ERASED_MS: Final = 1_700_000_000_000
ORDERS, JUDGED, CLICKS = (Place(topic, 0) for topic in (TOPICS.orders, TOPICS.judgements, TOPICS.clicks))
OWN: Final = (holder("orders", ORDERS), holder("orders", JUDGED))
ALL: Final = (*OWN, holder("browsing", CLICKS), holder("browsing", ORDERS))
LANES: Final = ("orders", "browsing")


class Kafka(Broker):
    """A cluster with a partition of each of three topics, in which given lanes have worked."""

    def __init__(self, *worked: str) -> None:
        self.lanes = worked

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        return {}

    def places(self, topics: Iterable[str]) -> list[Place]:
        return [place for place in (ORDERS, JUDGED, CLICKS) if place.topic in set(topics)]

    def worked(self, lane: str, places: Iterable[Place]) -> set[Place]:
        return set(places) if lane in self.lanes else set()


class Erasing(Follower):
    """The topic of erasures, one partition of these values."""

    def __init__(self, *values: bytes | None) -> None:
        place = Place(TOPICS.erasures, 0)
        self._records = [Record(place, n, b"", value, [], ERASED_MS) for n, value in enumerate(values)]

    @property
    def behind(self) -> int:
        return 0

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        return self._records


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    made = RedisClient(url=redis_url, timeout_s=20)
    yield made
    made.close()


def erasure(user: str) -> bytes:
    return to_json(Erasure(event_id=f"g-{user}", ts_ms=ERASED_MS, user_id=user))


def confirming(client: RedisClient, kafka: Kafka, *values: bytes | None, holds: bool = True) -> Confirming:
    """Whoever holds, or not, the one partition of erasures, on which these values are."""
    profiles = RedisProfiles(client=client, prefix="shop:")
    log = ErasureLog(follower=Erasing(*values), erasures=Erasures())
    log.follow()
    return Confirming(
        topics=TOPICS,
        erasure_log=log,
        marks=ErasureMarks(profiles=profiles),
        profiles=profiles,
        positions=Positions(committed={Place(TOPICS.erasures, 0): 0} if holds else {}),
        broker=kafka,
    )


def mark(client: RedisClient, fields: Iterable[str], end: int = 1) -> None:
    ErasureMarks(profiles=RedisProfiles(client=client, prefix="shop:")).write(fields, {"erasures/0": end})


def remember(client: RedisClient, source: str, **fields: int) -> None:
    """Redis holds this slice of user u1."""
    record = np.zeros(1, RECORD)
    for name, value in {"layout": LAYOUT, **fields}.items():
        record[name] = value
    client.pipeline([("HSET", f"shop:{profile_key('user:u1')}", source, record.tobytes())])


def offsets(made: Confirming) -> list[int]:
    return [one.offset for one in made.ready()]


@pytest.mark.parametrize("lagging", ALL)
def test_nothing_is_confirmed_while_some_holder_has_not_forgotten(client: RedisClient, lagging: str) -> None:
    # given
    mark(client, set(ALL) - {lagging})
    mark(client, [lagging], end=0)
    made = confirming(client, Kafka(*LANES), erasure("u1"))
    assert offsets(made) == []
    # when
    mark(client, [lagging])
    # then
    assert offsets(made) == [0]


def test_a_redis_that_lost_its_marks_confirms_nothing_until_every_lane_that_ever_worked_has_marked_again(
    client: RedisClient,
) -> None:
    # given
    mark(client, ALL)
    made = confirming(client, Kafka(*LANES), erasure("u1"))
    assert offsets(made) == [0]
    # when
    client.pipeline([("FLUSHALL",)])
    # then
    assert offsets(made) == []
    for number, field in enumerate(ALL, 1):
        mark(client, [field])
        assert offsets(made) == ([0] if number == len(ALL) else []), field


def test_a_lane_that_never_worked_is_not_waited_for(client: RedisClient) -> None:
    made = confirming(client, Kafka("orders"), erasure("u1"))

    mark(client, OWN)

    assert offsets(made) == [0]


def test_a_mark_of_a_partition_that_exists_no_more_holds_nothing_back(client: RedisClient) -> None:
    made = confirming(client, Kafka(*LANES), erasure("u1"))

    mark(client, ALL)
    mark(client, [holder("orders", Place(TOPICS.orders, 7))], end=0)

    assert offsets(made) == [0]


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
    mark(client, ALL)
    remember(client, "judgements/0" if not slice_of["count"] else "orders/0", **slice_of)

    made = confirming(client, Kafka(*LANES), erasure("u1"))

    assert offsets(made) == ([0] if is_gone else [])


def test_slices_of_partitions_that_exist_no_more_go_with_the_rest(client: RedisClient) -> None:
    mark(client, ALL)
    remember(client, "clicks~gone/7", count=1, first_ms=ERASED_MS, last_ms=ERASED_MS)

    made = confirming(client, Kafka(*LANES), erasure("u1"))

    assert offsets(made) == [0]
    assert client.pipeline([("EXISTS", f"shop:{profile_key('user:u1')}")]) == [0]


def test_what_is_no_erasure_is_passed_by_in_its_turn(client: RedisClient) -> None:
    # given one without a value, one that is broken, one that has to wait, another without a value
    made = confirming(client, Kafka("orders"), None, b"not JSON", erasure("u1"), None)
    mark(client, OWN, end=2)
    # then the dead letter is said, and nothing that comes behind the waiting one
    assert offsets(made) == [0, 1]
    assert topics_of(made.outgoing(made.ready())) == {TOPICS.dead_letters: 1}
    # when
    mark(client, OWN, end=3)
    # then
    assert offsets(made) == [0, 1, 2, 3]
    assert topics_of(made.outgoing(made.ready())) == {TOPICS.dead_letters: 1, TOPICS.erased: 1}


def topics_of(said: Sequence[Outgoing]) -> Counter[str]:
    return Counter(one.topic for one in said)


def test_whoever_holds_no_partition_of_erasures_says_nothing(client: RedisClient) -> None:
    mark(client, ALL)
    assert offsets(confirming(client, Kafka(*LANES), erasure("u1"), holds=False)) == []
