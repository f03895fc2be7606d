"""Clicks in search results."""

from contract.joining.early_events import PER_KEY_MAX
from contract.joining.searches import REPEATED_MAX
from tests.contract.joining.builders import (
    FEEDBACK,
    count_outcomes,
    feed_joiner,
    make_block,
    make_click,
    make_joiner,
    make_row,
    minutes_to_ms,
    take_labels,
    take_newest_examples,
)

ITEMS = tuple(f"i{n}" for n in range(12))
SEARCH = make_row("search", "s", 0, ITEMS, query="red shoes")
SETTLED = minutes_to_ms(30) + 1


def test_a_clicked_item_is_relevant_and_the_others_of_the_top_ten_are_not() -> None:
    joiner = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="red shoes"))

    joiner.advance(SETTLED)

    assert take_labels(joiner) == [(f"s~i{n}", int(n == 3), {"relevance": float(n == 3)}) for n in range(10)]


def test_a_click_below_the_top_ten_is_an_example() -> None:
    joiner = make_joiner(SEARCH, make_click(5, "i11", recommendation_id=None, query="red shoes"))

    joiner.advance(SETTLED)

    actual = take_newest_examples(joiner)
    assert actual["s~i11"].labels == {"relevance": 1.0}
    assert "s~i10" not in actual
    assert actual["s~i0"].labels == {"relevance": 0.0}


def test_examples_are_emitted_after_the_wait_for_clicks() -> None:
    joiner = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="red shoes"))

    joiner.advance(minutes_to_ms(30))
    assert take_labels(joiner) == []
    joiner.advance(SETTLED)
    assert len(take_labels(joiner)) == 10


def test_an_example_has_query_user_and_item_row() -> None:
    joiner = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="red shoes"))
    joiner.advance(SETTLED)

    actual = take_newest_examples(joiner)["s~i3"]

    assert actual.groups == {"query": make_block(1, 1001), "user": make_block(1, 1000), "item": make_block(1, 4.0)}
    assert (actual.event_id, actual.item_id, actual.ts_ms, actual.known_ms) == (
        "s",
        "i3",
        0,
        {"relevance": minutes_to_ms(5)},
    )


def test_a_search_without_a_click_gives_no_examples() -> None:
    joiner = make_joiner(SEARCH)

    joiner.advance(SETTLED)

    assert take_labels(joiner) == []


def test_a_click_out_of_order_corrects_its_example() -> None:
    joiner = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="red shoes"))
    joiner.advance(SETTLED)
    joiner.drain()

    feed_joiner(
        joiner,
        make_click(6, "i4", recommendation_id=None, query="red shoes"),
        make_click(7, "i3", recommendation_id=None, query="red shoes"),
    )

    assert take_labels(joiner) == [("s~i4", 1, {"relevance": 1.0})]
    assert count_outcomes(joiner) == {("duplicate", "relevance"): 1}


def test_a_first_click_out_of_order_emits_all_examples() -> None:
    joiner = make_joiner(SEARCH)
    joiner.advance(SETTLED)

    feed_joiner(joiner, make_click(6, "i4", recommendation_id=None, query="red shoes"))

    assert take_labels(joiner) == [(f"s~i{n}", int(n == 4), {"relevance": float(n == 4)}) for n in range(10)]


def test_a_search_is_removed_after_its_grace() -> None:
    joiner = make_joiner(SEARCH)

    joiner.advance(minutes_to_ms(45))
    assert joiner.oldest_pending_ms() == 0
    joiner.advance(minutes_to_ms(45) + 1)
    assert joiner.oldest_pending_ms() is None


def test_case_and_whitespace_of_queries_are_ignored() -> None:
    joiner = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="  Red   SHOES"))

    joiner.advance(SETTLED)

    assert len(take_labels(joiner)) == 10


def test_clicks_that_fit_no_search_are_orphans() -> None:
    others = [
        make_click(5, "i3", recommendation_id=None, query="blue shoes"),
        make_click(5, "i3", recommendation_id=None, query="red shoes", user="v"),
        make_click(5, "elsewhere", recommendation_id=None, query="red shoes"),
        make_click(-1, "i3", recommendation_id=None, query="red shoes"),
        make_click(30.1, "i3", recommendation_id=None, query="red shoes"),
    ]

    joiner = make_joiner(SEARCH, *others)
    joiner.advance(minutes_to_ms(100))

    assert take_labels(joiner) == []
    assert count_outcomes(joiner) == {("orphan", "relevance"): 5}


def test_a_click_may_arrive_before_its_search() -> None:
    joiner = make_joiner(make_click(5, "i3", recommendation_id=None, query="red shoes"), SEARCH)

    joiner.advance(SETTLED)

    assert take_newest_examples(joiner)["s~i3"].labels == {"relevance": 1.0}


def test_a_click_belongs_to_the_latest_search_that_has_its_item() -> None:
    first = make_row("search", "s1", 0, ("a", "b"), query="q")
    later = make_row("search", "s2", 10, ("b", "c"), query="q")

    joiner = make_joiner(
        first,
        later,
        make_click(12, "a", recommendation_id=None, query="q"),
        make_click(13, "b", recommendation_id=None, query="q"),
    )
    joiner.advance(minutes_to_ms(41))

    relevant = {ident for ident, _, labels in take_labels(joiner) if labels == {"relevance": 1.0}}
    assert relevant == {"s1~a", "s2~b"}


def test_repetitions_of_a_search_are_bounded() -> None:
    rows = [make_row("search", f"s{n}", n / 100, ("a",), query="q") for n in range(REPEATED_MAX + 2)]
    clicks = [
        make_click(n / 100, "a", recommendation_id=None, query="q", ident=f"c{n}") for n in range(PER_KEY_MAX + 3)
    ]

    joiner = make_joiner(*rows, *clicks)

    assert count_outcomes(joiner) == {("crowded", "relevance"): 2, ("orphan", "relevance"): 3}


def test_the_oldest_searches_are_evicted_beyond_the_limit() -> None:
    limits = FEEDBACK.model_copy(update={"rows_max": 1})
    rows = [make_row("search", f"s{n}", n, ("a",), query=f"q{n}") for n in range(2)]

    joiner = make_joiner(
        *rows, *(make_click(5, "a", recommendation_id=None, query=f"q{n}") for n in range(2)), feedback=limits
    )
    joiner.advance(minutes_to_ms(40))

    assert [ident for ident, _, _ in take_labels(joiner)] == ["s1~a"]
    assert count_outcomes(joiner) == {("crowded", "relevance"): 1}


def test_searches_of_guests_give_no_example() -> None:
    # given a search and a click that may be of two guests
    search = make_row("search", "s", 0, ITEMS, query="red shoes", user="")
    joiner = make_joiner(search, make_click(5, "i3", recommendation_id=None, query="red shoes", user=""))
    # when
    joiner.advance(SETTLED)
    # then
    assert take_labels(joiner) == []
