"""Purchases after a click."""

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
    joiner = make_joiner(*CLICKED, make_order(30, "x", "a"))

    assert take_labels(joiner) == [("r~a", 1, {"click": 1.0}), ("r~a", 3, BOUGHT)]


def test_a_purchase_is_known_at_the_time_of_its_order() -> None:
    joiner = make_joiner(*CLICKED, make_order(30, "a"))

    assert take_newest_examples(joiner)["r~a"].known_ms == {"click": minutes_to_ms(2), "purchase": minutes_to_ms(30)}


@pytest.mark.parametrize("other", [make_order(30, "b"), make_order(30, "a", user="v"), make_order(1.9, "a")])
def test_other_items_other_users_and_earlier_orders_do_not_count(other: object) -> None:
    joiner = make_joiner(*CLICKED, other)  # type: ignore[arg-type]

    assert take_labels(joiner) == [("r~a", 1, {"click": 1.0})]


def test_the_negative_label_is_emitted_after_the_wait() -> None:
    joiner = make_joiner(*CLICKED)
    joiner.drain()

    joiner.advance(minutes_to_ms(62))
    assert [e for e in take_labels(joiner) if e[0] == "r~a"] == []
    joiner.advance(minutes_to_ms(62) + 1)

    actual = take_newest_examples(joiner)["r~a"]
    assert (actual.revision, actual.labels) == (2, NOT_BOUGHT)
    assert actual.known_ms == {"click": minutes_to_ms(2), "purchase": minutes_to_ms(62)}


def test_a_purchase_within_the_window_corrects_and_a_later_one_does_not() -> None:
    within, after = make_joiner(*CLICKED), make_joiner(*CLICKED)
    for joiner in (within, after):
        joiner.advance(minutes_to_ms(62) + 1)
        joiner.drain()

    feed_joiner(within, make_order(2 + 600, "a"))
    feed_joiner(after, make_order(2 + 600.1, "a"))

    assert take_labels(within) == [("r~a", 3, BOUGHT)]
    assert take_labels(after) == []


def test_a_purchase_after_the_wait_corrects_even_before_the_timer_fires() -> None:
    joiner = make_joiner(*CLICKED, make_order(63, "a"))

    assert [(revision, labels) for _, revision, labels in take_labels(joiner)] == [
        (1, {"click": 1.0}),
        (2, NOT_BOUGHT),
        (3, BOUGHT),
    ]


def test_an_order_read_before_its_click_is_a_purchase() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a"), make_order(30, "a"), make_click(2, "a"))

    assert take_labels(joiner) == [("r~a", 1, {"click": 1.0}), ("r~a", 3, BOUGHT)]


def test_an_item_clicked_in_two_lists_is_bought_in_both() -> None:
    second = (
        make_row("recommendation", "q", 5, ("a",)),
        make_impression(6, "a", recommendation_id="q"),
        make_click(7, "a", recommendation_id="q"),
    )

    joiner = make_joiner(*CLICKED, *second, make_order(30, "a"))

    actual = take_newest_examples(joiner)
    assert actual["r~a"].labels == actual["q~a"].labels == BOUGHT


def test_a_second_order_emits_nothing() -> None:
    joiner = make_joiner(*CLICKED, make_order(30, "a"), make_order(31, "a"))

    assert [revision for _, revision, _ in take_labels(joiner)] == [1, 3]


def test_a_clicked_item_is_pending_from_its_list_until_window_and_grace_end() -> None:
    joiner = make_joiner(*CLICKED)
    removal_ms = minutes_to_ms(2) + 10 * HOUR_MS + minutes_to_ms(15)

    joiner.advance(removal_ms)
    assert joiner.oldest_pending_ms() == 0
    joiner.advance(removal_ms + 1)
    assert joiner.oldest_pending_ms() is None


def test_the_oldest_clicked_items_are_evicted_beyond_the_limit() -> None:
    limits = FEEDBACK.model_copy(update={"rows_max": 1})

    joiner = make_joiner(
        LIST,
        make_impression(1, "a", "b"),
        make_click(2, "a"),
        make_click(3, "b"),
        make_order(30, "a", "b"),
        feedback=limits,
    )

    assert [(ident, revision) for ident, revision, _ in take_labels(joiner)] == [("r~a", 1), ("r~b", 1), ("r~b", 3)]
    assert count_outcomes(joiner) == {("crowded", "purchase"): 1}


def test_the_order_of_a_guest_is_no_purchase_of_another_guest_s_click() -> None:
    # given a list that was shown to no known user, and an order of a guest
    shown = (make_row("recommendation", "r", 0, ("a", "b"), user=""), make_impression(1, "a", user=""))
    joiner = make_joiner(*shown, make_click(2, "a", user=""), make_order(30, "a", user=""))
    # then
    assert "purchase" not in {task for _, _, labels in take_labels(joiner) for task in labels}
