"""The refresh queue: which users are due, for which event, without which items."""

from contract.events.model import Event
from contract.profiles.entity_updates import Arrival
from tests.worker.events import NOW_MS, make_arrivals, make_click, make_order, make_product
from transport.records import TopicPartition
from worker.recommend.refresh_queue import RefreshQueue, TakenUser

ALL = 100
PARTITIONS = [TopicPartition("shop.clicks", number) for number in range(3)]


def make_queue(*events: Event, refresh_ms: int = 1_000, waiting_max: int = 100) -> RefreshQueue:
    """A queue of the users of these events."""
    queue = RefreshQueue(refresh_ms=refresh_ms, waiting_max=waiting_max)
    queue.push(make_arrivals(*events), NOW_MS)
    return queue


def take(queue: RefreshQueue, user: str, now_ms: int = NOW_MS) -> TakenUser:
    (taken,) = queue.take([user], now_ms)
    return taken


def test_a_user_is_due_at_once_and_then_after_the_refresh_interval() -> None:
    # given
    queue = make_queue(make_click("c1", user="a"))
    assert queue.due(NOW_MS, ALL) == ["a"]
    take(queue, "a")
    # when
    queue.push(make_arrivals(make_click("c2", user="a"), make_click("c3", user="b")), NOW_MS)
    # then
    assert queue.due(NOW_MS + 999, ALL) == ["b"]
    assert queue.due(NOW_MS + 1_000, ALL) == ["a", "b"]


def test_a_user_without_new_events_is_not_due() -> None:
    # given
    queue = make_queue(make_click("c1", user="a"))
    # when
    take(queue, "a")
    # then
    assert queue.due(NOW_MS + 100_000, ALL) == []


def test_a_taken_user_comes_with_the_latest_event_and_the_items_bought_since_the_last_list() -> None:
    # given
    queue = make_queue(
        make_order("o1", "x", "y", user="a"), make_order("o2", "z", user="a"), make_click("c1", user="a")
    )
    # when
    taken = take(queue, "a")
    # then
    assert (taken.waiting.arrival.event.event_id, set(taken.bought)) == ("c1", set("xyz"))
    queue.push(make_arrivals(make_click("c2", user="a")), NOW_MS)
    assert take(queue, "a").bought == {}


def test_users_that_wait_longest_are_due_first() -> None:
    # given
    queue = make_queue(make_click("c1", user="a"), make_click("c2", user="b"), make_click("c3", user="c"))
    # when a waiting user clicks again
    queue.push(make_arrivals(make_click("c4", user="a")), NOW_MS + 5)
    # then the user keeps the position, and the others follow
    assert queue.due(NOW_MS, 2) == ["a", "b"]
    taken = take(queue, "a")
    assert (taken.waiting.arrival.event.event_id, taken.waiting.since_ms) == ("c4", NOW_MS)
    assert queue.due(NOW_MS, 2) == ["b", "c"]


def test_a_user_who_clicks_all_the_time_delays_no_other_one() -> None:
    # given one user who clicks before each list, and others who clicked once, where there is time for two lists
    others = [f"u{n}" for n in range(10)]
    queue = make_queue(make_click("c0", user="busy"), *[make_click(f"c-{user}", user=user) for user in others])
    refreshed = list[str]()
    # when
    for number in range(12):
        now_ms = NOW_MS + 100 * number
        queue.push(make_arrivals(make_click(f"b{number}", user="busy")), now_ms)
        refreshed += (users := queue.due(now_ms, 2))
        queue.take(users, now_ms)
    # then the others came in their order, each after the one list that the user may have in a second
    assert [user for user in refreshed if user != "busy"] == others
    assert refreshed[0] == "busy"
    assert refreshed.count("busy") == 2


def test_only_users_whose_profile_was_read_are_chosen_and_the_others_wait_on() -> None:
    # given
    queue = make_queue(make_click("c1", user="a"), make_click("c2", user="b"), make_click("c3", user="c"))
    # then
    assert queue.due(NOW_MS, 2, {"user:b", "user:c"}) == ["b", "c"]
    assert queue.due(NOW_MS, 2) == ["a", "b"]


def test_an_event_without_a_user_makes_no_user_due() -> None:
    assert make_queue(make_product("i")).due(NOW_MS, ALL) == []


