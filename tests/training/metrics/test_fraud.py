"""Card precision against the handbook's own words, written plainly."""

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
def test_each_day_the_most_suspicious_cards_are_looked_at_and_found_ones_leave(
    payments: list[Payment], cards: int
) -> None:
    assert card_precision(*to_columns(payments), cards=cards) == pytest.approx(expected_precision(payments, cards))


def expected_precision(payments: list[Payment], cards: int) -> float:
    blocked, days = set[str](), list[float]()
    for day in sorted({payment[3] for payment in payments}):
        highest, fraud = dict[str, float](), set[str]()
        for y, p, card, when in payments:
            if when == day and card not in blocked:
                highest[card] = max(p, highest.get(card, -1.0))
                fraud |= {card} if y else set()
        looked_at = sorted(highest, key=lambda card: (-highest[card], card))[:cards]
        days.append(len(fraud & set(looked_at)) / cards)
        blocked |= fraud & set(looked_at)
    return sum(days) / len(days)


def test_a_card_that_was_found_is_not_found_again_the_next_day() -> None:
    again = to_columns([(1.0, 0.9, "a", 0), (1.0, 0.9, "a", 1)])
    two = to_columns([(1.0, 0.9, "a", 0), (1.0, 0.9, "b", 1)])

    assert card_precision(*again, cards=1) == 0.5
    assert card_precision(*two, cards=1) == 1.0


def test_without_rows_or_with_predictions_that_are_not_finite_it_is_nan() -> None:
    y, p, card, day = to_columns([(1.0, 0.9, "a", 0), (0.0, np.nan, "b", 0)])

    assert np.isnan(card_precision(y, p, card, day))
    assert np.isnan(card_precision(y[:0], p[:0], card[:0], day[:0]))


def test_a_card_is_known_from_the_first_day_that_begins_after_its_label_came() -> None:
    y, card = np.array([1.0, 0.0, 0.0, 0.0, np.nan]), np.array(["a", "a", "a", "b", "b"], object)
    day_start_ms = np.array([0, 99, 100, 100, 100])
    known_ms = np.array([100, 50, 50, 50, 0])

    assert mask_known_cards(y, card, day_start_ms, known_ms).tolist() == [False, False, True, False, False]
