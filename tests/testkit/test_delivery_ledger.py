"""The ledger of guarantees notices whatever it promises to notice."""

from typing import Any

import msgspec
import pytest

from contract.messages import DeadLetter, Decision, ScoredRow
from testkit.audits.delivery_ledger import BadRecord, DeliveryLedger
from testkit.environment.kafka_log import RecordPosition

RECORD_AT = RecordPosition("shop.orders", 1, 7)
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


def make_dead_letter(record_at: RecordPosition = RECORD_AT, reason: str = "not_json") -> DeadLetter:
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
def kept() -> DeliveryLedger:
    """A ledger in which every promise was kept."""
    ledger = DeliveryLedger()
    ledger.record_order("o1")
    ledger.record_click("c1")
    ledger.record_bad_record(RECORD_AT, BAD_RECORD)
    ledger.record_decision(make_decision())
    ledger.record_cached([make_decision()])
    ledger.record_scored_row(make_row("order", "o1"))
    ledger.record_scored_row(make_row("click", "c1"))
    ledger.record_dead_letter(make_dead_letter(), BAD_RECORD.key, BAD_RECORD.value)
    return ledger


def test_kept_promises_are_not_complained_of(kept: DeliveryLedger) -> None:
    assert (kept.find_lost(), kept.find_conflicts(), kept.count_duplicates()) == ([], [], 0)


def test_everything_that_did_not_come_is_lost() -> None:
    # given
    ledger = DeliveryLedger()
    ledger.record_order("o1")
    ledger.record_click("c1")
    ledger.record_bad_record(RECORD_AT, BAD_RECORD)
    # then
    assert ledger.find_lost() == [
        "order o1 has no decision",
        "order o1 has no cached decision",
        "order o1 has no scored row",
        "click c1 has no scored row",
        f"bad record {RECORD_AT} has no dead letter",
    ]


@pytest.mark.parametrize(
    "changes", [{"action": "review"}, {"probability": {"fraud": 0.26}}, {"reasons": ("r",)}, {"model_version": "v2"}]
)
def test_copies_of_a_decision_that_differ_are_in_conflict(kept: DeliveryLedger, changes: dict[str, Any]) -> None:
    kept.record_decision(make_decision(**changes))
    assert len(kept.find_conflicts()) == 1


def test_a_cache_that_says_something_else_is_in_conflict(kept: DeliveryLedger) -> None:
    kept.record_cached([make_decision(action="decline")])
    assert len(kept.find_conflicts()) == 1


def test_an_answer_that_nobody_asked_for_is_in_conflict(kept: DeliveryLedger) -> None:
    kept.record_decision(make_decision("o9"))
    assert kept.find_conflicts() == ["order o9 was decided and never produced"]


@pytest.mark.parametrize(
    ("place", "reason", "key", "value"),
    [
        (RecordPosition("shop.orders", 1, 8), "not_json", b"u1", b"hello"),
        (RECORD_AT, "empty", b"u1", b"hello"),
        (RECORD_AT, "not_json", None, b"hello"),
        (RECORD_AT, "not_json", b"u1", b"hell"),
        (RECORD_AT, "not_json", b"u1", None),
    ],
    ids=["of another record", "for another reason", "without its key", "cut short", "without its bytes"],
)
def test_a_dead_letter_that_does_not_tell_the_truth_is_in_conflict(
    kept: DeliveryLedger, place: RecordPosition, reason: str, key: bytes | None, value: bytes | None
) -> None:
    kept.record_dead_letter(make_dead_letter(place, reason), key, value)
    assert len(kept.find_conflicts()) == 1


def test_identical_copies_are_duplicates_and_no_conflict(kept: DeliveryLedger) -> None:
    # when every answer comes once more
    kept.record_decision(make_decision())
    kept.record_scored_row(make_row("order", "o1"))
    kept.record_scored_row(make_row("click", "c1"))
    kept.record_dead_letter(make_dead_letter(), BAD_RECORD.key, BAD_RECORD.value)
    # then
    assert (kept.count_duplicates(), kept.find_conflicts()) == (4, [])


def test_an_order_that_was_produced_twice_may_be_answered_twice(kept: DeliveryLedger) -> None:
    # given
    kept.record_order("o1")
    # when
    kept.record_decision(make_decision())
    kept.record_scored_row(make_row("order", "o1"))
    # then
    assert kept.count_duplicates() == 0