def test_beyond_the_limit_the_longest_waiting_users_are_dropped_and_counted() -> None:
    # given
    queue = make_queue(refresh_ms=0, waiting_max=2)
    # when
    clicks = make_arrivals(make_click("c1", user="a"), make_click("c2", user="b"), make_click("c3", user="c"))
    dropped = queue.push(clicks, NOW_MS)
    # then
    assert (dropped, len(queue), queue.due(NOW_MS, ALL)) == (1, 2, ["b", "c"])


def test_expired_refresh_times_are_not_kept() -> None:
    # given
    queue = make_queue()
    for n in range(10):
        queue.push(make_arrivals(make_click("c", user=f"u{n}")), NOW_MS)
        take(queue, f"u{n}")
    # when another user is refreshed long after
    queue.push(make_arrivals(make_click("c", user="late")), NOW_MS + 5_000)
    take(queue, "late", NOW_MS + 5_000)
    # then only the refresh that still delays its user is kept
    assert set(queue._refreshed_ms) == {"late"}
    queue.push(make_arrivals(make_click("c", user="late")), NOW_MS + 5_500)
    assert queue.due(NOW_MS + 5_500, ALL) == []


def test_users_whose_events_will_be_read_again_are_forgotten_and_no_others() -> None:
    # given
    queue = make_queue(make_click("c1", user="a"), make_click("c2", user="b"))
    # when
    queue.forget(lambda arrival: arrival.event.event_id == "c1")
    # then
    assert queue.due(NOW_MS, ALL) == ["b"]


def test_a_guest_waits_for_no_list() -> None:
    # given a click and an order without a user
    queue = make_queue(make_click("c1", user=""), make_order("o1", user=""), make_click("c2", user="a"))
    # then
    assert queue.due(NOW_MS, ALL) == ["a"]


def test_users_whose_lists_were_not_published_wait_again_where_they_were() -> None:
    # given three users of whom two are taken, one of these clicks again, and a fourth one comes
    queue = make_queue(make_order("o1", "x", user="a"), make_click("c2", user="b"), make_click("c3", user="c"))
    queue.take(["a", "b"], NOW_MS + 10)
    queue.push(make_arrivals(make_click("c4", user="b"), make_click("c5", user="d")), NOW_MS + 20)
    # when
    queue.put_back()
    # then they are due at once, with their latest events, purchases and waiting times
    assert queue.due(NOW_MS + 20, ALL) == ["a", "b", "c", "d"]
    taken = {held.waiting.arrival.event.event_id: held for held in queue.take(["a", "b"], NOW_MS + 20)}
    assert set(taken["o1"].bought) == {"x"}
    assert taken["c4"].waiting.since_ms == NOW_MS


def test_a_taken_user_whose_event_will_be_read_again_is_not_put_back() -> None:
    # given
    queue = make_queue(make_click("c1", user="a"), make_click("c2", user="b"))
    queue.take(["a", "b"], NOW_MS)
    # when
    queue.forget(lambda arrival: arrival.event.event_id == "c1")
    queue.put_back()
    # then
    assert queue.due(NOW_MS, ALL) == ["b"]


def test_the_longest_wait_is_that_of_the_first_event_that_waits() -> None:
    # given
    queue = make_queue(make_click("c1", user="a"))
    queue.push(make_arrivals(make_click("c2", user="a"), make_click("c3", user="b")), NOW_MS + 300)
    # then
    assert queue.measure_wait_ms(NOW_MS + 500) == 500
    take(queue, "a")
    assert queue.measure_wait_ms(NOW_MS + 500) == 200
    take(queue, "b")
    assert queue.measure_wait_ms(NOW_MS + 500) == 0


def make_queue_of_partitions(*positions: tuple[str, int, int]) -> RefreshQueue:
    """A queue of the users of clicks at these partitions and offsets."""
    queue = make_queue()
    for user, partition, offset in positions:
        queue.push([make_click_at(user, partition, offset)], NOW_MS)
    return queue


def make_click_at(user: str, partition: int, offset: int) -> Arrival:
    return Arrival("clicks/0", offset, make_click(f"c{offset}", user=user), "shop.clicks", partition)


