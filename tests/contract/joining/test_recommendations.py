"""What was shown and clicked of a recommendation list."""

import numpy as np
import pytest
from msgspec.structs import replace

from contract.events import Event
from contract.features.packing import PackedBlock
from contract.messages import ScoredRow
from contract.units import MINUTE_MS
from tests.contract.joining.builders import (
    FEEDBACK,
    count_outcomes,
    feed_joiner,
    make_block,
    make_click,
    make_impression,
    make_joiner,
    make_row,
    minutes_to_ms,
    take_labels,
    take_newest_examples,
)

LIST = make_row("recommendation", "r", 0, ("a", "b", "c"))
NOT_CLICKED = {"click": 0.0, "purchase": 0.0}


def test_a_click_on_a_shown_item_is_an_example_at_once() -> None:
    given = make_joiner(LIST, make_impression(1, "a", "b"), make_click(2, "b"))

    assert take_labels(given) == [("r~b", 1, {"click": 1.0})]


def test_an_example_carries_the_features_as_served_and_the_items_own_row() -> None:
    given = make_joiner(LIST, make_impression(1, "a", "b"), make_click(2, "b"))

    example = take_newest_examples(given)["r~b"]

    assert example.groups.keys() == {"user", "context", "item"}
    assert (example.groups["user"], example.groups["context"]) == (make_block(1, 1000), make_block(1, 1001))
    assert example.groups["item"] == make_block(1, 2.0)  # the second of the list's rows, which start at 1
    assert np.array_equal(example.groups["item"].unpack().numbers, [[2.0, -2.0]])
    assert (example.event_id, example.item_id, example.user_id, example.ts_ms) == ("r", "b", "u", minutes_to_ms(1))
    assert (example.model_version, example.features, example.entities) == ("m1", "f1", ("user:u", "device:d"))
    assert example.known_ms == {"click": minutes_to_ms(2)}


def test_a_shown_item_without_a_click_is_a_negative_once_its_time_is_past_and_not_before() -> None:
    given = make_joiner(LIST, make_impression(1, "a", "b"))

    given.advance(minutes_to_ms(31))
    assert take_labels(given) == []

    given.advance(minutes_to_ms(31) + 1)
    example = take_newest_examples(given)
    assert example["r~a"].labels == example["r~b"].labels == NOT_CLICKED
    assert example["r~a"].revision == 0
    assert example["r~a"].known_ms == {"click": minutes_to_ms(31), "purchase": minutes_to_ms(31)}


def test_what_was_recommended_and_never_shown_is_no_example() -> None:
    given = make_joiner(LIST, make_impression(1, "a"))

    given.advance(minutes_to_ms(1000))

    assert take_newest_examples(given).keys() == {"r~a"}
    assert given.oldest_pending_ms() is None


def test_a_click_at_the_last_moment_is_no_correction_and_one_after_it_is() -> None:
    in_time = make_joiner(LIST, make_impression(1, "a"), make_click(31, "a"))
    late = make_joiner(LIST, make_impression(1, "a"), make_click(31.1, "a"))

    assert take_labels(in_time) == [("r~a", 1, {"click": 1.0})]
    assert take_labels(late) == [("r~a", 0, NOT_CLICKED), ("r~a", 1, {"click": 1.0})]


def test_a_late_click_corrects_what_a_timer_has_said() -> None:
    given = make_joiner(LIST, make_impression(1, "a"))
    given.advance(minutes_to_ms(40))
    assert take_labels(given) == [("r~a", 0, NOT_CLICKED)]

    feed_joiner(given, make_click(41, "a"))

    assert take_labels(given) == [("r~a", 1, {"click": 1.0})]


def test_a_click_past_the_grace_is_late_and_says_nothing() -> None:
    in_grace = make_joiner(LIST, make_impression(1, "a"), make_click(46, "a"))
    past = make_joiner(LIST, make_impression(1, "a"), make_click(46.1, "a"))

    assert take_newest_examples(in_grace)["r~a"].labels == {"click": 1.0}
    assert take_labels(past) == []
    assert count_outcomes(past) == {("late", "click"): 1}


def test_a_second_click_or_impression_of_an_item_changes_nothing() -> None:
    given = make_joiner(LIST, make_impression(1, "a"), make_click(2, "a"), make_click(3, "a"), make_impression(9, "a"))

    given.advance(minutes_to_ms(50))

    assert take_labels(given) == [("r~a", 1, {"click": 1.0})]
    assert count_outcomes(given) == {("duplicate", "click"): 1}


def test_a_later_impression_of_the_same_list_shows_further_items() -> None:
    given = make_joiner(LIST, make_impression(1, "a"), make_impression(20, "a", "b"))

    given.advance(minutes_to_ms(32))
    assert take_labels(given) == [("r~a", 0, NOT_CLICKED)]
    given.advance(minutes_to_ms(51))
    assert take_labels(given) == [("r~b", 0, NOT_CLICKED)]


