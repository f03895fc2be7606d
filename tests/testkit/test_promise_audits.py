"""The objects that are asked for broken promises find each kind of them."""

import random
from pathlib import Path

from contract.bundle import read_bundle
from contract.events.model import Label
from contract.joining.examples import example_from_row
from contract.messages import Decision, ErasureConfirmation, ScoredRow, to_json
from testkit.audits.bundle_audit import BundleAudit
from testkit.audits.delivery_ledger import DeliveryLedger
from testkit.audits.erasure_audit import ErasureAudit
from testkit.audits.key_order import KeyOrderAudit
from testkit.audits.label_audit import LabelAudit
from testkit.chaos.fault_schedule import FaultDeck
from testkit.environment.tiny_bundle import publish_tiny
from transport.records import Record, TopicPartition

HOUR_MS = 3_600_000


def make_row(event_id: str, offset: int = 0, version: str = "", score: float = 0.5, user: str = "u") -> ScoredRow:
    return ScoredRow(
        event_id=event_id,
        kind="order",
        user_id=user,
        ts_ms=0,
        topic="shop.orders",
        partition=0,
        offset=offset,
        model_version=version,
        features="f",
        groups={},
        scores={"fraud": (score,)},
    )


def make_label(order: str, value: float, ts_ms: int = 5) -> Label:
    return Label(
        event_id=f"l-{order}-{value}", ts_ms=ts_ms, user_id="u", judged_event_id=order, task="fraud", value=value
    )


def make_decision(action: str) -> Decision:
    return Decision(
        event_id="o1",
        user_id="u",
        ts_ms=0,
        probability={},
        action=action,  # type: ignore[arg-type]  # a parameter of this test
        reasons=(),
        model_version="",
    )


def test_rows_of_one_user_out_of_order_are_found_and_repeated_ones_are_not() -> None:
    audit = KeyOrderAudit()

    for row in (make_row("o1", 1), make_row("o3", 3), make_row("o1", 1), make_row("x", 0, user="other")):
        audit.record_scored_row(row)
    assert audit.inversions == []

    audit.record_scored_row(make_row("o2", 2))
    assert len(audit.inversions) == 1


def test_a_label_that_no_example_has_is_found() -> None:
    # given
    audit, row = LabelAudit(lambda wall_ms: 0), make_row("o1")
    audit.record_scored_row(row)
    audit.record_label(make_label("o1", 1.0))
    assert len(audit.find_unjoined()) == 1
    assert audit.find_unjoined({"o1"}) == []
    # when
    audit.record_example(example_from_row(row, {"fraud": 1.0}, {"fraud": 5}, 2), 0)
    # then
    assert (audit.find_unjoined(), audit.find_early(), audit.find_wrong_features()) == ([], [], [])
    # and a newer revision that takes the label back is found
    audit.record_example(example_from_row(row, {"fraud": 0.0}, {"fraud": 0}, 3), 0)
    assert len(audit.find_unjoined()) == 1


def test_a_silent_negative_before_the_end_of_its_window_is_early() -> None:
    audit, row = LabelAudit(lambda wall_ms: wall_ms), make_row("o1")
    audit.record_scored_row(row)
    silent = example_from_row(row, {"fraud": 0.0}, {"fraud": 2 * HOUR_MS}, 1)

    audit.record_example(silent, 2 * HOUR_MS)
    assert audit.find_early() == []

    audit.record_example(example_from_row(make_row("o2"), {"fraud": 0.0}, {"fraud": 2 * HOUR_MS}, 1), HOUR_MS)
    assert len(audit.find_early()) == 1


def test_a_repeated_revision_and_foreign_features_are_found() -> None:
    audit, row = LabelAudit(lambda wall_ms: 0), make_row("o1")
    audit.record_scored_row(row)
    example = example_from_row(make_row("o1", score=0.9), {"fraud": 1.0}, {"fraud": 5}, 2)

    audit.record_example(example, 0)
    audit.record_example(example, 0)

    assert len(audit.duplicates) == 1
    assert len(audit.find_wrong_features()) >= 1


def test_orders_without_a_label_after_their_windows_are_found() -> None:
    audit = LabelAudit(lambda wall_ms: 0)
    audit.record_scored_row(make_row("o1"))

    assert audit.find_unlabelled(0) == []
    assert len(audit.find_unlabelled(1)) == 1
    assert audit.find_unlabelled(1, {"o1"}) == []


def test_an_erased_order_is_owed_a_decision_and_nothing_else() -> None:
    ledger = DeliveryLedger()
    ledger.record_order("o1")
    ledger.erased.add("o1")

    assert ledger.find_lost() == ["order o1 has no decision"]
    ledger.record_decision(make_decision("approve"))
    ledger.record_decision(make_decision("decline"))
    assert (ledger.find_lost(), ledger.find_conflicts()) == ([], [])


def test_an_order_whose_claim_was_lost_may_be_decided_twice() -> None:
    ledger = DeliveryLedger()
    ledger.record_order("o1")
    ledger.record_decision(make_decision("approve"))
    ledger.record_decision(make_decision("decline"))
    assert len(ledger.find_conflicts()) == 1

    ledger.unclaimed.add("o1")
    assert ledger.find_conflicts() == []


def test_an_erasure_is_confirmed_as_often_as_it_may_have_been_executed() -> None:
    # given
    audit = ErasureAudit()
    for ident in ("e1", "e2", "e2", "e3", "e3", "e3"):
        confirmation = ErasureConfirmation(event_id=ident, user_id="u", ts_ms=1)
        audit.record_confirmation(Record(TopicPartition("shop.erased", 0), 0, b"u", to_json(confirmation), (), 0))

    # then
    assert audit.find_repeated() == ["erasure e2 is confirmed 2 times", "erasure e3 is confirmed 3 times"]
    assert audit.find_repeated(2) == ["erasure e3 is confirmed 3 times"]
    assert audit.find_repeated(3) == []


def test_rows_of_no_published_bundle_and_half_bundles_are_found(tmp_path: Path) -> None:
    # given
    publish_tiny(tmp_path, "v0", 20.0)
    audit = BundleAudit({"v0": 20.0})
    audit.record_order(make_row("o1", version="v0", score=0.5), b'{"amount": 20.0}')
    assert (audit.wrong_scores, audit.find_half_bundles(tmp_path)) == ([], [])
    # when
    audit.record_order(make_row("o2", version="v1"), b'{"amount": 20.0}')
    audit.record_order(make_row("o3", version="v0", score=0.6), b'{"amount": 20.0}')
    name = next(name for name in read_bundle(tmp_path, "v0").files if name.endswith(".onnx"))
    (tmp_path / "v0" / name).write_bytes(b"half")
    # then
    assert len(audit.wrong_scores) == 2
    assert len(audit.find_half_bundles(tmp_path)) == 1


def test_a_deck_deals_every_fault_once_before_any_comes_again(seed: int) -> None:
    deck = FaultDeck("abcde", random.Random(seed))

    dealt = deck.deal(3) + deck.deal(4) + deck.deal(3)

    assert sorted(dealt[:5]) == sorted(dealt[5:]) == list("abcde")
