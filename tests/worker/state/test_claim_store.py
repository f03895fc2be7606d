"""Claims: the first answer to an event is the one that every later attempt publishes."""

from collections.abc import Iterator

import numpy as np
import pytest
from msgspec.structs import replace

from contract.features.declaration import Block
from contract.features.packing import pack
from contract.messages import Action, Decision, Ranking, ScoredRow, read_decision
from contract.redis_keys import escape_id
from tests.metrics import assert_increases
from tests.worker.answers import make_answer
from worker.ops import metrics
from worker.records.answers import CLICK, DECISION, ID_TAKEN, RANKING, Answer
from worker.redis.client import RedisClient
from worker.state import claim_store
from worker.state.claim_store import ClaimKey, ClaimStore
from worker.state.user_key_index import UserKeyIndex


def make_decision(
    event_id: str,
    action: Action = "approve",
    version: str = "v1",
    user: str = "ü",
    ts_ms: int = 2**52,
    offset: int = 7,
    digest: str = "",
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
    return Answer(DECISION, scored, decision, digest)


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
    with_shadow = without.replace(scored=replace(without.scored, shadow_version="v2", shadow={"fraud": (0.9,)}))
    # when
    actual = [store.claim([with_shadow]), store.claim([without])]
    # then
    assert actual == [[with_shadow], [with_shadow]]


@pytest.mark.parametrize(
    "second",
    [
        make_decision("o1", user="u2", offset=8, digest="bb"),
        make_decision("o1", user="u2", offset=8),
        make_decision("o1", user="u1", offset=8, digest="bb"),
    ],
    ids=["another user and content", "another user, content unknown", "another content of the same user"],
)
def test_another_order_with_the_same_id_is_reviewed_over_all_attempts(
    store: ClaimStore, client: RedisClient, second: Answer
) -> None:
    # given
    first = make_decision("o1", user="u1", digest="aa")
    store.claim([first])
    # when
    with assert_increases(metrics.DECISION_CONFLICTS):
        (conflict,) = store.claim([second])
    # then it has its own decision, which is the same after a crash
    assert conflict.message == replace(second.message, action="review", reasons=("a", "b", ID_TAKEN))
    assert conflict.scored == replace(second.scored, is_conflict=True)
    later = second.replace(message=replace(second.message, action="decline", model_version="v2"))
    assert store.claim([later]) == [conflict]
    # and the first one's claim remains, also for a copy of it
    assert store.claim([first]) == [first]
    assert store.claim([make_decision("o1", "decline", "v2", "u1", offset=9, digest="aa")]) == [first]
    assert read_decision(client.pipeline([("GET", "shop:decision:o1")])[0]) == first.message


def test_a_declined_order_stays_declined_if_its_id_is_taken(store: ClaimStore) -> None:
    store.claim([make_decision("o1", user="u1", digest="aa")])

    (conflict,) = store.claim([make_decision("o1", "decline", user="u2", offset=8, digest="bb")])

    assert conflict.message.action == "decline"
    assert conflict.message.reasons[-1] == ID_TAKEN


def test_two_orders_with_one_id_in_a_batch_are_decided_apart(store: ClaimStore) -> None:
    # given
    first, second = make_decision("o1", user="u1", digest="aa"), make_decision("o1", user="u2", offset=8, digest="bb")
    # when
    answers = store.claim([first, second, first, second])
    # then
    assert answers[0] == answers[2] == first
    assert answers[1] == answers[3]
    assert (answers[1].message.user_id, answers[1].message.action) == ("u2", "review")


def test_a_repeated_record_is_no_conflict_although_a_release_reads_it_otherwise(store: ClaimStore) -> None:
    store.claim([make_decision("o1", "decline", digest="aa")])

    assert store.claim([make_decision("o1", digest="bb")])[0].message.action == "decline"


def test_a_claim_of_the_former_release_is_read(store: ClaimStore, client: RedisClient) -> None:
    # given one without a digest
    first = make_decision("o1", "decline", user="u1")
    value = claim_store.to_stored(first).replace(b',"digest":""', b"")
    client.pipeline([("SET", "shop:decision:o1", value)])
    # then it is the answer to its user's order, and to no other one's
    assert store.claim([make_decision("o1", user="u1", offset=8, digest="aa")]) == [first]
    assert store.claim([make_decision("o1", user="u2", offset=9, digest="bb")])[0].message.action == "review"


def test_an_erasure_deletes_the_claims_of_its_user_and_not_those_of_others_with_the_same_id(
    store: ClaimStore, client: RedisClient
) -> None:
    # given
    first, second = (
        make_decision("o1", user="u1", ts_ms=5, digest="aa"),
        make_decision("o1", user="u2", ts_ms=5, offset=8, digest="bb"),
    )
    store.claim([first, second])
    # when
    store.delete_answered([ClaimKey(DECISION, "u2", "o1", "bb")])
    assert client.pipeline([("KEYS", "shop:decision:*")]) == [[b"shop:decision:o1"]]
    store.claim([second])
    store.delete_erased({"u2": 5}, lambda topic, partition, offset: True)
    # then
    assert client.pipeline([("KEYS", "shop:decision:*")]) == [[b"shop:decision:o1"]]
    # and when the first one is erased too
    store.delete_erased({"u1": 5}, lambda topic, partition, offset: True)
    assert client.pipeline([("KEYS", "shop:deci*")]) == [[]]


def test_a_user_listed_for_another_one_s_claim_does_not_delete_it(store: ClaimStore, client: RedisClient) -> None:
    # given a list of the former release, which listed every user who sent an id
    store.claim([make_decision("o1", user="u1", ts_ms=5)])
    bucket = UserKeyIndex(client=client, prefix="shop:decided:").key("u2")
    client.pipeline([("ZADD", bucket, 2**40, "u2:o1")])
    # when
    store.delete_erased({"u2": 5}, lambda topic, partition, offset: True)
    # then
    assert find_remaining(client, "o1") == [1]
    assert client.pipeline([("ZSCORE", bucket, "u2:o1")]) == [None]


@pytest.mark.parametrize("former_ttl_s", [60, 86_400, 90 * 86_400])
def test_an_erasure_finds_what_was_claimed_under_a_former_setting(client: RedisClient, former_ttl_s: int) -> None:
    # given
    former = ClaimStore(client=client, prefix="shop:", ttl_s=former_ttl_s)
    former.claim([make_decision("o1", user="u1", ts_ms=5)])
    # when
    ClaimStore(client=client, prefix="shop:", ttl_s=3_600).delete_erased({"u1": 5}, lambda *_: True)
    # then
    assert find_remaining(client, "o1") == [0]


@pytest.mark.parametrize(
    "spoil",
    [
        ("SET", "shop:decision:o1", '{"old":1}'),
        ("SET", "shop:decision:o1", b"\xff\xfe"),
        ("SET", "shop:decision:o1", '{"scored":"@@"}'),
        ("SET", "shop:decision:o1", '{"scored":"wKg="}'),
        ("SET", "shop:decision:o1", ""),
        ("HSET", "shop:decision:o1", "a", "b"),
        ("LPUSH", "shop:decision:o1", "a"),
    ],
)
def test_an_unreadable_claim_is_none_and_is_replaced(
    store: ClaimStore, client: RedisClient, spoil: tuple[str, ...]
) -> None:
    # given
    client.pipeline([spoil])
    answers = [make_decision("o1", "decline"), make_decision("o2")]
    # when
    with assert_increases(metrics.UNREADABLE_KEYS.labels("claim")):
        assert store.claim(answers) == answers
    # then
    assert store.claim([make_decision("o1")])[0].message.action == "decline"
    assert 0 < client.pipeline([("TTL", "shop:decision:o1")])[0] <= 60


def test_an_unreadable_claim_listed_for_an_erased_user_is_deleted(store: ClaimStore, client: RedisClient) -> None:
    # given
    store.claim([make_decision("o1", user="u1", ts_ms=5), make_decision("o2", user="u1", ts_ms=5)])
    client.pipeline([("SET", "shop:decision:o1", "x"), ("DEL", "shop:decision:o2"), ("HSET", "shop:decision:o2", 1, 2)])
    # when
    store.delete_erased({"u1": 5}, lambda *_: True)
    # then
    assert find_remaining(client, "o1", "o2") == [0, 0]


def test_an_index_of_another_type_is_replaced(store: ClaimStore, client: RedisClient) -> None:
    # given
    key = UserKeyIndex(client=client, prefix="shop:decided:").key("u1")
    client.pipeline([("SET", key, "x")])
    # when
    with assert_increases(metrics.UNREADABLE_KEYS.labels("index")):
        store.claim([make_decision("o1", user="u1")])
    # then
    assert client.pipeline([("ZRANGE", key, 0, -1)]) == [[b"u1:o1"]]


def test_decisions_under_any_ids_are_claimed_apart_and_erased(store: ClaimStore, client: RedisClient) -> None:
    # given orders whose ids would be each other's keys if they were not escaped
    idents = ["o", "o:d", "o%3Ad", "{o}", "gid://shop/Order/1", "Größe"]
    users = ["u", "u:o", "u*", "{u}", "auth0|5f", "ü"]
    answers = [make_decision(ident, user=user, ts_ms=100) for ident, user in zip(idents, users, strict=True)]
    # when they are claimed twice
    store.claim(answers)
    # then each has its own
    assert [answer.message.event_id for answer in store.claim(answers)] == idents
    assert find_remaining(client, *(escape_id(ident) for ident in idents)) == [1] * 6
    # when every second user is erased
    store.delete_erased(dict.fromkeys(users[::2], 100), lambda topic, partition, offset: True)
    # then
    assert find_remaining(client, *(escape_id(ident) for ident in idents)) == [0, 1] * 3
