"""Late answers of erased users stay out of Redis, on one server and on a cluster."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from contract.events.model import Erasure
from contract.profiles.erasures import Erasures
from contract.settings.worker import ListSettings
from devservers.redis_cluster import LocalRedisCluster
from tests.metrics import assert_increases
from tests.worker.state.test_answer_cache import make_list, make_ranking
from tests.worker.state.test_claim_store import make_decision
from worker.ops import metrics
from worker.records.answers import Answer
from worker.redis.client import RedisClient
from worker.redis.cluster import open_client
from worker.state.answer_cache import AnswerCache
from worker.state.claim_store import ClaimStore
from worker.state.erasure_fence import UNKNOWN_MAX_S, ErasureFence, UnknownErasure

UNTIL_MS = 1_000


class SteadyClock:
    """A clock that only advances by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Worker:
    """What one worker writes, with the erasures that it knows."""

    def __init__(self, client: RedisClient, clock: SteadyClock) -> None:
        self.fence = ErasureFence(prefix="shop:", erasures=Erasures(), clock_s=clock)
        self.claims = ClaimStore(client=client, prefix="shop:", ttl_s=60, fence=self.fence)
        self.caches = AnswerCache(client=client, prefix="shop:", lists=ListSettings(ttl_s=60), fence=self.fence)

    def learn(self, user: str, until_ms: int = UNTIL_MS) -> None:
        self.fence.erasures.add(Erasure(event_id=f"g-{user}", ts_ms=until_ms, user_id=user))

    def erase(self, user: str, until_ms: int = UNTIL_MS) -> None:
        """Carry an erasure out; every event is published."""
        self.learn(user, until_ms)
        self.claims.delete_erased({user: until_ms}, lambda topic, partition, offset: True)
        self.caches.delete_users({user: until_ms})


@pytest.fixture(scope="module")
def servers() -> Iterator[LocalRedisCluster]:
    with LocalRedisCluster() as started:
        yield started


@pytest.fixture(params=["server", "cluster"])
def client(request: pytest.FixtureRequest) -> Iterator[RedisClient]:
    if request.param == "cluster":
        servers = request.getfixturevalue("servers")
        servers.flush()
        url = servers.url
    else:
        url = request.getfixturevalue("redis_url")
    client = open_client(url, 20, is_cluster=request.param == "cluster")
    yield client
    client.close()


@pytest.fixture
def clock() -> SteadyClock:
    return SteadyClock()


@pytest.fixture
def frozen(client: RedisClient, clock: SteadyClock) -> Worker:
    """A worker that goes on after others have carried an erasure out."""
    return Worker(client, clock)


@pytest.fixture
def other(client: RedisClient, clock: SteadyClock) -> Worker:
    return Worker(client, clock)


def find_keys(client: RedisClient, text: str) -> list[str]:
    """The keys that name `text`, and the sets that list it."""
    keys = [key for page in client.scan("shop:") for key in page]
    listing = [key for key in keys if ":decided:" in key or ":searched:" in key]
    members = client.pipeline([("ZRANGE", key, 0, -1) for key in listing])
    return [key for key in keys if text in key] + [
        key for key, names in zip(listing, members, strict=True) if any(text.encode() in name for name in names)
    ]


def decide(user: str, ts_ms: int, event_id: str = "") -> Answer:
    return make_decision(event_id or f"o-{user}", user=user, ts_ms=ts_ms)


def cache_answers(user: str, ts_ms: int) -> list[Answer]:
    """A list and a ranking of a user."""
    answers = [make_list(user, ts_ms), make_ranking("red", user)]
    return [answer.replace(scored=replace(answer.scored, ts_ms=ts_ms)) for answer in answers]


@pytest.mark.parametrize("ts_ms", [UNTIL_MS - 1, UNTIL_MS, UNTIL_MS + 1])
def test_a_late_claim_of_an_erased_user_is_not_written(
    client: RedisClient, frozen: Worker, other: Worker, ts_ms: int
) -> None:
    # given
    other.erase("u1")
    # when a worker that does not know of it goes on, with an order of someone else in its batch
    with assert_increases(metrics.WRITES_FENCED), pytest.raises(UnknownErasure):
        frozen.claims.claim([decide("u1", ts_ms), decide("u2", ts_ms)])
    # then
    assert find_keys(client, "u1") == []
    assert "shop:decision:o-u2" in find_keys(client, "u2")


