"""Flood: most of what comes in is bad, and the worker stops."""

import pytest

from worker.pipeline.dead_letter_breaker import DeadLetterBreaker, TooManyDeadLetters


def test_a_whole_window_with_its_share_of_bad_records_passes() -> None:
    DeadLetterBreaker(share_max=0.5, window=100).record(100, 50)


def test_one_more_stops_the_worker_and_says_what_was_found() -> None:
    with pytest.raises(TooManyDeadLetters, match=r"At most 50% .* Found 51 of the last 100"):
        DeadLetterBreaker(share_max=0.5, window=100).record(100, 51)


def test_nothing_is_said_before_a_window_is_whole() -> None:
    flood = DeadLetterBreaker(share_max=0.5, window=100)

    flood.record(99, 99)
    with pytest.raises(TooManyDeadLetters):
        flood.record(1, 0)


def test_a_window_remembers_nothing_of_the_one_before() -> None:
    flood = DeadLetterBreaker(share_max=0.5, window=100)

    flood.record(100, 50)
    flood.record(100, 50)
