"""Due: whose list is to be made now, for which event, and without what."""

from tests.worker.shop import NOW_MS, arrivals, click, order, product
from worker.due import Due


def test_who_clicked_is_due_at_once_and_then_not_before_the_time_has_passed() -> None:
    # given
    who = Due(refresh_ms=1_000, batch_max=100, waiting_max=100)
    who.note(arrivals(click("c1", user="a")))
    assert who.ready(NOW_MS) == ["a"]
    who.take("a", NOW_MS)
    # when
    who.note(arrivals(click("c2", user="a"), click("c3", user="b")))
    # then
    assert who.ready(NOW_MS + 999) == ["b"]
    assert who.ready(NOW_MS + 1_000) == ["a", "b"]


def test_a_user_without_news_is_not_due() -> None:
    # given
    who = Due(refresh_ms=1_000, batch_max=100, waiting_max=100)
    who.note(arrivals(click("c1", user="a")))
    # when
    who.take("a", NOW_MS)
    # then
    assert who.ready(NOW_MS + 100_000) == []


def test_a_list_reflects_the_latest_event_and_leaves_out_all_that_was_bought_since_the_last_one() -> None:
    # given
    who = Due(refresh_ms=1_000, batch_max=100, waiting_max=100)
    who.note(arrivals(order("o1", "x", "y", user="a"), order("o2", "z", user="a"), click("c1", user="a")))
    # when
    arrival, bought = who.take("a", NOW_MS)
    # then
    assert (arrival.event.event_id, bought) == ("c1", {"x", "y", "z"})
    who.note(arrivals(click("c2", user="a")))
    assert who.take("a", NOW_MS)[1] == set()


def test_of_more_users_than_are_served_at_once_those_who_wait_longest_come_first_and_nobody_is_left_out() -> None:
    # given
    who = Due(refresh_ms=1_000, batch_max=2, waiting_max=100)
    who.note(arrivals(click("c1", user="a"), click("c2", user="b"), click("c3", user="c")))
    # when one of those who wait clicks again
    who.note(arrivals(click("c4", user="a")))
    # then they keep their place, and the others follow
    assert who.ready(NOW_MS) == ["a", "b"]
    assert who.take("a", NOW_MS)[0].event.event_id == "c4"
    assert who.ready(NOW_MS) == ["b", "c"]


def test_an_event_without_a_user_makes_nobody_due() -> None:
    # given
    who = Due(refresh_ms=0, batch_max=100, waiting_max=100)
    # when
    who.note(arrivals(product("i")))
    # then
    assert who.ready(NOW_MS) == []


def test_of_more_users_than_may_wait_those_who_wait_longest_give_up_and_are_counted() -> None:
    # given
    who = Due(refresh_ms=0, batch_max=100, waiting_max=2)
    # when
    given_up = who.note(arrivals(click("c1", user="a"), click("c2", user="b"), click("c3", user="c")))
    # then
    assert (given_up, len(who), who.ready(NOW_MS)) == (1, 2, ["b", "c"])


def test_who_may_be_refreshed_anyway_is_not_remembered() -> None:
    # given
    who = Due(refresh_ms=1_000, batch_max=100, waiting_max=100)
    for n in range(10):
        who.note(arrivals(click("c", user=f"u{n}")))
        who.take(f"u{n}", NOW_MS)
    # when one more comes, long after
    who.note(arrivals(click("c", user="late")))
    who.take("late", NOW_MS + 5_000)
    # then those that may be refreshed anyway are forgotten, and whoever may not is still known
    assert set(who._refreshed_ms) == {"late"}
    who.note(arrivals(click("c", user="late")))
    assert who.ready(NOW_MS + 5_500) == []
