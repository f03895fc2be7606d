"""Impressions and clicks of recommendation lists."""

import numpy as np
import pytest
from msgspec.structs import replace

from contract.events.model import Event
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


def test_a_click_on_a_shown_item_emits_an_example_at_once() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a", "b"), make_click(2, "b"))

    assert take_labels(joiner) == [("r~b", 1, {"click": 1.0})]


def test_an_empty_list_gives_no_example() -> None:
    row = replace(LIST, items=(), scores={}, groups={"user": make_block(1, 1000)})

    joiner = make_joiner(row, make_impression(1, "a", "b"), make_click(2, "b"))

    assert take_labels(joiner) == []


def test_an_example_has_the_served_features_and_its_item_row() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a", "b"), make_click(2, "b"))

    example = take_newest_examples(joiner)["r~b"]

    assert example.groups.keys() == {"user", "context", "item"}
    assert (example.groups["user"], example.groups["context"]) == (make_block(1, 1000), make_block(1, 1001))
    assert example.groups["item"] == make_block(1, 2.0)  # the second row of the list, whose marks start at 1
    assert np.array_equal(example.groups["item"].unpack().numbers, [[2.0, -2.0]])
    assert (example.event_id, example.item_id, example.user_id, example.ts_ms) == ("r", "b", "u", minutes_to_ms(1))
    assert (example.model_version, example.features, example.entities) == ("m1", "f1", ("user:u", "device:d"))
    assert example.known_ms == {"click": minutes_to_ms(2)}


def test_a_shown_item_without_a_click_becomes_a_negative_after_its_wait() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a", "b"))

    joiner.advance(minutes_to_ms(31))
    assert take_labels(joiner) == []

    joiner.advance(minutes_to_ms(31) + 1)
    example = take_newest_examples(joiner)
    assert example["r~a"].labels == example["r~b"].labels == NOT_CLICKED
    assert example["r~a"].revision == 0
    assert example["r~a"].known_ms == {"click": minutes_to_ms(31), "purchase": minutes_to_ms(31)}


def test_an_item_that_was_never_shown_is_no_example() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a"))

    joiner.advance(minutes_to_ms(1000))

    assert take_newest_examples(joiner).keys() == {"r~a"}
    assert joiner.oldest_pending_ms() is None


def test_a_click_after_the_wait_is_a_correction() -> None:
    in_time = make_joiner(LIST, make_impression(1, "a"), make_click(31, "a"))
    late = make_joiner(LIST, make_impression(1, "a"), make_click(31.1, "a"))

    assert take_labels(in_time) == [("r~a", 1, {"click": 1.0})]
    assert take_labels(late) == [("r~a", 0, NOT_CLICKED), ("r~a", 1, {"click": 1.0})]


def test_a_late_click_corrects_the_negative() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a"))
    joiner.advance(minutes_to_ms(40))
    assert take_labels(joiner) == [("r~a", 0, NOT_CLICKED)]

    feed_joiner(joiner, make_click(41, "a"))

    assert take_labels(joiner) == [("r~a", 1, {"click": 1.0})]


def test_a_click_after_the_grace_is_late() -> None:
    in_grace = make_joiner(LIST, make_impression(1, "a"), make_click(46, "a"))
    past = make_joiner(LIST, make_impression(1, "a"), make_click(46.1, "a"))

    assert take_newest_examples(in_grace)["r~a"].labels == {"click": 1.0}
    assert take_labels(past) == []
    assert count_outcomes(past) == {("late", "click"): 1}


def test_repeated_clicks_and_impressions_change_nothing() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a"), make_click(2, "a"), make_click(3, "a"), make_impression(9, "a"))

    joiner.advance(minutes_to_ms(50))

    assert take_labels(joiner) == [("r~a", 1, {"click": 1.0})]
    assert count_outcomes(joiner) == {("duplicate", "click"): 1}


def test_a_later_impression_may_show_more_items() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a"), make_impression(20, "a", "b"))

    joiner.advance(minutes_to_ms(32))
    assert take_labels(joiner) == [("r~a", 0, NOT_CLICKED)]
    joiner.advance(minutes_to_ms(51))
    assert take_labels(joiner) == [("r~b", 0, NOT_CLICKED)]


@pytest.mark.parametrize("rotation", range(3))
def test_row_impression_and_click_may_arrive_in_any_order(rotation: int) -> None:
    parts: list[ScoredRow | Event] = [LIST, make_impression(1, "a", "b"), make_click(2, "b")]

    joiner = make_joiner(*parts[rotation:], *parts[:rotation])
    joiner.advance(minutes_to_ms(40))

    actual = take_newest_examples(joiner)
    assert (actual["r~b"].labels, actual["r~b"].revision) == ({"click": 1.0}, 1)
    assert actual["r~a"].labels == NOT_CLICKED
    assert count_outcomes(joiner) == {}


