"""Card precision against a plain implementation of the handbook's definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics.fraud import card_precision, mask_known_cards

Payment = tuple[float, float, str, int]  # label, prediction, card, day
PAYMENTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0]), st.integers(0, 5).map(float), st.sampled_from("abcdefgh"), st.integers(0, 3)
    ),
    min_size=1,
    max_size=40,
)


def to_columns(payments: list[Payment]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    y, p, card, day = zip(*payments, strict=True)
    return np.array(y), np.array(p), np.array(card, object), np.array(day)


@settings(max_examples=40)
@given(PAYMENTS, st.sampled_from([1, 3, 100]))
def test_each_day_checks_the_most_suspicious_cards_and_blocks_the_compromised_ones(
    payments: list[Payment], cards: int
) -> None:
    assert card_precision(*to_columns(payments), cards=cards) == pytest.approx(
        compute_expected_precision(payments, cards)
    )


def compute_expected_precision(payments: list[Payment], cards: int) -> float:
    blocked, days = set[str](), list[float]()
    for day in sorted({payment[3] for payment in payments}):
        highest, fraud = dict[str, float](), set[str]()
        for y, p, card, when in payments:
            if when == day and card not in blocked:
                highest[card] = max(p, highest.get(card, -1.0))
                fraud |= {card} if y else set()
        checked = sorted(highest, key=lambda card: (-highest[card], card))[:cards]
        days.append(len(fraud & set(checked)) / cards)
        blocked |= fraud & set(checked)
    return sum(days) / len(days)


def test_a_blocked_card_is_not_counted_again_the_next_day() -> None:
    same_card = to_columns([(1.0, 0.9, "a", 0), (1.0, 0.9, "a", 1)])
    two_cards = to_columns([(1.0, 0.9, "a", 0), (1.0, 0.9, "b", 1)])

    assert card_precision(*same_card, cards=1) == 0.5
    assert card_precision(*two_cards, cards=1) == 1.0


def test_card_precision_is_nan_without_rows_or_with_predictions_that_are_not_finite() -> None:
    y, p, card, day = to_columns([(1.0, 0.9, "a", 0), (0.0, np.nan, "b", 0)])

    assert np.isnan(card_precision(y, p, card, day))
    assert np.isnan(card_precision(y[:0], p[:0], card[:0], day[:0]))


def test_a_card_is_known_from_the_first_day_that_begins_after_its_label() -> None:
    y, card = np.array([1.0, 0.0, 0.0, 0.0, np.nan]), np.array(["a", "a", "a", "b", "b"], object)
    day_start_ms = np.array([0, 99, 100, 100, 100])
    known_ms = np.array([100, 50, 50, 50, 0])

    assert mask_known_cards(y, card, day_start_ms, known_ms).tolist() == [False, False, True, False, False]
