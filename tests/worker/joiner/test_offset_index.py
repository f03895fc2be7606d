"""The time index of a partition: from which offset it is read again."""

import random

import pytest

from worker.joiner.offset_index import TimeOffsetIndex


def make_index(*times: int) -> TimeOffsetIndex:
    index = TimeOffsetIndex()
    for offset, ms in enumerate(times):
        index.observe(offset, ms)
    return index


def test_rereading_starts_at_the_first_event_at_or_after_the_time() -> None:
    assert make_index(10, 20, 30).safe_offset(20) == 1
    assert make_index(10, 20, 30).safe_offset(21) == 2
    assert make_index(10, 20, 30).safe_offset(31) == 3


def test_without_a_time_rereading_starts_after_the_last_record() -> None:
    assert make_index(10, 20, 30).safe_offset(None) == 3


def test_a_late_event_does_not_hide_earlier_records() -> None:
    assert make_index(10, 30, 20, 40).safe_offset(20) == 1


def test_a_late_event_after_all_entries_were_dropped_is_read_again() -> None:
    index = make_index(10, 20, 30)
    assert index.safe_offset(50) == 3

    index.observe(3, 5)

    assert index.safe_offset(5) == 3


def test_records_without_an_event_are_skipped() -> None:
    index = make_index(10)
    index.skip(1)

    assert index.safe_offset(None) == 2
    assert index.safe_offset(10) == 2


@pytest.mark.parametrize("entries_max", [4, 1_000])
def test_the_safe_offset_never_skips_a_needed_event(seed: int, entries_max: int) -> None:
    rng = random.Random(seed)
    index = TimeOffsetIndex(entries_max=entries_max)
    times: list[int] = []
    committed = 0

    for offset in range(2_000):
        times.append(offset * 10 + rng.randrange(-500, 500))
        index.observe(offset, max(0, times[-1]))
        if rng.random() < 0.05:
            oldest_ms = rng.randrange(max(1, offset * 10))
            # Records before a committed position are not needed again: no row that old was open at the commit.
            needed = [n for n, ms in enumerate(times) if ms >= oldest_ms and n >= committed]
            position = index.safe_offset(oldest_ms)
            assert position <= min(needed, default=offset + 1)
            committed = max(committed, position)
            assert len(index._entries) <= entries_max


def test_entries_become_coarser_instead_of_more() -> None:
    fine, coarse = TimeOffsetIndex(), TimeOffsetIndex(entries_max=10)
    for offset in range(100):
        fine.observe(offset, offset * 10)
        coarse.observe(offset, offset * 10)

    assert 0 < coarse.safe_offset(500) <= fine.safe_offset(500) == 50
