"""Limits: batches as large as the latency allows, and a worker that stops when most records are bad."""

import pytest

from worker.pipeline.limits import SIZE_MIN, SIZE_START, AdaptiveBatchSize, DeadLetterBreaker, TooManyDeadLetters


def run_backlog(batch_size: AdaptiveBatchSize, record_ms: float) -> AdaptiveBatchSize:
    """After many batches of a backlog whose records cost `record_ms` each."""
    for _ in range(100):
        batch_size.update(batch_size.records_max, batch_size.records_max * record_ms)
    return batch_size


def test_under_a_backlog_batches_grow_to_the_size_that_the_latency_allows() -> None:
    assert run_backlog(AdaptiveBatchSize(batch_max=5_000, latency_ms=100), 0.05).records_max == 2_000


def test_cheap_records_are_limited_by_the_maximum_size() -> None:
    assert run_backlog(AdaptiveBatchSize(batch_max=1_500, latency_ms=100), 0.001).records_max == 1_500


def test_expensive_records_still_get_the_minimum_size() -> None:
    assert run_backlog(AdaptiveBatchSize(batch_max=1_500, latency_ms=100), 100.0).records_max == SIZE_MIN


def test_a_maximum_below_the_minimum_size_is_respected() -> None:
    assert run_backlog(AdaptiveBatchSize(batch_max=7, latency_ms=100), 100.0).records_max == 7


def test_small_batches_without_a_backlog_change_nothing() -> None:
    # given
    batch_size = AdaptiveBatchSize(batch_max=5_000, latency_ms=100)
    # when one record takes as long as many together would
    batch_size.update(1, 90.0)
    # then
    assert batch_size.records_max == SIZE_START


def test_one_slow_batch_halves_the_next_and_no_more() -> None:
    # given
    batch_size = run_backlog(AdaptiveBatchSize(batch_max=5_000, latency_ms=100), 0.05)
    # when
    batch_size.update(2_000, 60_000.0)
    # then
    assert batch_size.records_max == 1_000


def test_slow_lists_leave_the_size_of_batches_as_it_is() -> None:
    # given
    batch_size = run_backlog(AdaptiveBatchSize(batch_max=5_000, latency_ms=100), 0.05)
    # when each batch takes as long again for lists
    for _ in range(100):
        batch_size.update(batch_size.records_max, batch_size.records_max * 0.05 + 100.0, 100.0)
    # then
    assert batch_size.records_max == 2_000


def test_a_full_window_with_the_maximum_share_of_bad_records_passes() -> None:
    DeadLetterBreaker(share_max=0.5, window=100).record(100, 50)


def test_one_more_bad_record_stops_the_worker_with_the_figures() -> None:
    with pytest.raises(TooManyDeadLetters, match=r"At most 50% .* Found 51 of the last 100"):
        DeadLetterBreaker(share_max=0.5, window=100).record(100, 51)


def test_the_breaker_waits_for_a_full_window() -> None:
    breaker = DeadLetterBreaker(share_max=0.5, window=100)

    breaker.record(99, 99)
    with pytest.raises(TooManyDeadLetters):
        breaker.record(1, 0)


def test_a_new_window_starts_at_zero() -> None:
    breaker = DeadLetterBreaker(share_max=0.5, window=100)

    breaker.record(100, 50)
    breaker.record(100, 50)
