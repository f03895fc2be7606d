"""Timers, shelves and parking: what is due, what waits, what has to leave."""

import random

from contract.events import Order
from contract.joining.early_events import PER_KEY_MAX, EarlyEvents
from contract.joining.pending import PendingStore
from contract.joining.timers import STALE_MIN, Timers
from tests.contract.joining.builders import make_order, minutes_to_ms


def test_timers_come_up_before_a_time_and_not_at_it() -> None:
    timers = Timers[str]()
    timers.schedule("late", 20)
    timers.schedule("early", 10)

    assert list(timers.pop_before(10)) == []
    assert list(timers.pop_before(21)) == ["early", "late"]
    assert timers.earliest_ms() is None


def test_equal_times_come_up_in_the_order_in_which_they_were_set() -> None:
    timers = Timers[str]()
    for key in "cab":
        timers.schedule(key, 5)

    assert list(timers.pop_before(6)) == ["c", "a", "b"]


def test_a_timer_that_is_set_by_another_one_comes_up_as_well() -> None:
    timers = Timers[str]()
    timers.schedule("first", 1)
    came = []

    for key in timers.pop_before(10):
        came.append(key)
        if key == "first":
            timers.schedule("second", 2)

    assert came == ["first", "second"]


def test_timers_do_as_a_plain_dictionary_does_and_keep_no_more(seed: int) -> None:
    draw, timers, plain = random.Random(seed), Timers[int](), dict[int, int]()

    for _ in range(5_000):
        key, ms = draw.randrange(20), draw.randrange(1_000)
        if draw.random() < 0.7:
            timers.schedule(key, ms)
            plain[key] = ms
        elif draw.random() < 0.5:
            timers.cancel(key)
            plain.pop(key, None)
        else:
            due = {k for k, at_ms in plain.items() if at_ms < ms // 10}
            assert set(timers.pop_before(ms // 10)) == due
            plain = {k: at_ms for k, at_ms in plain.items() if k not in due}
        assert timers.earliest_ms() == min(plain.values(), default=None)

    assert len(timers._heap) <= 2 * len(plain) + STALE_MIN + 20


def test_a_shelf_tells_since_when_its_oldest_thing_waits() -> None:
    shelf = PendingStore[str, int](limit=9, removed_max=9)
    shelf.add("a", 1, since_ms=30, due_ms=99)
    shelf.add("b", 2, since_ms=20, due_ms=99)
    assert shelf.oldest_ms() == 20

    shelf.extend("a", 10)
    shelf.extend("a", 40)
    assert shelf.oldest_ms() == 10

    shelf.remove("a")
    assert shelf.oldest_ms() == 20


def test_a_full_shelf_gives_its_oldest_arrival_away() -> None:
    shelf = PendingStore[str, int](limit=2, removed_max=9)

    leaving = [shelf.add(key, n, since_ms=-n, due_ms=9) for n, key in enumerate("abc")]

    assert leaving == [None, None, ("a", 0)]
    assert (shelf.get("a"), shelf.was_removed("a"), shelf.was_removed("b")) == (None, True, False)
    assert [key for key, _ in shelf.due(100)] == ["b", "c"]


def test_a_shelf_remembers_a_bounded_number_of_keys_that_left() -> None:
    shelf = PendingStore[int, int](limit=9, removed_max=2)
    for n in range(3):
        shelf.add(n, n, since_ms=0, due_ms=0)
        shelf.remove(n)

    assert [shelf.was_removed(n) for n in range(3)] == [False, True, True]


def test_parked_events_are_claimed_once_in_the_order_in_which_they_came() -> None:
    parked = EarlyEvents[str, Order](wait_ms=1, limit=9)
    first, second = make_order(2, "a"), make_order(1, "b")
    parked.add("k", first)
    parked.add("k", second)

    assert parked.peek("k") == (first, second)
    assert parked.pop("k") == (first, second)
    assert (parked.pop("k"), parked.oldest_ms()) == ((), None)


def test_parked_events_expire_by_their_own_time() -> None:
    parked = EarlyEvents[str, Order](wait_ms=minutes_to_ms(5), limit=9)
    early, late = make_order(1, "a"), make_order(2, "b")
    parked.add("k", late)
    parked.add("k", early)

    assert list(parked.pop_expired(minutes_to_ms(6) + 1)) == [early]
    assert parked.peek("k") == (late,)
    assert list(parked.pop_expired(minutes_to_ms(7))) == []
    assert list(parked.pop_expired(minutes_to_ms(7) + 1)) == [late]


def test_one_key_holds_a_bounded_number_of_parked_events() -> None:
    parked = EarlyEvents[str, Order](wait_ms=1, limit=10_000)

    leaving = [parked.add("k", make_order(n, "a")) for n in range(PER_KEY_MAX + 1)]

    assert leaving[:-1] == [None] * PER_KEY_MAX
    assert leaving[-1] == make_order(0, "a")
    assert len(parked.peek("k")) == PER_KEY_MAX
