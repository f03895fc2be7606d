"""What was clicked of a search."""

from contract.joining.parking import EACH_MAX
from contract.joining.searches import REPEATED_MAX
from tests.contract.joining.shop import FEEDBACK, at, block, click, examples, fates, give, joiner, row, said

ITEMS = tuple(f"i{n}" for n in range(12))
SEARCH = row("search", "s", 0, ITEMS, query="red shoes")
SETTLED = at(30) + 1


def test_a_clicked_item_is_relevant_and_the_other_first_ten_are_not() -> None:
    given = joiner(SEARCH, click(5, "i3", of=None, query="red shoes"))

    given.advance(SETTLED)

    assert said(given) == [(f"s~i{n}", int(n == 3), {"relevance": float(n == 3)}) for n in range(10)]


def test_a_click_below_the_first_ten_is_an_example_as_well() -> None:
    given = joiner(SEARCH, click(5, "i11", of=None, query="red shoes"))

    given.advance(SETTLED)

    found = examples(given)
    assert found["s~i11"].labels == {"relevance": 1.0}
    assert "s~i10" not in found
    assert found["s~i0"].labels == {"relevance": 0.0}


def test_a_search_is_settled_when_the_clicks_have_been_waited_for_and_not_before() -> None:
    given = joiner(SEARCH, click(5, "i3", of=None, query="red shoes"))

    given.advance(at(30))
    assert said(given) == []
    given.advance(SETTLED)
    assert len(said(given)) == 10


def test_a_search_example_carries_query_user_and_the_items_row() -> None:
    given = joiner(SEARCH, click(5, "i3", of=None, query="red shoes"))
    given.advance(SETTLED)

    found = examples(given)["s~i3"]

    assert found.groups == {"query": block(1, 1001), "user": block(1, 1000), "item": block(1, 4.0)}
    assert (found.event_id, found.item_id, found.ts_ms, found.known_ms) == ("s", "i3", 0, {"relevance": at(5)})


def test_a_search_without_a_click_says_nothing() -> None:
    given = joiner(SEARCH)

    given.advance(SETTLED)

    assert said(given) == []


def test_a_click_that_comes_out_of_order_corrects_what_was_said() -> None:
    given = joiner(SEARCH, click(5, "i3", of=None, query="red shoes"))
    given.advance(SETTLED)
    given.take()

    give(given, click(6, "i4", of=None, query="red shoes"), click(7, "i3", of=None, query="red shoes"))

    assert said(given) == [("s~i4", 1, {"relevance": 1.0})]
    assert fates(given) == {("duplicate", "relevance"): 1}


def test_a_first_click_that_comes_out_of_order_says_all() -> None:
    given = joiner(SEARCH)
    given.advance(SETTLED)

    give(given, click(6, "i4", of=None, query="red shoes"))

    assert said(given) == [(f"s~i{n}", int(n == 4), {"relevance": float(n == 4)}) for n in range(10)]


def test_a_search_leaves_after_its_grace_and_not_before() -> None:
    given = joiner(SEARCH)

    given.advance(at(45))
    assert given.oldest_open_ms() == 0
    given.advance(at(45) + 1)
    assert given.oldest_open_ms() is None


def test_case_and_spaces_of_a_query_do_not_matter() -> None:
    given = joiner(SEARCH, click(5, "i3", of=None, query="  Red   SHOES"))

    given.advance(SETTLED)

    assert len(said(given)) == 10


def test_clicks_for_another_query_of_another_user_on_other_items_or_at_other_times_are_orphans() -> None:
    others = [
        click(5, "i3", of=None, query="blue shoes"),
        click(5, "i3", of=None, query="red shoes", user="v"),
        click(5, "elsewhere", of=None, query="red shoes"),
        click(-1, "i3", of=None, query="red shoes"),
        click(30.1, "i3", of=None, query="red shoes"),
    ]

    given = joiner(SEARCH, *others)
    given.advance(at(100))

    assert said(given) == []
    assert fates(given) == {("orphan", "relevance"): 5}


def test_a_click_may_come_before_its_search() -> None:
    given = joiner(click(5, "i3", of=None, query="red shoes"), SEARCH)

    given.advance(SETTLED)

    assert examples(given)["s~i3"].labels == {"relevance": 1.0}


def test_of_two_searches_for_the_same_the_later_one_is_clicked_if_it_has_the_item() -> None:
    first = row("search", "s1", 0, ("a", "b"), query="q")
    later = row("search", "s2", 10, ("b", "c"), query="q")

    given = joiner(first, later, click(12, "a", of=None, query="q"), click(13, "b", of=None, query="q"))
    given.advance(at(41))

    relevant = {ident for ident, _, labels in said(given) if labels == {"relevance": 1.0}}
    assert relevant == {"s1~a", "s2~b"}


def test_a_search_repeated_without_end_waits_a_bounded_number_of_times() -> None:
    rows = [row("search", f"s{n}", n / 100, ("a",), query="q") for n in range(REPEATED_MAX + 2)]
    clicks = [click(n / 100, "a", of=None, query="q", ident=f"c{n}") for n in range(EACH_MAX + 3)]

    given = joiner(*rows, *clicks)

    assert fates(given) == {("crowded", "relevance"): 2, ("orphan", "relevance"): 3}


def test_the_oldest_searches_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"rows_max": 1})
    rows = [row("search", f"s{n}", n, ("a",), query=f"q{n}") for n in range(2)]

    given = joiner(*rows, *(click(5, "a", of=None, query=f"q{n}") for n in range(2)), feedback=few)
    given.advance(at(40))

    assert [ident for ident, _, _ in said(given)] == ["s1~a"]
    assert fates(given) == {("crowded", "relevance"): 1}
