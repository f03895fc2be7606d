"""What was clicked of a search."""

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


def test_a_clicked_item_is_relevant_and_the_other_first_ten_are_not() -> None:
    given = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="red shoes"))

    given.advance(SETTLED)

    assert take_labels(given) == [(f"s~i{n}", int(n == 3), {"relevance": float(n == 3)}) for n in range(10)]


def test_a_click_below_the_first_ten_is_an_example_as_well() -> None:
    given = make_joiner(SEARCH, make_click(5, "i11", recommendation_id=None, query="red shoes"))

    given.advance(SETTLED)

    actual = take_newest_examples(given)
    assert actual["s~i11"].labels == {"relevance": 1.0}
    assert "s~i10" not in actual
    assert actual["s~i0"].labels == {"relevance": 0.0}


def test_a_search_is_settled_when_the_clicks_have_been_waited_for_and_not_before() -> None:
    given = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="red shoes"))

    given.advance(minutes_to_ms(30))
    assert take_labels(given) == []
    given.advance(SETTLED)
    assert len(take_labels(given)) == 10


def test_a_search_example_carries_query_user_and_the_items_row() -> None:
    given = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="red shoes"))
    given.advance(SETTLED)

    actual = take_newest_examples(given)["s~i3"]

    assert actual.groups == {"query": make_block(1, 1001), "user": make_block(1, 1000), "item": make_block(1, 4.0)}
    assert (actual.event_id, actual.item_id, actual.ts_ms, actual.known_ms) == (
        "s",
        "i3",
        0,
        {"relevance": minutes_to_ms(5)},
    )


def test_a_search_without_a_click_says_nothing() -> None:
    given = make_joiner(SEARCH)

    given.advance(SETTLED)

    assert take_labels(given) == []


def test_a_click_that_comes_out_of_order_corrects_what_was_said() -> None:
    given = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="red shoes"))
    given.advance(SETTLED)
    given.drain()

    feed_joiner(
        given,
        make_click(6, "i4", recommendation_id=None, query="red shoes"),
        make_click(7, "i3", recommendation_id=None, query="red shoes"),
    )

    assert take_labels(given) == [("s~i4", 1, {"relevance": 1.0})]
    assert count_outcomes(given) == {("duplicate", "relevance"): 1}


def test_a_first_click_that_comes_out_of_order_says_all() -> None:
    given = make_joiner(SEARCH)
    given.advance(SETTLED)

    feed_joiner(given, make_click(6, "i4", recommendation_id=None, query="red shoes"))

    assert take_labels(given) == [(f"s~i{n}", int(n == 4), {"relevance": float(n == 4)}) for n in range(10)]


def test_a_search_leaves_after_its_grace_and_not_before() -> None:
    given = make_joiner(SEARCH)

    given.advance(minutes_to_ms(45))
    assert given.oldest_pending_ms() == 0
    given.advance(minutes_to_ms(45) + 1)
    assert given.oldest_pending_ms() is None


def test_case_and_spaces_of_a_query_do_not_matter() -> None:
    given = make_joiner(SEARCH, make_click(5, "i3", recommendation_id=None, query="  Red   SHOES"))

    given.advance(SETTLED)

    assert len(take_labels(given)) == 10


def test_clicks_for_another_query_of_another_user_on_other_items_or_at_other_times_are_orphans() -> None:
    others = [
        make_click(5, "i3", recommendation_id=None, query="blue shoes"),
        make_click(5, "i3", recommendation_id=None, query="red shoes", user="v"),
        make_click(5, "elsewhere", recommendation_id=None, query="red shoes"),
        make_click(-1, "i3", recommendation_id=None, query="red shoes"),
        make_click(30.1, "i3", recommendation_id=None, query="red shoes"),
    ]

    given = make_joiner(SEARCH, *others)
    given.advance(minutes_to_ms(100))

    assert take_labels(given) == []
    assert count_outcomes(given) == {("orphan", "relevance"): 5}


def test_a_click_may_come_before_its_search() -> None:
    given = make_joiner(make_click(5, "i3", recommendation_id=None, query="red shoes"), SEARCH)

    given.advance(SETTLED)

    assert take_newest_examples(given)["s~i3"].labels == {"relevance": 1.0}


def test_of_two_searches_for_the_same_the_later_one_is_clicked_if_it_has_the_item() -> None:
    first = make_row("search", "s1", 0, ("a", "b"), query="q")
    later = make_row("search", "s2", 10, ("b", "c"), query="q")

    given = make_joiner(
        first,
        later,
        make_click(12, "a", recommendation_id=None, query="q"),
        make_click(13, "b", recommendation_id=None, query="q"),
    )
    given.advance(minutes_to_ms(41))

    relevant = {ident for ident, _, labels in take_labels(given) if labels == {"relevance": 1.0}}
    assert relevant == {"s1~a", "s2~b"}


def test_a_search_repeated_without_end_waits_a_bounded_number_of_times() -> None:
    rows = [make_row("search", f"s{n}", n / 100, ("a",), query="q") for n in range(REPEATED_MAX + 2)]
    clicks = [
        make_click(n / 100, "a", recommendation_id=None, query="q", ident=f"c{n}") for n in range(PER_KEY_MAX + 3)
    ]

    given = make_joiner(*rows, *clicks)

    assert count_outcomes(given) == {("crowded", "relevance"): 2, ("orphan", "relevance"): 3}


def test_the_oldest_searches_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"rows_max": 1})
    rows = [make_row("search", f"s{n}", n, ("a",), query=f"q{n}") for n in range(2)]

    given = make_joiner(
        *rows, *(make_click(5, "a", recommendation_id=None, query=f"q{n}") for n in range(2)), feedback=few
    )
    given.advance(minutes_to_ms(40))

    assert [ident for ident, _, _ in take_labels(given)] == ["s1~a"]
    assert count_outcomes(given) == {("crowded", "relevance"): 1}
