"""What was bought after a click."""

import pytest

from contract.units import HOUR_MS
from tests.contract.joining.builders import (
    FEEDBACK,
    count_outcomes,
    feed_joiner,
    make_click,
    make_impression,
    make_joiner,
    make_order,
    make_row,
    minutes_to_ms,
    take_labels,
    take_newest_examples,
)

LIST = make_row("recommendation", "r", 0, ("a", "b"))
CLICKED = (LIST, make_impression(1, "a"), make_click(2, "a"))
BOUGHT = {"click": 1.0, "purchase": 1.0}
NOT_BOUGHT = {"click": 1.0, "purchase": 0.0}


def test_an_order_with_the_clicked_item_is_a_purchase() -> None:
    given = make_joiner(*CLICKED, make_order(30, "x", "a"))

    assert take_labels(given) == [("r~a", 1, {"click": 1.0}), ("r~a", 3, BOUGHT)]


def test_a_purchase_is_known_from_its_order_on() -> None:
    given = make_joiner(*CLICKED, make_order(30, "a"))

    assert take_newest_examples(given)["r~a"].known_ms == {"click": minutes_to_ms(2), "purchase": minutes_to_ms(30)}


@pytest.mark.parametrize("other", [make_order(30, "b"), make_order(30, "a", user="v"), make_order(1.9, "a")])
def test_other_items_other_users_and_earlier_orders_are_no_purchase(other: object) -> None:
    given = make_joiner(*CLICKED, other)  # type: ignore[arg-type]

    assert take_labels(given) == [("r~a", 1, {"click": 1.0})]


def test_no_purchase_is_said_once_the_wait_is_past_and_not_before() -> None:
    given = make_joiner(*CLICKED)
    given.drain()

    given.advance(minutes_to_ms(62))
    assert [e for e in take_labels(given) if e[0] == "r~a"] == []
    given.advance(minutes_to_ms(62) + 1)

    actual = take_newest_examples(given)["r~a"]
    assert (actual.revision, actual.labels) == (2, NOT_BOUGHT)
    assert actual.known_ms == {"click": minutes_to_ms(2), "purchase": minutes_to_ms(62)}


def test_a_purchase_within_the_window_corrects_and_one_after_it_does_not() -> None:
    within, after = make_joiner(*CLICKED), make_joiner(*CLICKED)
    for one in (within, after):
        one.advance(minutes_to_ms(62) + 1)
        one.drain()

    feed_joiner(within, make_order(2 + 600, "a"))
    feed_joiner(after, make_order(2 + 600.1, "a"))

    assert take_labels(within) == [("r~a", 3, BOUGHT)]
    assert take_labels(after) == []


def test_a_purchase_after_the_wait_is_a_correction_even_if_no_timer_came_by() -> None:
    given = make_joiner(*CLICKED, make_order(63, "a"))

    assert [(revision, labels) for _, revision, labels in take_labels(given)] == [
        (1, {"click": 1.0}),
        (2, NOT_BOUGHT),
        (3, BOUGHT),
    ]


def test_an_order_that_is_read_before_its_click_is_a_purchase_all_the_same() -> None:
    given = make_joiner(LIST, make_impression(1, "a"), make_order(30, "a"), make_click(2, "a"))

    assert take_labels(given) == [("r~a", 1, {"click": 1.0}), ("r~a", 3, BOUGHT)]


def test_an_item_clicked_in_two_lists_is_bought_from_both() -> None:
    second = (
        make_row("recommendation", "q", 5, ("a",)),
        make_impression(6, "a", recommendation_id="q"),
        make_click(7, "a", recommendation_id="q"),
    )

    given = make_joiner(*CLICKED, *second, make_order(30, "a"))

    actual = take_newest_examples(given)
    assert actual["r~a"].labels == actual["q~a"].labels == BOUGHT


def test_a_second_order_says_nothing_new() -> None:
    given = make_joiner(*CLICKED, make_order(30, "a"), make_order(31, "a"))

    assert [revision for _, revision, _ in take_labels(given)] == [1, 3]


def test_a_clicked_item_waits_from_its_list_on_and_leaves_after_window_and_grace() -> None:
    given = make_joiner(*CLICKED)
    leaves_ms = minutes_to_ms(2) + 10 * HOUR_MS + minutes_to_ms(15)

    given.advance(leaves_ms)
    assert given.oldest_pending_ms() == 0
    given.advance(leaves_ms + 1)
    assert given.oldest_pending_ms() is None


def test_the_oldest_clicked_items_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"rows_max": 1})

    given = make_joiner(
        LIST,
        make_impression(1, "a", "b"),
        make_click(2, "a"),
        make_click(3, "b"),
        make_order(30, "a", "b"),
        feedback=few,
    )

    assert [(ident, revision) for ident, revision, _ in take_labels(given)] == [("r~a", 1), ("r~b", 1), ("r~b", 3)]
    assert count_outcomes(given) == {("crowded", "purchase"): 1}
