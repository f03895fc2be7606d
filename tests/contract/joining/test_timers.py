"""Timers, pending entries and early events: due times, limits and evictions."""

import random

from contract.events.model import Order
from contract.joining.early_events import PER_KEY_MAX, EarlyEvents
from contract.joining.pending import PendingStore
from contract.joining.since_index import BUCKET_MS, SinceIndex
from contract.joining.timers import STALE_MIN, Timers
from tests.contract.joining.builders import make_order, minutes_to_ms


def test_timers_fire_after_their_time() -> None:
    timers = Timers[str]()
    timers.schedule("late", 20)
    timers.schedule("early", 10)

    assert list(timers.pop_before(10)) == []
    assert list(timers.pop_before(21)) == ["early", "late"]
    assert timers.earliest_ms() is None


def test_equal_times_fire_in_the_order_of_scheduling() -> None:
    timers = Timers[str]()
    for key in "cab":
        timers.schedule(key, 5)

    assert list(timers.pop_before(6)) == ["c", "a", "b"]


def test_a_timer_scheduled_by_another_one_fires() -> None:
    timers = Timers[str]()
    timers.schedule("first", 1)
    fired = []

    for key in timers.pop_before(10):
        fired.append(key)
        if key == "first":
            timers.schedule("second", 2)

    assert fired == ["first", "second"]


def test_timers_agree_with_a_dictionary_and_keep_few_stale_entries(seed: int) -> None:
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


def test_the_oldest_start_follows_the_earliest_part() -> None:
    pending = PendingStore("rows", int, limit=9, removed_max=9)
    pending.add("a", 1, since_ms=minutes_to_ms(3), due_ms=99)
    pending.add("b", 2, since_ms=minutes_to_ms(2), due_ms=99)
    assert pending.oldest_ms() == minutes_to_ms(2)

    pending.update("a", part_ms=minutes_to_ms(1))
    pending.update("a", part_ms=minutes_to_ms(4))
    assert pending.oldest_ms() == minutes_to_ms(1)

    pending.remove("a")
    assert pending.oldest_ms() == minutes_to_ms(2)


def test_the_oldest_start_is_at_most_a_minute_early(seed: int) -> None:
    draw, index, plain = random.Random(seed), SinceIndex(), list[int]()

    for n in range(5_000):
        if plain and draw.random() < 0.5:
            index.remove(plain.pop(draw.randrange(len(plain))))
        else:
            plain.append(draw.randrange(10 * BUCKET_MS))
            index.add(plain[-1])
        if n % 1_000 == 0:
            index = SinceIndex(index.buckets())
        earliest_ms, exact_ms = index.earliest_ms(), min(plain, default=None)
        if exact_ms is None or earliest_ms is None:
            assert earliest_ms == exact_ms
        else:
            assert exact_ms - BUCKET_MS < earliest_ms <= exact_ms

    assert len(index._heap) <= 10


def test_a_full_store_evicts_the_entry_added_first() -> None:
    pending = PendingStore("rows", int, limit=2, removed_max=9)

    evicted = [pending.add(key, n, since_ms=-n, due_ms=9) for n, key in enumerate("abc")]

    assert evicted == [None, None, ("a", 0)]
    assert (pending.get("a"), pending.was_removed("a"), pending.was_removed("b")) == (None, True, False)
    assert [key for key, _ in pending.due(100)] == ["b", "c"]


def test_a_bounded_number_of_removed_keys_is_remembered() -> None:
    pending = PendingStore("rows", int, limit=9, removed_max=2)
    for n in range(3):
        pending.add(str(n), n, since_ms=0, due_ms=0)
        pending.remove(str(n))

    assert [pending.was_removed(str(n)) for n in range(3)] == [False, True, True]


def test_early_events_are_popped_once_in_the_order_of_arrival() -> None:
    early_events = EarlyEvents("early", Order, wait_ms=1, limit=9)
    first, second = make_order(2, "a"), make_order(1, "b")
    early_events.add("k", first)
    early_events.add("k", second)

    assert early_events.peek("k") == (first, second)
    assert early_events.pop("k") == (first, second)
    assert (early_events.pop("k"), early_events.pending.oldest_ms()) == ((), None)


def test_early_events_expire_by_their_own_time() -> None:
    early_events = EarlyEvents("early", Order, wait_ms=minutes_to_ms(5), limit=9)
    early, late = make_order(1, "a"), make_order(2, "b")
    early_events.add("k", late)
    early_events.add("k", early)

    assert list(early_events.pop_expired(minutes_to_ms(6) + 1)) == [early]
    assert early_events.peek("k") == (late,)
    assert list(early_events.pop_expired(minutes_to_ms(7))) == []
    assert list(early_events.pop_expired(minutes_to_ms(7) + 1)) == [late]


def test_early_events_of_one_key_are_bounded() -> None:
    early_events = EarlyEvents("early", Order, wait_ms=1, limit=10_000)

    evicted = [early_events.add("k", make_order(n, "a")) for n in range(PER_KEY_MAX + 1)]

    assert evicted[:-1] == [None] * PER_KEY_MAX
    assert evicted[-1] == make_order(0, "a")
    assert len(early_events.peek("k")) == PER_KEY_MAX