def test_the_first_event_of_each_partition_that_waits_is_found() -> None:
    # given
    queue = make_queue_of_partitions(("a", 0, 5), ("b", 1, 7), ("c", 0, 6), ("a", 0, 9))
    # then
    assert queue.find_first(PARTITIONS) == {PARTITIONS[0]: 5, PARTITIONS[1]: 7}
    assert queue.find_first(PARTITIONS[1:]) == {PARTITIONS[1]: 7}
    # when a user was taken, the list is not cached yet
    queue.take(["a"], NOW_MS)
    assert queue.find_first(PARTITIONS)[PARTITIONS[0]] == 5
    # when others were taken since
    queue.take(["b"], NOW_MS)
    assert queue.find_first(PARTITIONS) == {PARTITIONS[0]: 6, PARTITIONS[1]: 7}
    queue.take(["c"], NOW_MS)
    queue.take([], NOW_MS)
    assert queue.find_first(PARTITIONS) == {}


def test_the_first_event_is_found_among_users_who_were_queued_out_of_order() -> None:
    # given an event that was read again after a later one, and a newer event of the same user
    queue = make_queue_of_partitions(("a", 0, 50))
    queue.push([make_click_at("b", 0, 20)], NOW_MS, is_again=True)
    queue.push([make_click_at("b", 0, 60)], NOW_MS)
    # then
    assert queue.find_first(PARTITIONS) == {PARTITIONS[0]: 20}
    # when the user was taken and put back
    queue.take(["b"], NOW_MS)
    queue.put_back()
    assert queue.find_first(PARTITIONS) == {PARTITIONS[0]: 20}
    # when the user has a list
    queue.take(["b"], NOW_MS)
    queue.take([], NOW_MS)
    assert queue.find_first(PARTITIONS) == {PARTITIONS[0]: 50}


def test_users_leave_with_the_partition_of_their_first_event() -> None:
    # given
    queue = make_queue_of_partitions(("a", 0, 1), ("b", 1, 1), ("c", 1, 2), ("c", 0, 2), ("d", 0, 3))
    queue.take(["d"], NOW_MS)
    # when
    queue.release({PARTITIONS[0]})
    queue.put_back()
    # then
    assert queue.due(NOW_MS + 5_000, ALL) == ["b", "c"]
    assert queue.find_first(PARTITIONS) == {PARTITIONS[1]: 1}


def test_of_an_erased_user_only_what_was_done_later_is_remembered() -> None:
    # given a user who waits and has bought, before and after, and another one
    later_ms = NOW_MS + 1
    queue = make_queue(
        make_order("o1", "x", "y", user="a"),
        make_order("o2", "y", "z", user="a", ts_ms=later_ms),
        make_order("o3", "x", user="b"),
    )
    # when
    queue.forget_erased({"a": NOW_MS, "stranger": NOW_MS})
    # then
    assert {user: dict(take(queue, user).bought) for user in "ab"} == {
        "a": {"y": later_ms, "z": later_ms},
        "b": {"x": NOW_MS},
    }


def test_an_erased_user_waits_for_no_list_and_the_next_one_is_not_delayed() -> None:
    # given a user who has had a list, has bought since, and waits for the next
    queue = make_queue(make_click("c1", user="a"), make_click("c2", user="b"))
    take(queue, "a")
    queue.push(make_arrivals(make_order("o1", "x", user="a")), NOW_MS)
    # when
    queue.forget_erased({"a": NOW_MS})
    # then
    assert queue.due(NOW_MS + 1_000, ALL) == ["b"]
    assert queue.find_first(PARTITIONS).keys() == make_queue(make_click("c2", user="b")).find_first(PARTITIONS).keys()
    queue.push(make_arrivals(make_click("c3", user="a", ts_ms=NOW_MS + 1)), NOW_MS + 1)
    assert queue.due(NOW_MS + 1, ALL) == ["b", "a"]
    assert take(queue, "a").bought == {}


def test_of_an_erased_user_whose_list_was_not_published_nothing_is_put_back() -> None:
    # given one whose latest event is covered, and one who has done something since
    queue = make_queue(
        make_order("o1", "x", user="a"),
        make_order("o2", "x", user="b"),
        make_order("o3", "y", user="b", ts_ms=NOW_MS + 1),
    )
    queue.take(["a", "b"], NOW_MS)
    # when
    queue.forget_erased({"a": NOW_MS, "b": NOW_MS})
    queue.put_back()
    # then
    assert queue.due(NOW_MS, ALL) == ["b"]
    assert take(queue, "b").bought == {"y": NOW_MS + 1}
