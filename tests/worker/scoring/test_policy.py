"""Rules and thresholds: which action an order gets, and why."""

import math

import numpy as np
import pytest

from contract.features.declaration import Block
from contract.hashing import hash_id
from contract.settings.worker import Rule
from tests.worker.events import FEATURES
from worker.scoring.policy import DecisionPolicy, Outcome

AMOUNT = Rule(feature="order_amount", above=100, action="review", reason="a large amount")
DEVICE = Rule(feature="device_first_links_1d", above=5, action="decline", reason="a busy device")
FRAUD = {"fraud": {"review": 0.3, "decline": 0.8}}


def make_policy(*rules: Rule, thresholds: dict[str, dict[str, float]] = FRAUD) -> DecisionPolicy:
    return DecisionPolicy(rules=rules, thresholds=thresholds, features=FEATURES)


def make_blocks(**numbers: float) -> dict[str, Block]:
    """Two rows: nothing is known of the first, and these numbers of the second."""
    blocks = {group: FEATURES.empty_block(group, 2) for group in ("user", "order", "context")}
    for group, block in blocks.items():
        for column, feature in enumerate(FEATURES.numbers(group)):
            if feature.name in numbers:
                block.numbers[1, column] = numbers[feature.name]
    return blocks


def evaluate_second_row(policy: DecisionPolicy, blocks: dict[str, Block], **probability: float) -> Outcome:
    """The outcome of the second of two rows; the first one, with a probability of 0, is approved."""
    scores = {task: np.array([0.0, value]) for task, value in probability.items()}  # float64, for exact thresholds
    first, second = policy.evaluate(2, blocks, scores)
    assert first == ("approve", ())
    return second


@pytest.mark.parametrize(
    ("probability", "action"),
    [
        (0.0, "approve"),
        (np.nextafter(0.3, 0), "approve"),
        (0.3, "review"),
        (np.nextafter(0.8, 0), "review"),
        (0.8, "decline"),
    ],
)
def test_a_threshold_applies_from_its_value_on(probability: float, action: str) -> None:
    actual, reasons = evaluate_second_row(make_policy(), make_blocks(), fraud=probability)

    assert actual == action
    assert reasons == (() if action == "approve" else (f"fraud probability {probability:.2f}",))


@pytest.mark.parametrize(("amount", "action"), [(100.0, "approve"), (100.1, "review"), (math.nan, "approve")])
def test_a_rule_applies_above_its_number_and_not_to_unknown_values(amount: float, action: str) -> None:
    actual, reasons = evaluate_second_row(make_policy(AMOUNT), make_blocks(order_amount=amount))

    assert (actual, reasons) == (action, () if action == "approve" else ("a large amount",))


@pytest.mark.parametrize(
    ("amount", "action"), [(5.0, "approve"), (5.1, "review"), (9.9, "review"), (10.0, "approve"), (math.nan, "approve")]
)
def test_a_rule_with_both_bounds_applies_between_them(amount: float, action: str) -> None:
    rule = Rule(feature="order_amount", above=5, below=10, action="review", reason="a test of a stolen card")

    assert evaluate_second_row(make_policy(rule), make_blocks(order_amount=amount)).action == action


@pytest.mark.parametrize(("payment", "action"), [("voucher", "review"), ("card", "approve")])
def test_a_rule_applies_to_a_category_of_this_name(payment: str, action: str) -> None:
    rule = Rule(feature="payment_method", equals="voucher", action="review", reason="a voucher")
    blocks = make_blocks()
    spans = {span.feature.name: span.start for span in FEATURES.spans("order")}
    blocks["order"].ids[1, spans["payment_method"]] = hash_id(f"payment_method={payment}")

    assert evaluate_second_row(make_policy(rule), blocks).action == action


def test_a_rule_reads_only_its_own_row() -> None:
    scores = {"fraud": np.array([0.9, 0.1], np.float32)}
    actual = make_policy(AMOUNT, DEVICE).evaluate(2, make_blocks(order_amount=1e6), scores)

    assert actual == [("decline", ("fraud probability 0.90",)), ("review", ("a large amount",))]


def test_the_most_severe_action_wins_and_every_reason_is_given() -> None:
    # given a rule that reviews, a rule that declines, and a score that reviews
    blocks = make_blocks(order_amount=101, device_first_links_1d=6)
    # then
    assert evaluate_second_row(make_policy(DEVICE, AMOUNT), blocks, fraud=0.5) == (
        "decline",
        ("a busy device", "a large amount", "fraud probability 0.50"),
    )


def test_a_rule_cannot_soften_the_action_of_a_score() -> None:
    assert evaluate_second_row(make_policy(AMOUNT), make_blocks(order_amount=101), fraud=0.9).action == "decline"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_never_approves(score: float) -> None:
    outcome = evaluate_second_row(make_policy(), make_blocks(), fraud=score)

    assert outcome == ("review", ("the fraud score is not finite",))


def test_a_score_without_thresholds_approves_only_if_it_is_finite() -> None:
    assert evaluate_second_row(make_policy(thresholds={}), make_blocks(), fraud=0.99) == ("approve", ())
    assert evaluate_second_row(make_policy(thresholds={}), make_blocks(), fraud=math.nan).action == "review"
