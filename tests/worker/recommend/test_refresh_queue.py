"""Due: whose list is to be made now, for which event, and without what."""

from tests.worker.events import NOW_MS, make_arrivals, make_click, make_order, make_product
from worker.recommend.refresh_queue import RefreshQueue


def test_who_clicked_is_due_at_once_and_then_not_before_the_time_has_passed() -> None:
    # given
    who = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    who.push(make_arrivals(make_click("c1", user="a")))
    assert who.due(NOW_MS) == ["a"]
    who.pop("a", NOW_MS)
    # when
    who.push(make_arrivals(make_click("c2", user="a"), make_click("c3", user="b")))
    # then
    assert who.due(NOW_MS + 999) == ["b"]
    assert who.due(NOW_MS + 1_000) == ["a", "b"]


def test_a_user_without_news_is_not_due() -> None:
    # given
    who = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    who.push(make_arrivals(make_click("c1", user="a")))
    # when
    who.pop("a", NOW_MS)
    # then
    assert who.due(NOW_MS + 100_000) == []


def test_a_list_reflects_the_latest_event_and_leaves_out_all_that_was_bought_since_the_last_one() -> None:
    # given
    who = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    who.push(
        make_arrivals(make_order("o1", "x", "y", user="a"), make_order("o2", "z", user="a"), make_click("c1", user="a"))
    )
    # when
    arrival, bought = who.pop("a", NOW_MS)
    # then
    assert (arrival.event.event_id, bought) == ("c1", {"x", "y", "z"})
    who.push(make_arrivals(make_click("c2", user="a")))
    assert who.pop("a", NOW_MS)[1] == set()


def test_of_more_users_than_are_served_at_once_those_who_wait_longest_come_first_and_nobody_is_left_out() -> None:
    # given
    who = RefreshQueue(refresh_ms=1_000, batch_max=2, waiting_max=100)
    who.push(make_arrivals(make_click("c1", user="a"), make_click("c2", user="b"), make_click("c3", user="c")))
    # when one of those who wait clicks again
    who.push(make_arrivals(make_click("c4", user="a")))
    # then they keep their place, and the others follow
    assert who.due(NOW_MS) == ["a", "b"]
    assert who.pop("a", NOW_MS)[0].event.event_id == "c4"
    assert who.due(NOW_MS) == ["b", "c"]


def test_an_event_without_a_user_makes_nobody_due() -> None:
    # given
    who = RefreshQueue(refresh_ms=0, batch_max=100, waiting_max=100)
    # when
    who.push(make_arrivals(make_product("i")))
    # then
    assert who.due(NOW_MS) == []


def test_of_more_users_than_may_wait_those_who_wait_longest_give_up_and_are_counted() -> None:
    # given
    who = RefreshQueue(refresh_ms=0, batch_max=100, waiting_max=2)
    # when
    given_up = who.push(
        make_arrivals(make_click("c1", user="a"), make_click("c2", user="b"), make_click("c3", user="c"))
    )
    # then
    assert (given_up, len(who), who.due(NOW_MS)) == (1, 2, ["b", "c"])


def test_who_may_be_refreshed_anyway_is_not_remembered() -> None:
    # given
    who = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    for n in range(10):
        who.push(make_arrivals(make_click("c", user=f"u{n}")))
        who.pop(f"u{n}", NOW_MS)
    # when one more comes, long after
    who.push(make_arrivals(make_click("c", user="late")))
    who.pop("late", NOW_MS + 5_000)
    # then those that may be refreshed anyway are forgotten, and whoever may not is still known
    assert set(who._refreshed_ms) == {"late"}
    who.push(make_arrivals(make_click("c", user="late")))
    assert who.due(NOW_MS + 5_500) == []
