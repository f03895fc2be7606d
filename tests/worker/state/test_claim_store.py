"""Claims: the first answer to an event is the one that every later attempt publishes."""

from collections.abc import Iterator

import numpy as np
import pytest
from msgspec.structs import replace

from contract.features.declaration import Block
from contract.features.packing import pack
from contract.messages import Action, Decision, Ranking, ScoredRow, read_decision
from tests.metrics import assert_increases
from tests.worker.answers import make_answer
from worker.ops import metrics
from worker.records.answers import CLICK, DECISION, RANKING, Answer
from worker.redis.client import RedisClient
from worker.state import claim_store
from worker.state.claim_store import ClaimKey, ClaimStore


def make_decision(
    event_id: str, action: Action = "approve", version: str = "v1", user: str = "ü", ts_ms: int = 2**52, offset: int = 7
) -> Answer:
    decision = Decision(
        event_id=event_id,
        user_id=user,
        ts_ms=ts_ms,
        probability={"fraud": 0.1 + 0.2},
        action=action,
        reasons=("a", "b"),
        model_version=version,
    )
    block = pack(Block(np.array([[np.nan, 1.5]], np.float32), np.array([[2**62]], np.int64)))
    scored = ScoredRow(
        event_id=event_id,
        kind="order",
        user_id=user,
        ts_ms=ts_ms,
        topic="shop.orders",
        partition=3,
        offset=offset,
        model_version=version,
        features="f",
        groups={"order": block},
        scores={"fraud": (0.1 + 0.2,)},
        entities=(f"user:{user}",),
    )
    return Answer(DECISION, scored, decision)


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


@pytest.fixture
def store(client: RedisClient) -> ClaimStore:
    return ClaimStore(client=client, prefix="shop:", ttl_s=60)


def test_a_stored_claim_is_read_back_unchanged() -> None:
    answer = make_decision("o1", "decline")

    assert claim_store.from_stored(DECISION, claim_store.to_stored(answer)) == answer


def test_the_first_decision_is_returned_to_every_later_claim(store: ClaimStore) -> None:
    # given
    first, second = make_decision("o1", "decline", "v1"), make_decision("o1", "approve", "v2")
    # when
    with assert_increases(metrics.DECISIONS_REPEATED, by=2):
        actual = [store.claim([first]), store.claim([second]), store.claim([second])]
    # then
    assert actual == [[first]] * 3


def test_a_batch_may_mix_new_orders_and_orders_decided_before(store: ClaimStore) -> None:
    # given
    old, new = make_decision("o1", "decline"), make_decision("o2")
    store.claim([old])
    # then
    assert store.claim([new, make_decision("o1", "approve", "v2")]) == [new, old]


def test_an_order_that_is_twice_in_a_batch_is_decided_once(store: ClaimStore) -> None:
    first, second = make_decision("o1", "decline"), make_decision("o1", "approve")

    assert store.claim([first, second]) == [first, first]


def test_answers_of_kinds_without_claims_pass_unchanged(store: ClaimStore, client: RedisClient) -> None:
    # given
    ranking = Ranking(event_id="o1", user_id="u", query="q", items=(), relevance=(), model_version="")
    unclaimed = [make_answer(RANKING, ranking), Answer(CLICK, make_decision("o1").scored)]
    store.claim([make_decision("o1", "decline")])
    # when
    (ranked, decided, clicked) = store.claim([unclaimed[0], make_decision("o1"), unclaimed[1]])
    # then
    assert [ranked, clicked] == unclaimed
    assert decided.message.action == "decline"
    assert len(client.pipeline([("KEYS", "shop:decision:*")])[0]) == 1


def test_a_claim_is_the_public_decision_and_expires(store: ClaimStore, client: RedisClient) -> None:
    # when
    store.claim([make_decision("o1", "review")])
    # then
    value, ttl_s = client.pipeline([("GET", "shop:decision:o1"), ("TTL", "shop:decision:o1")])
    assert read_decision(value) == make_decision("o1", "review").message
    assert 0 < ttl_s <= 60


def find_remaining(client: RedisClient, *event_ids: str) -> list[int]:
    """1 for each of these orders whose decision is stored, else 0."""
    return client.pipeline([("EXISTS", f"shop:decision:{event}") for event in event_ids])


def test_published_decisions_up_to_an_erasure_are_deleted(store: ClaimStore, client: RedisClient) -> None:
    # given one at the erasure's time, a later one, one that is not published yet, and one of another user
    store.claim(
        [
            make_decision("o1", user="u1", ts_ms=100, offset=1),
            make_decision("o2", user="u1", ts_ms=101, offset=2),
            make_decision("o3", user="u1", ts_ms=99, offset=3),
            make_decision("o4", user="u11", ts_ms=99, offset=0),
        ]
    )
    # when
    store.delete_erased({"u1": 100, "unknown": 100}, lambda topic, partition, offset: offset < 3)
    # then
    assert find_remaining(client, "o1", "o2", "o3", "o4") == [0, 1, 1, 1]
    # when the last one is published, too
    store.delete_answered([ClaimKey(DECISION, "u1", "o3")])
    # then
    assert find_remaining(client, "o1", "o2", "o3", "o4") == [0, 1, 0, 1]
    store.delete_erased({"u1": 200}, lambda topic, partition, offset: True)
    assert find_remaining(client, "o1", "o2", "o3", "o4") == [0, 0, 0, 1]


def test_a_lane_deletes_no_claims_of_another_lane(store: ClaimStore, client: RedisClient) -> None:
    # given
    store.claim([make_decision("o1", user="u1", ts_ms=100)])
    other_lane = ClaimStore(client=client, prefix="shop:", ttl_s=60, kinds=(RANKING, CLICK))
    # when
    other_lane.delete_erased({"u1": 100}, lambda topic, partition, offset: True)
    # then
    assert find_remaining(client, "o1") == [1]


def test_a_decision_lost_by_redis_is_also_removed_from_the_index(store: ClaimStore, client: RedisClient) -> None:
    # given
    store.claim([make_decision("o1", user="u1", ts_ms=100)])
    client.pipeline([("DEL", "shop:decision:o1")])
    # when
    store.delete_erased({"u1": 100}, lambda topic, partition, offset: True)
    # then
    assert client.pipeline([("KEYS", "shop:decided:*")]) == [[]]


def test_a_shadow_s_scores_are_claimed_with_the_decision(store: ClaimStore) -> None:
    # given an attempt with a shadow, and a later one without it
    without = make_decision("o1", "decline", "v1")
    with_shadow = without._replace(scored=replace(without.scored, shadow_version="v2", shadow={"fraud": (0.9,)}))
    # when
    actual = [store.claim([with_shadow]), store.claim([without])]
    # then
    assert actual == [[with_shadow], [with_shadow]]
