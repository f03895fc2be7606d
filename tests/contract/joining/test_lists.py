"""What was shown and clicked of a recommendation list."""

import numpy as np
import pytest
from msgspec.structs import replace

from contract.events import Event
from contract.rows import Packed, Scored
from tests.contract.joining.shop import (
    FEEDBACK,
    MINUTE,
    at,
    block,
    click,
    examples,
    fates,
    give,
    joiner,
    row,
    said,
    shown,
)

LIST = row("recommendation", "r", 0, ("a", "b", "c"))
NOT_CLICKED = {"click": 0.0, "purchase": 0.0}


def test_a_click_on_a_shown_item_is_an_example_at_once() -> None:
    given = joiner(LIST, shown(1, "a", "b"), click(2, "b"))

    assert said(given) == [("r~b", 1, {"click": 1.0})]


def test_an_example_carries_the_features_as_served_and_the_items_own_row() -> None:
    given = joiner(LIST, shown(1, "a", "b"), click(2, "b"))

    example = examples(given)["r~b"]

    assert example.groups.keys() == {"user", "context", "item"}
    assert (example.groups["user"], example.groups["context"]) == (block(1, 1000), block(1, 1001))
    assert example.groups["item"] == block(1, 2.0)  # the second of the list's rows, which start at 1
    assert np.array_equal(example.groups["item"].unpack().numbers, [[2.0, -2.0]])
    assert (example.event_id, example.item_id, example.user_id, example.ts_ms) == ("r", "b", "u", at(1))
    assert (example.model_version, example.features, example.entities) == ("m1", "f1", ("user:u", "device:d"))
    assert example.known_ms == {"click": at(2)}


def test_a_shown_item_without_a_click_is_a_negative_once_its_time_is_past_and_not_before() -> None:
    given = joiner(LIST, shown(1, "a", "b"))

    given.advance(at(31))
    assert said(given) == []

    given.advance(at(31) + 1)
    example = examples(given)
    assert example["r~a"].labels == example["r~b"].labels == NOT_CLICKED
    assert example["r~a"].revision == 0
    assert example["r~a"].known_ms == {"click": at(31), "purchase": at(31)}


def test_what_was_recommended_and_never_shown_is_no_example() -> None:
    given = joiner(LIST, shown(1, "a"))

    given.advance(at(1000))

    assert examples(given).keys() == {"r~a"}
    assert given.oldest_open_ms() is None


def test_a_click_at_the_last_moment_is_no_correction_and_one_after_it_is() -> None:
    in_time = joiner(LIST, shown(1, "a"), click(31, "a"))
    late = joiner(LIST, shown(1, "a"), click(31.1, "a"))

    assert said(in_time) == [("r~a", 1, {"click": 1.0})]
    assert said(late) == [("r~a", 0, NOT_CLICKED), ("r~a", 1, {"click": 1.0})]


def test_a_late_click_corrects_what_a_timer_has_said() -> None:
    given = joiner(LIST, shown(1, "a"))
    given.advance(at(40))
    assert said(given) == [("r~a", 0, NOT_CLICKED)]

    give(given, click(41, "a"))

    assert said(given) == [("r~a", 1, {"click": 1.0})]


def test_a_click_past_the_grace_is_late_and_says_nothing() -> None:
    in_grace = joiner(LIST, shown(1, "a"), click(46, "a"))
    past = joiner(LIST, shown(1, "a"), click(46.1, "a"))

    assert examples(in_grace)["r~a"].labels == {"click": 1.0}
    assert said(past) == []
    assert fates(past) == {("late", "click"): 1}


def test_a_second_click_or_impression_of_an_item_changes_nothing() -> None:
    given = joiner(LIST, shown(1, "a"), click(2, "a"), click(3, "a"), shown(9, "a"))

    given.advance(at(50))

    assert said(given) == [("r~a", 1, {"click": 1.0})]
    assert fates(given) == {("duplicate", "click"): 1}


def test_a_later_impression_of_the_same_list_shows_further_items() -> None:
    given = joiner(LIST, shown(1, "a"), shown(20, "a", "b"))

    given.advance(at(32))
    assert said(given) == [("r~a", 0, NOT_CLICKED)]
    given.advance(at(51))
    assert said(given) == [("r~b", 0, NOT_CLICKED)]


