"""The ledger of guarantees notices whatever it promises to notice."""

from typing import Any

import msgspec
import pytest

from bench.guarantee import BadRecord, GuaranteeLedger, Place
from contract.messages import DeadLetter, Decision, ScoredRow

RECORD_AT = Place("shop.orders", 1, 7)
BAD_RECORD = BadRecord(b"u1", b"hello", "not_json")


def make_decision(event_id: str = "o1", **changes: Any) -> Decision:
    whole = Decision(
        event_id=event_id,
        user_id="u1",
        ts_ms=1,
        probability={"fraud": 0.25},
        action="approve",
        reasons=(),
        model_version="v1",
    )
    return msgspec.structs.replace(whole, **changes)


def make_row(kind: str, event_id: str) -> ScoredRow:
    return ScoredRow(
        event_id=event_id,
        kind=kind,  # type: ignore[arg-type]
        user_id="u1",
        ts_ms=1,
        topic="t",
        partition=0,
        offset=0,
        model_version="v1",
        features="f",
        groups={},
    )


def make_dead_letter(record_at: Place = RECORD_AT, reason: str = "not_json") -> DeadLetter:
    topic, partition, offset = record_at
    return DeadLetter(
        reason=reason,
        error="BadEvent",
        detail="why",
        topic=topic,
        partition=partition,
        offset=offset,
        attempts=1,
        model_version="v1",
    )


@pytest.fixture
def kept() -> GuaranteeLedger:
    """A ledger in which every promise was kept."""
    ledger = GuaranteeLedger()
    ledger.ordered("o1")
    ledger.clicked("c1")
    ledger.spoiled(RECORD_AT, BAD_RECORD)
    ledger.decided(make_decision())
    ledger.cached([make_decision()])
    ledger.scored(make_row("order", "o1"))
    ledger.scored(make_row("click", "c1"))
    ledger.buried(make_dead_letter(), BAD_RECORD.key, BAD_RECORD.value)
    return ledger


def test_kept_promises_are_not_complained_of(kept: GuaranteeLedger) -> None:
    assert (kept.lost(), kept.conflicting(), kept.duplicates()) == ([], [], 0)


def test_everything_that_did_not_come_is_lost() -> None:
    # given
    ledger = GuaranteeLedger()
    ledger.ordered("o1")
    ledger.clicked("c1")
    ledger.spoiled(RECORD_AT, BAD_RECORD)
    # then
    assert ledger.lost() == [
        "order o1 has no decision",
        "order o1 has no cached decision",
        "order o1 has no scored row",
        "click c1 has no scored row",
        f"bad record {RECORD_AT} has no dead letter",
    ]


@pytest.mark.parametrize(
    "changes", [{"action": "review"}, {"probability": {"fraud": 0.26}}, {"reasons": ("r",)}, {"model_version": "v2"}]
)
def test_copies_of_a_decision_that_differ_are_in_conflict(kept: GuaranteeLedger, changes: dict[str, Any]) -> None:
    kept.decided(make_decision(**changes))
    assert len(kept.conflicting()) == 1


def test_a_cache_that_says_something_else_is_in_conflict(kept: GuaranteeLedger) -> None:
    kept.cached([make_decision(action="decline")])
    assert len(kept.conflicting()) == 1


def test_an_answer_that_nobody_asked_for_is_in_conflict(kept: GuaranteeLedger) -> None:
    kept.decided(make_decision("o9"))
    assert kept.conflicting() == ["nobody made the order o9 that was decided"]


@pytest.mark.parametrize(
    ("place", "reason", "key", "value"),
    [
        (Place("shop.orders", 1, 8), "not_json", b"u1", b"hello"),
        (RECORD_AT, "empty", b"u1", b"hello"),
        (RECORD_AT, "not_json", None, b"hello"),
        (RECORD_AT, "not_json", b"u1", b"hell"),
        (RECORD_AT, "not_json", b"u1", None),
    ],
    ids=["of another record", "for another reason", "without its key", "cut short", "without its bytes"],
)
def test_a_dead_letter_that_does_not_tell_the_truth_is_in_conflict(
    kept: GuaranteeLedger, place: Place, reason: str, key: bytes | None, value: bytes | None
) -> None:
    kept.buried(make_dead_letter(place, reason), key, value)
    assert len(kept.conflicting()) == 1


def test_identical_copies_are_duplicates_and_no_conflict(kept: GuaranteeLedger) -> None:
    # when every answer comes once more
    kept.decided(make_decision())
    kept.scored(make_row("order", "o1"))
    kept.scored(make_row("click", "c1"))
    kept.buried(make_dead_letter(), BAD_RECORD.key, BAD_RECORD.value)
    # then
    assert (kept.duplicates(), kept.conflicting()) == (4, [])


def test_an_order_that_was_produced_twice_may_be_answered_twice(kept: GuaranteeLedger) -> None:
    # given
    kept.ordered("o1")
    # when
    kept.decided(make_decision())
    kept.scored(make_row("order", "o1"))
    # then
    assert kept.duplicates() == 0