@pytest.mark.parametrize("ts_ms", [UNTIL_MS, UNTIL_MS + 1])
def test_a_late_cached_answer_of_an_erased_user_is_not_written(
    client: RedisClient, frozen: Worker, other: Worker, ts_ms: int
) -> None:
    # given
    other.erase("u1")
    # when
    with pytest.raises(UnknownErasure):
        frozen.caches.write([*cache_answers("u1", ts_ms), *cache_answers("u2", ts_ms)])
    # then
    assert find_keys(client, "u1") == []
    assert "shop:rec:u2" in find_keys(client, "u2")


def test_a_worker_that_knows_the_erasure_writes_later_events_and_none_that_it_covers(
    client: RedisClient, frozen: Worker, other: Worker
) -> None:
    # given
    other.erase("u1")
    frozen.learn("u1")
    covered, later = decide("u1", UNTIL_MS, "o1"), decide("u1", UNTIL_MS + 1, "o2")
    # when
    assert frozen.claims.claim([covered, later]) == [covered, later]
    frozen.caches.write(cache_answers("u1", UNTIL_MS))
    # then
    assert "shop:decision:o2" in find_keys(client, "o2")
    assert not find_keys(client, "o1")
    assert not find_keys(client, "rec:u1")
    frozen.caches.write(cache_answers("u1", UNTIL_MS + 1))
    assert find_keys(client, "rec:u1")


def test_a_covered_event_keeps_the_answer_that_was_claimed_before(frozen: Worker) -> None:
    # given an attempt that claimed and could not publish
    first = decide("u1", UNTIL_MS)
    frozen.claims.claim([first])
    # when the erasure is read before the next attempt
    frozen.learn("u1")
    frozen.claims.delete_erased({"u1": UNTIL_MS}, lambda topic, partition, offset: False)
    # then
    assert frozen.claims.claim([make_decision("o-u1", "decline", "v2", "u1", UNTIL_MS)]) == [first]


def test_a_covered_event_that_is_twice_in_a_batch_gets_one_answer(frozen: Worker) -> None:
    frozen.learn("u1")
    first = decide("u1", UNTIL_MS)

    assert frozen.claims.claim([first, make_decision("o-u1", "decline", "v2", "u1", UNTIL_MS)]) == [first, first]


def test_an_earlier_erasure_does_not_lower_a_mark(client: RedisClient, frozen: Worker, other: Worker) -> None:
    # given
    other.erase("u1", UNTIL_MS)
    other.erase("u1", UNTIL_MS - 100)
    frozen.learn("u1", UNTIL_MS - 100)
    # then
    with pytest.raises(UnknownErasure):
        frozen.claims.claim([decide("u1", UNTIL_MS + 1)])
    assert find_keys(client, "u1") == []


def test_a_mark_names_nobody_and_outlives_the_answers(client: RedisClient, other: Worker) -> None:
    # when
    other.erase("u1")
    # then
    keys = [key for page in client.scan("shop:erased:") for key in page]
    assert len(keys) == 1
    assert "u1" not in keys[0]
    assert client.pipeline([("GET", keys[0])]) == [b"1000"]
    assert client.pipeline([("TTL", keys[0])])[0] > 29 * 86_400


@pytest.mark.parametrize("content", ["nonsense", None])
def test_an_unreadable_mark_fences_nothing(client: RedisClient, frozen: Worker, content: str | None) -> None:
    # given a mark of other content or another type
    key = frozen.fence.mark_key("u1")
    client.pipeline([("SET", key, content) if content else ("LPUSH", key, "x")])
    # then
    answer = decide("u1", 5)
    assert frozen.claims.claim([answer]) == [answer]
    # and it is replaced
    frozen.erase("u1")
    assert client.pipeline([("GET", key)]) == [b"1000"]


def test_an_erasure_that_its_topic_lost_does_not_stop_a_worker(
    client: RedisClient, frozen: Worker, other: Worker, clock: SteadyClock
) -> None:
    # given
    other.erase("u1")
    answers = [decide("u1", UNTIL_MS, "o1"), decide("u1", UNTIL_MS + 1, "o2")]
    with pytest.raises(UnknownErasure):
        frozen.claims.claim(answers)
    # when the erasure cannot be read for a while
    clock.now_s += UNKNOWN_MAX_S
    with pytest.raises(UnknownErasure):
        frozen.claims.claim(answers)
    # then the worker goes on, and still writes nothing that the mark covers
    assert frozen.claims.claim(answers) == answers
    assert not find_keys(client, "o1")
    assert find_keys(client, "o2")
