"""Claims: whoever decides first is whom every later life repeats."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from contract.features.declaration import Block
from contract.features.packing import pack
from contract.messages import Action, Decision, ScoredRow, read_decision
from worker.ops import metrics
from worker.redis.client import RedisClient
from worker.state import decision_store
from worker.state.decision_store import DecisionStore


def make_answer(
    event_id: str, action: Action = "approve", version: str = "v1", user: str = "ü", ts_ms: int = 2**52, offset: int = 7
) -> tuple[Decision, ScoredRow]:
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
    return decision, scored


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    made = RedisClient(url=redis_url, timeout_s=20)
    yield made
    made.close()


@pytest.fixture
def held(client: RedisClient) -> DecisionStore:
    return DecisionStore(client=client, prefix="shop:", ttl_s=60)


def test_a_claim_comes_back_as_it_was_made() -> None:
    made = make_answer("o1", "decline")

    assert decision_store.from_stored(msgspec.json.encode(decision_store.to_stored(*made))) == made


def test_the_first_decision_stands_whatever_later_lives_think(held: DecisionStore) -> None:
    # given
    first, second = make_answer("o1", "decline", "v1"), make_answer("o1", "approve", "v2")
    repeated = metrics.DECISIONS_REPEATED._value.get()
    # when
    actual = [held.claim([first]), held.claim([second]), held.claim([second])]
    # then
    assert actual == [[first]] * 3
    assert metrics.DECISIONS_REPEATED._value.get() == repeated + 2


def test_of_a_batch_some_may_have_been_decided_before(held: DecisionStore) -> None:
    # given
    old, new = make_answer("o1", "decline"), make_answer("o2")
    held.claim([old])
    # then
    assert held.claim([new, make_answer("o1", "approve", "v2")]) == [new, old]


def test_an_order_that_stands_twice_in_a_batch_is_decided_once(held: DecisionStore) -> None:
    first, second = make_answer("o1", "decline"), make_answer("o1", "approve")

    assert held.claim([first, second]) == [first, first]


def test_a_claim_is_the_public_decision_and_does_not_stay_for_ever(held: DecisionStore, client: RedisClient) -> None:
    # when
    held.claim([make_answer("o1", "review")])
    # then
    value, ttl_s = client.pipeline([("GET", "shop:decision:o1"), ("TTL", "shop:decision:o1")])
    assert read_decision(value) == make_answer("o1", "review")[0]
    assert 0 < ttl_s <= 60


def find_remaining(client: RedisClient, *event_ids: str) -> list[int]:
    """Which decisions stand."""
    return client.pipeline([("EXISTS", f"shop:decision:{event}") for event in event_ids])


def test_decisions_up_to_an_erasure_are_forgotten_once_they_are_out(held: DecisionStore, client: RedisClient) -> None:
    # given one at the erasure's time, one later, one that is not out yet, one of somebody else
    held.claim(
        [
            make_answer("o1", user="u1", ts_ms=100, offset=1),
            make_answer("o2", user="u1", ts_ms=101, offset=2),
            make_answer("o3", user="u1", ts_ms=99, offset=3),
            make_answer("o4", user="u11", ts_ms=99, offset=0),
        ]
    )
    # when
    held.delete_erased({"u1": 100, "nobody": 100}, lambda topic, partition, offset: offset < 3)
    # then
    assert find_remaining(client, "o1", "o2", "o3", "o4") == [0, 1, 1, 1]
    # when that one is out, too
    held.delete_answered({"u1": ["o3"]})
    # then
    assert find_remaining(client, "o1", "o2", "o3", "o4") == [0, 1, 0, 1]
    held.delete_erased({"u1": 200}, lambda topic, partition, offset: True)
    assert find_remaining(client, "o1", "o2", "o3", "o4") == [0, 0, 0, 1]


def test_a_decision_that_redis_has_lost_is_forgotten_all_the_same(held: DecisionStore, client: RedisClient) -> None:
    # given
    held.claim([make_answer("o1", user="u1", ts_ms=100)])
    client.pipeline([("DEL", "shop:decision:o1")])
    # when
    held.delete_erased({"u1": 100}, lambda topic, partition, offset: True)
    # then nothing tells any more that it was there
    assert client.pipeline([("KEYS", "shop:decided:*")]) == [[]]


def test_what_a_shadow_said_is_claimed_too_so_a_replay_without_it_says_the_same(held: DecisionStore) -> None:
    # given a life with a model on trial, and the next one without it
    decision, scored = make_answer("o1", "decline", "v1")
    heard = decision, msgspec.structs.replace(scored, shadow_version="v2", shadow={"fraud": (0.9,)})
    # when
    actual = [held.claim([heard]), held.claim([(decision, scored)])]
    # then
    assert actual == [[heard], [heard]]
