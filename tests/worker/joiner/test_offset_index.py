"""From where a partition is read again."""

import random

import pytest

from worker.joiner.offset_index import TimeOffsetIndex


def make_bookmarks(*times: int) -> TimeOffsetIndex:
    made = TimeOffsetIndex()
    for offset, ms in enumerate(times):
        made.observe(offset, ms)
    return made


def test_reading_again_starts_at_the_first_event_that_is_not_before_the_time() -> None:
    assert make_bookmarks(10, 20, 30).safe_offset(20) == 1
    assert make_bookmarks(10, 20, 30).safe_offset(21) == 2
    assert make_bookmarks(10, 20, 30).safe_offset(31) == 3


def test_with_nothing_to_read_again_reading_goes_on() -> None:
    assert make_bookmarks(10, 20, 30).safe_offset(None) == 3


def test_a_late_event_does_not_hide_the_ones_before_it() -> None:
    assert make_bookmarks(10, 30, 20, 40).safe_offset(20) == 1


def test_an_event_that_is_late_after_all_marks_were_dropped_is_read_again() -> None:
    bookmarks = make_bookmarks(10, 20, 30)
    assert bookmarks.safe_offset(50) == 3

    bookmarks.observe(3, 5)

    assert bookmarks.safe_offset(5) == 3


def test_records_without_an_event_are_passed() -> None:
    bookmarks = make_bookmarks(10)
    bookmarks.skip(1)

    assert bookmarks.safe_offset(None) == 2
    assert bookmarks.safe_offset(10) == 2


@pytest.mark.parametrize("marks_max", [4, 1_000])
def test_no_needed_event_is_ever_left_behind(seed: int, marks_max: int) -> None:
    draw, bookmarks, times = random.Random(seed), TimeOffsetIndex(entries_max=marks_max), list[int]()
    committed = 0

    for offset in range(2_000):
        times.append(offset * 10 + draw.randrange(-500, 500))
        bookmarks.observe(offset, max(0, times[-1]))
        if draw.random() < 0.05:
            oldest_ms = draw.randrange(max(1, offset * 10))
            # What was committed before needs no reading again: nothing that old was waiting then.
            needed = [at for at, ms in enumerate(times) if ms >= oldest_ms and at >= committed]
            position = bookmarks.safe_offset(oldest_ms)
            assert position <= min(needed, default=offset + 1)
            committed = max(committed, position)
            assert len(bookmarks._entries) <= marks_max


def test_marks_become_coarser_instead_of_more() -> None:
    fine, coarse = TimeOffsetIndex(), TimeOffsetIndex(entries_max=10)
    for offset in range(100):
        fine.observe(offset, offset * 10)
        coarse.observe(offset, offset * 10)

    assert 0 < coarse.safe_offset(500) <= fine.safe_offset(500) == 50
