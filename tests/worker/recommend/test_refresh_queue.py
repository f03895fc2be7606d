"""The refresh queue: which users are due, for which event, without which items."""

from tests.worker.events import NOW_MS, make_arrivals, make_click, make_order, make_product
from worker.recommend.refresh_queue import RefreshQueue


def test_a_user_is_due_at_once_and_then_after_the_refresh_interval() -> None:
    # given
    queue = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    queue.push(make_arrivals(make_click("c1", user="a")))
    assert queue.due(NOW_MS) == ["a"]
    queue.pop("a", NOW_MS)
    # when
    queue.push(make_arrivals(make_click("c2", user="a"), make_click("c3", user="b")))
    # then
    assert queue.due(NOW_MS + 999) == ["b"]
    assert queue.due(NOW_MS + 1_000) == ["a", "b"]


def test_a_user_without_new_events_is_not_due() -> None:
    # given
    queue = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    queue.push(make_arrivals(make_click("c1", user="a")))
    # when
    queue.pop("a", NOW_MS)
    # then
    assert queue.due(NOW_MS + 100_000) == []


def test_pop_returns_the_latest_event_and_items_bought_since_the_last_list() -> None:
    # given
    queue = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    queue.push(
        make_arrivals(make_order("o1", "x", "y", user="a"), make_order("o2", "z", user="a"), make_click("c1", user="a"))
    )
    # when
    arrival, bought = queue.pop("a", NOW_MS)
    # then
    assert (arrival.event.event_id, bought) == ("c1", {"x", "y", "z"})
    queue.push(make_arrivals(make_click("c2", user="a")))
    assert queue.pop("a", NOW_MS)[1] == set()


def test_users_that_wait_longest_are_due_first() -> None:
    # given
    queue = RefreshQueue(refresh_ms=1_000, batch_max=2, waiting_max=100)
    queue.push(make_arrivals(make_click("c1", user="a"), make_click("c2", user="b"), make_click("c3", user="c")))
    # when a waiting user clicks again
    queue.push(make_arrivals(make_click("c4", user="a")))
    # then the user keeps the position, and the others follow
    assert queue.due(NOW_MS) == ["a", "b"]
    assert queue.pop("a", NOW_MS)[0].event.event_id == "c4"
    assert queue.due(NOW_MS) == ["b", "c"]


def test_an_event_without_a_user_makes_no_user_due() -> None:
    # given
    queue = RefreshQueue(refresh_ms=0, batch_max=100, waiting_max=100)
    # when
    queue.push(make_arrivals(make_product("i")))
    # then
    assert queue.due(NOW_MS) == []


def test_beyond_the_limit_the_longest_waiting_users_are_dropped_and_counted() -> None:
    # given
    queue = RefreshQueue(refresh_ms=0, batch_max=100, waiting_max=2)
    # when
    dropped = queue.push(
        make_arrivals(make_click("c1", user="a"), make_click("c2", user="b"), make_click("c3", user="c"))
    )
    # then
    assert (dropped, len(queue), queue.due(NOW_MS)) == (1, 2, ["b", "c"])


def test_expired_refresh_times_are_not_kept() -> None:
    # given
    queue = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    for n in range(10):
        queue.push(make_arrivals(make_click("c", user=f"u{n}")))
        queue.pop(f"u{n}", NOW_MS)
    # when another user is refreshed long after
    queue.push(make_arrivals(make_click("c", user="late")))
    queue.pop("late", NOW_MS + 5_000)
    # then only the refresh that still delays its user is kept
    assert set(queue._refreshed_ms) == {"late"}
    queue.push(make_arrivals(make_click("c", user="late")))
    assert queue.due(NOW_MS + 5_500) == []


def test_users_whose_events_will_be_read_again_are_forgotten_and_no_others() -> None:
    # given
    queue = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    queue.push(make_arrivals(make_click("c1", user="a"), make_click("c2", user="b")))
    # when
    queue.forget(lambda arrival: arrival.event.event_id == "c1")
    # then
    assert queue.due(NOW_MS) == ["b"]


def test_a_guest_waits_for_no_list() -> None:
    # given a click and an order without a user
    queue = RefreshQueue(refresh_ms=1_000, batch_max=100, waiting_max=100)
    # when
    queue.push(make_arrivals(make_click("c1", user=""), make_order("o1", user=""), make_click("c2", user="a")))
    # then
    assert queue.due(NOW_MS) == ["a"]