@pytest.mark.parametrize("turn", range(3))
def test_row_impression_and_click_may_come_in_any_order(turn: int) -> None:
    parts: list[ScoredRow | Event] = [LIST, make_impression(1, "a", "b"), make_click(2, "b")]

    given = make_joiner(*parts[turn:], *parts[:turn])
    given.advance(minutes_to_ms(40))

    actual = take_newest_examples(given)
    assert (actual["r~b"].labels, actual["r~b"].revision) == ({"click": 1.0}, 1)
    assert actual["r~a"].labels == NOT_CLICKED
    assert count_outcomes(given) == {}


def test_a_click_whose_item_was_never_shown_is_outside() -> None:
    given = make_joiner(LIST, make_click(2, "a"))

    given.advance(minutes_to_ms(121))

    assert take_labels(given) == []
    assert count_outcomes(given) == {("outside", "click"): 1}


def test_a_click_or_impression_of_an_item_that_the_list_lacks_is_outside() -> None:
    given = make_joiner(LIST, make_impression(1, "z"), make_click(2, "z"))

    assert take_labels(given) == []
    assert count_outcomes(given) == {("outside", "click"): 2}


def test_an_impression_without_its_row_is_an_orphan_when_it_has_waited() -> None:
    given = make_joiner(make_impression(1, "a"))

    given.advance(minutes_to_ms(121))
    assert (given.oldest_pending_ms(), count_outcomes(given)) == (minutes_to_ms(1), {})
    given.advance(minutes_to_ms(121) + 1)
    assert (given.oldest_pending_ms(), count_outcomes(given)) == (None, {("orphan", "click"): 1})


def test_a_list_waits_since_the_earliest_of_its_parts() -> None:
    given = make_joiner(make_row("recommendation", "r", 10, ("a", "b")))
    assert given.oldest_pending_ms() == minutes_to_ms(10)

    feed_joiner(given, make_impression(9, "a"))
    assert given.oldest_pending_ms() == minutes_to_ms(9)

    feed_joiner(given, make_click(8, "b"))  # it was not shown yet
    assert given.oldest_pending_ms() == minutes_to_ms(8)


def test_what_comes_after_the_row_left_is_late() -> None:
    given = make_joiner(LIST, make_impression(1, "a"))
    given.advance(minutes_to_ms(121))
    given.drain()

    feed_joiner(given, make_click(40, "a"))

    assert take_labels(given) == []
    assert count_outcomes(given) == {("late", "click"): 1}


def test_another_users_impressions_and_clicks_are_foreign() -> None:
    given = make_joiner(LIST, make_impression(1, "a", user="v"), make_click(2, "a", user="v"))

    given.advance(minutes_to_ms(200))

    assert take_labels(given) == []
    assert count_outcomes(given) == {("foreign", "click"): 2}


def test_a_row_served_twice_counts_once() -> None:
    given = make_joiner(LIST, make_impression(1, "a"), LIST, make_click(2, "a"))

    assert take_labels(given) == [("r~a", 1, {"click": 1.0})]
    assert count_outcomes(given) == {("duplicate", "row"): 1}


@pytest.mark.parametrize("blocks", [{}, {"item": make_block(2, 0)}])
def test_a_row_whose_blocks_do_not_fit_its_items_is_left_aside(blocks: dict[str, PackedBlock]) -> None:
    broken = replace(make_row("recommendation", "r", 0), items=("a", "b", "c"), groups=blocks)

    given = make_joiner(broken, make_impression(1, "a"), make_click(2, "a"))

    assert take_labels(given) == []
    assert count_outcomes(given) == {("unfit", "click"): 1}


def test_the_oldest_lists_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"rows_max": 2})
    rows = [make_row("recommendation", f"r{n}", n, ("a",)) for n in range(3)]

    given = make_joiner(*rows, *(make_impression(5, "a", recommendation_id=f"r{n}") for n in range(3)), feedback=few)
    given.advance(minutes_to_ms(40))

    assert take_newest_examples(given).keys() == {"r1~a", "r2~a"}
    assert count_outcomes(given) == {("crowded", "click"): 1, ("late", "click"): 1}


def test_the_oldest_parked_events_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"parked_max": 2})
    rows = [make_row("recommendation", f"r{n}", n, ("a",)) for n in range(3)]

    given = make_joiner(*(make_impression(5, "a", recommendation_id=f"r{n}") for n in range(3)), *rows, feedback=few)
    given.advance(minutes_to_ms(5) + 30 * MINUTE_MS + 1)

    assert take_newest_examples(given).keys() == {"r1~a", "r2~a"}
    assert count_outcomes(given) == {("orphan", "click"): 1}