@pytest.mark.parametrize("turn", range(3))
def test_row_impression_and_click_may_come_in_any_order(turn: int) -> None:
    parts: list[Scored | Event] = [LIST, shown(1, "a", "b"), click(2, "b")]

    given = joiner(*parts[turn:], *parts[:turn])
    given.advance(at(40))

    found = examples(given)
    assert (found["r~b"].labels, found["r~b"].revision) == ({"click": 1.0}, 1)
    assert found["r~a"].labels == NOT_CLICKED
    assert fates(given) == {}


def test_a_click_whose_item_was_never_shown_is_outside() -> None:
    given = joiner(LIST, click(2, "a"))

    given.advance(at(121))

    assert said(given) == []
    assert fates(given) == {("outside", "click"): 1}


def test_a_click_or_impression_of_an_item_that_the_list_lacks_is_outside() -> None:
    given = joiner(LIST, shown(1, "z"), click(2, "z"))

    assert said(given) == []
    assert fates(given) == {("outside", "click"): 2}


def test_an_impression_without_its_row_is_an_orphan_when_it_has_waited() -> None:
    given = joiner(shown(1, "a"))

    given.advance(at(121))
    assert (given.oldest_open_ms(), fates(given)) == (at(1), {})
    given.advance(at(121) + 1)
    assert (given.oldest_open_ms(), fates(given)) == (None, {("orphan", "click"): 1})


def test_a_list_waits_since_the_earliest_of_its_parts() -> None:
    given = joiner(row("recommendation", "r", 10, ("a", "b")))
    assert given.oldest_open_ms() == at(10)

    give(given, shown(9, "a"))
    assert given.oldest_open_ms() == at(9)

    give(given, click(8, "b"))  # it was not shown yet
    assert given.oldest_open_ms() == at(8)


def test_what_comes_after_the_row_left_is_late() -> None:
    given = joiner(LIST, shown(1, "a"))
    given.advance(at(121))
    given.take()

    give(given, click(40, "a"))

    assert said(given) == []
    assert fates(given) == {("late", "click"): 1}


def test_another_users_impressions_and_clicks_are_foreign() -> None:
    given = joiner(LIST, shown(1, "a", user="v"), click(2, "a", user="v"))

    given.advance(at(200))

    assert said(given) == []
    assert fates(given) == {("foreign", "click"): 2}


def test_a_row_served_twice_counts_once() -> None:
    given = joiner(LIST, shown(1, "a"), LIST, click(2, "a"))

    assert said(given) == [("r~a", 1, {"click": 1.0})]
    assert fates(given) == {("duplicate", "row"): 1}


@pytest.mark.parametrize("blocks", [{}, {"item": block(2, 0)}])
def test_a_row_whose_blocks_do_not_fit_its_items_is_left_aside(blocks: dict[str, Packed]) -> None:
    broken = replace(row("recommendation", "r", 0), items=("a", "b", "c"), groups=blocks)

    given = joiner(broken, shown(1, "a"), click(2, "a"))

    assert said(given) == []
    assert fates(given) == {("unfit", "click"): 1}


def test_the_oldest_lists_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"rows_max": 2})
    rows = [row("recommendation", f"r{n}", n, ("a",)) for n in range(3)]

    given = joiner(*rows, *(shown(5, "a", of=f"r{n}") for n in range(3)), feedback=few)
    given.advance(at(40))

    assert examples(given).keys() == {"r1~a", "r2~a"}
    assert fates(given) == {("crowded", "click"): 1, ("late", "click"): 1}


def test_the_oldest_parked_events_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"parked_max": 2})
    rows = [row("recommendation", f"r{n}", n, ("a",)) for n in range(3)]

    given = joiner(*(shown(5, "a", of=f"r{n}") for n in range(3)), *rows, feedback=few)
    given.advance(at(5) + 30 * MINUTE + 1)

    assert examples(given).keys() == {"r1~a", "r2~a"}
    assert fates(given) == {("orphan", "click"): 1}
