"""The delivery ledger detects every kind of lost, contradicting or duplicate answer."""

from typing import Any

import msgspec
import pytest

from contract.messages import DeadLetter, Decision, ScoredRow
from testkit.audits.delivery_ledger import BadRecord, DeliveryLedger
from testkit.environment.kafka_log import RecordPosition

POSITION = RecordPosition("shop.orders", 1, 7)
BAD_RECORD = BadRecord(b"u1", b"hello", "not_json")


def make_decision(event_id: str = "o1", **changes: Any) -> Decision:
    decision = Decision(
        event_id=event_id,
        user_id="u1",
        ts_ms=1,
        probability={"fraud": 0.25},
        action="approve",
        reasons=(),
        model_version="v1",
    )
    return msgspec.structs.replace(decision, **changes)


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


def make_dead_letter(position: RecordPosition = POSITION, reason: str = "not_json") -> DeadLetter:
    topic, partition, offset = position
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
def complete_ledger() -> DeliveryLedger:
    """A ledger in which every promise is kept."""
    ledger = DeliveryLedger()
    ledger.record_order("o1")
    ledger.record_click("c1")
    ledger.record_bad_record(POSITION, BAD_RECORD)
    ledger.record_decision(make_decision())
    ledger.record_cached([make_decision()])
    ledger.record_scored_row(make_row("order", "o1"))
    ledger.record_scored_row(make_row("click", "c1"))
    ledger.record_dead_letter(make_dead_letter(), BAD_RECORD.key, BAD_RECORD.value)
    return ledger


def test_a_complete_ledger_has_no_violations(complete_ledger: DeliveryLedger) -> None:
    assert (complete_ledger.find_lost(), complete_ledger.find_conflicts(), complete_ledger.count_duplicates()) == (
        [],
        [],
        0,
    )


def test_every_missing_output_is_lost() -> None:
    # given
    ledger = DeliveryLedger()
    ledger.record_order("o1")
    ledger.record_click("c1")
    ledger.record_bad_record(POSITION, BAD_RECORD)
    # then
    assert ledger.find_lost() == [
        "order o1 has no decision",
        "order o1 has no cached decision",
        "order o1 has no scored row",
        "click c1 has no scored row",
        f"bad record {POSITION} has no dead letter",
    ]


@pytest.mark.parametrize(
    "changes", [{"action": "review"}, {"probability": {"fraud": 0.26}}, {"reasons": ("r",)}, {"model_version": "v2"}]
)
def test_copies_of_a_decision_that_differ_are_in_conflict(
    complete_ledger: DeliveryLedger, changes: dict[str, Any]
) -> None:
    complete_ledger.record_decision(make_decision(**changes))
    assert len(complete_ledger.find_conflicts()) == 1


def test_a_differing_cached_decision_is_in_conflict(complete_ledger: DeliveryLedger) -> None:
    complete_ledger.record_cached([make_decision(action="decline")])
    assert len(complete_ledger.find_conflicts()) == 1


def test_a_decision_without_an_order_is_in_conflict(complete_ledger: DeliveryLedger) -> None:
    complete_ledger.record_decision(make_decision("o9"))
    assert complete_ledger.find_conflicts() == ["order o9 was decided and never produced"]


@pytest.mark.parametrize(
    ("position", "reason", "key", "value"),
    [
        (RecordPosition("shop.orders", 1, 8), "not_json", b"u1", b"hello"),
        (POSITION, "empty", b"u1", b"hello"),
        (POSITION, "not_json", None, b"hello"),
        (POSITION, "not_json", b"u1", b"hell"),
        (POSITION, "not_json", b"u1", None),
    ],
    ids=["of another record", "for another reason", "without its key", "cut short", "without its bytes"],
)
def test_a_dead_letter_that_differs_from_its_record_is_in_conflict(
    complete_ledger: DeliveryLedger, position: RecordPosition, reason: str, key: bytes | None, value: bytes | None
) -> None:
    complete_ledger.record_dead_letter(make_dead_letter(position, reason), key, value)
    assert len(complete_ledger.find_conflicts()) == 1


def test_identical_copies_are_duplicates_and_not_conflicts(complete_ledger: DeliveryLedger) -> None:
    # when every answer is published again
    complete_ledger.record_decision(make_decision())
    complete_ledger.record_scored_row(make_row("order", "o1"))
    complete_ledger.record_scored_row(make_row("click", "c1"))
    complete_ledger.record_dead_letter(make_dead_letter(), BAD_RECORD.key, BAD_RECORD.value)
    # then
    assert (complete_ledger.count_duplicates(), complete_ledger.find_conflicts()) == (4, [])


def test_an_order_produced_twice_may_be_answered_twice(complete_ledger: DeliveryLedger) -> None:
    # given
    complete_ledger.record_order("o1")
    # when
    complete_ledger.record_decision(make_decision())
    complete_ledger.record_scored_row(make_row("order", "o1"))
    # then
    assert complete_ledger.count_duplicates() == 0
