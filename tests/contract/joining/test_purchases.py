"""What was bought after a click."""

import pytest

from tests.contract.joining.shop import (
    FEEDBACK,
    HOUR,
    at,
    click,
    examples,
    fates,
    give,
    joiner,
    order,
    row,
    said,
    shown,
)

LIST = row("recommendation", "r", 0, ("a", "b"))
CLICKED = (LIST, shown(1, "a"), click(2, "a"))
BOUGHT = {"click": 1.0, "purchase": 1.0}
NOT_BOUGHT = {"click": 1.0, "purchase": 0.0}


def test_an_order_with_the_clicked_item_is_a_purchase() -> None:
    given = joiner(*CLICKED, order(30, "x", "a"))

    assert said(given) == [("r~a", 1, {"click": 1.0}), ("r~a", 3, BOUGHT)]


def test_a_purchase_is_known_from_its_order_on() -> None:
    given = joiner(*CLICKED, order(30, "a"))

    assert examples(given)["r~a"].known_ms == {"click": at(2), "purchase": at(30)}


@pytest.mark.parametrize("other", [order(30, "b"), order(30, "a", user="v"), order(1.9, "a")])
def test_other_items_other_users_and_earlier_orders_are_no_purchase(other: object) -> None:
    given = joiner(*CLICKED, other)  # type: ignore[arg-type]

    assert said(given) == [("r~a", 1, {"click": 1.0})]


def test_no_purchase_is_said_once_the_wait_is_past_and_not_before() -> None:
    given = joiner(*CLICKED)
    given.take()

    given.advance(at(62))
    assert [e for e in said(given) if e[0] == "r~a"] == []
    given.advance(at(62) + 1)

    found = examples(given)["r~a"]
    assert (found.revision, found.labels) == (2, NOT_BOUGHT)
    assert found.known_ms == {"click": at(2), "purchase": at(62)}


def test_a_purchase_within_the_window_corrects_and_one_after_it_does_not() -> None:
    within, after = joiner(*CLICKED), joiner(*CLICKED)
    for one in (within, after):
        one.advance(at(62) + 1)
        one.take()

    give(within, order(2 + 600, "a"))
    give(after, order(2 + 600.1, "a"))

    assert said(within) == [("r~a", 3, BOUGHT)]
    assert said(after) == []


def test_a_purchase_after_the_wait_is_a_correction_even_if_no_timer_came_by() -> None:
    given = joiner(*CLICKED, order(63, "a"))

    assert [(revision, labels) for _, revision, labels in said(given)] == [
        (1, {"click": 1.0}),
        (2, NOT_BOUGHT),
        (3, BOUGHT),
    ]


def test_an_order_that_is_read_before_its_click_is_a_purchase_all_the_same() -> None:
    given = joiner(LIST, shown(1, "a"), order(30, "a"), click(2, "a"))

    assert said(given) == [("r~a", 1, {"click": 1.0}), ("r~a", 3, BOUGHT)]


def test_an_item_clicked_in_two_lists_is_bought_from_both() -> None:
    second = (row("recommendation", "q", 5, ("a",)), shown(6, "a", of="q"), click(7, "a", of="q"))

    given = joiner(*CLICKED, *second, order(30, "a"))

    found = examples(given)
    assert found["r~a"].labels == found["q~a"].labels == BOUGHT


def test_a_second_order_says_nothing_new() -> None:
    given = joiner(*CLICKED, order(30, "a"), order(31, "a"))

    assert [revision for _, revision, _ in said(given)] == [1, 3]


def test_a_clicked_item_waits_from_its_list_on_and_leaves_after_window_and_grace() -> None:
    given = joiner(*CLICKED)
    leaves_ms = at(2) + 10 * HOUR + at(15)

    given.advance(leaves_ms)
    assert given.oldest_open_ms() == 0
    given.advance(leaves_ms + 1)
    assert given.oldest_open_ms() is None


def test_the_oldest_clicked_items_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"rows_max": 1})

    given = joiner(LIST, shown(1, "a", "b"), click(2, "a"), click(3, "b"), order(30, "a", "b"), feedback=few)

    assert [(ident, revision) for ident, revision, _ in said(given)] == [("r~a", 1), ("r~b", 1), ("r~b", 3)]
    assert fates(given) == {("crowded", "purchase"): 1}
