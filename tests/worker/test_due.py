"""Due: whose list is to be made now, for which event, and without what."""

import pytest

from tests.worker.shop import NOW_MS, arrivals, click, order, product
from worker import due
from worker.due import Due


def test_who_clicked_is_due_at_once_and_then_not_before_the_time_has_passed() -> None:
    # given
    who = Due(refresh_ms=1_000)
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
    who = Due(refresh_ms=1_000)
    who.note(arrivals(click("c1", user="a")))
    # when
    who.take("a", NOW_MS)
    # then
    assert who.ready(NOW_MS + 100_000) == []


def test_a_list_reflects_the_latest_event_and_leaves_out_all_that_was_bought_since_the_last_one() -> None:
    # given
    who = Due(refresh_ms=1_000)
    who.note(arrivals(order("o1", "x", "y", user="a"), order("o2", "z", user="a"), click("c1", user="a")))
    # when
    arrival, bought = who.take("a", NOW_MS)
    # then
    assert (arrival.event.event_id, bought) == ("c1", {"x", "y", "z"})
    who.note(arrivals(click("c2", user="a")))
    assert who.take("a", NOW_MS)[1] == set()


def test_an_event_without_a_user_makes_nobody_due() -> None:
    # given
    who = Due(refresh_ms=0)
    # when
    who.note(arrivals(product("i")))
    # then
    assert who.ready(NOW_MS) == []


def test_what_is_remembered_of_those_that_were_refreshed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(due, "REMEMBERED_MAX", 10)
    who = Due(refresh_ms=1_000)
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