def test_a_click_on_an_item_never_shown_is_outside() -> None:
    joiner = make_joiner(LIST, make_click(2, "a"))

    joiner.advance(minutes_to_ms(121))

    assert take_labels(joiner) == []
    assert count_outcomes(joiner) == {("outside", "click"): 1}


def test_an_item_that_the_list_lacks_is_outside() -> None:
    joiner = make_joiner(LIST, make_impression(1, "z"), make_click(2, "z"))

    assert take_labels(joiner) == []
    assert count_outcomes(joiner) == {("outside", "click"): 2}


def test_an_impression_without_a_row_becomes_an_orphan() -> None:
    joiner = make_joiner(make_impression(1, "a"))

    joiner.advance(minutes_to_ms(121))
    assert (joiner.oldest_pending_ms(), count_outcomes(joiner)) == (minutes_to_ms(1), {})
    joiner.advance(minutes_to_ms(121) + 1)
    assert (joiner.oldest_pending_ms(), count_outcomes(joiner)) == (None, {("orphan", "click"): 1})


def test_a_list_is_pending_since_its_earliest_part() -> None:
    joiner = make_joiner(make_row("recommendation", "r", 10, ("a", "b")))
    assert joiner.oldest_pending_ms() == minutes_to_ms(10)

    feed_joiner(joiner, make_impression(9, "a"))
    assert joiner.oldest_pending_ms() == minutes_to_ms(9)

    feed_joiner(joiner, make_click(8, "b"))  # not shown yet
    assert joiner.oldest_pending_ms() == minutes_to_ms(8)


def test_a_click_after_the_removal_of_its_row_is_late() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a"))
    joiner.advance(minutes_to_ms(121))
    joiner.drain()

    feed_joiner(joiner, make_click(40, "a"))

    assert take_labels(joiner) == []
    assert count_outcomes(joiner) == {("late", "click"): 1}


def test_events_of_another_user_are_foreign() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a", user="v"), make_click(2, "a", user="v"))

    joiner.advance(minutes_to_ms(200))

    assert take_labels(joiner) == []
    assert count_outcomes(joiner) == {("foreign", "click"): 2}


def test_a_row_served_twice_counts_once() -> None:
    joiner = make_joiner(LIST, make_impression(1, "a"), LIST, make_click(2, "a"))

    assert take_labels(joiner) == [("r~a", 1, {"click": 1.0})]
    assert count_outcomes(joiner) == {("duplicate", "row"): 1}


@pytest.mark.parametrize("blocks", [{}, {"item": make_block(2, 0)}])
def test_a_row_whose_blocks_do_not_fit_its_items_is_skipped(blocks: dict[str, PackedBlock]) -> None:
    broken = replace(make_row("recommendation", "r", 0), items=("a", "b", "c"), groups=blocks)

    joiner = make_joiner(broken, make_impression(1, "a"), make_click(2, "a"))

    assert take_labels(joiner) == []
    assert count_outcomes(joiner) == {("unfit", "click"): 1}


def test_the_oldest_lists_are_evicted_beyond_the_limit() -> None:
    limits = FEEDBACK.model_copy(update={"rows_max": 2})
    rows = [make_row("recommendation", f"r{n}", n, ("a",)) for n in range(3)]

    joiner = make_joiner(
        *rows, *(make_impression(5, "a", recommendation_id=f"r{n}") for n in range(3)), feedback=limits
    )
    joiner.advance(minutes_to_ms(40))

    assert take_newest_examples(joiner).keys() == {"r1~a", "r2~a"}
    assert count_outcomes(joiner) == {("crowded", "click"): 1, ("late", "click"): 1}


def test_the_oldest_buffered_events_are_evicted_beyond_the_limit() -> None:
    limits = FEEDBACK.model_copy(update={"parked_max": 2})
    rows = [make_row("recommendation", f"r{n}", n, ("a",)) for n in range(3)]

    joiner = make_joiner(
        *(make_impression(5, "a", recommendation_id=f"r{n}") for n in range(3)), *rows, feedback=limits
    )
    joiner.advance(minutes_to_ms(5) + 30 * MINUTE_MS + 1)

    assert take_newest_examples(joiner).keys() == {"r1~a", "r2~a"}
    assert count_outcomes(joiner) == {("orphan", "click"): 1}
