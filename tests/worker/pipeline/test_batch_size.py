"""The pace: batches as large as the latency allows, learned from those that a backlog has filled."""

from worker.pipeline.batch_size import SIZE_MIN, SIZE_START, AdaptiveBatchSize


def settle(pace: AdaptiveBatchSize, record_ms: float) -> AdaptiveBatchSize:
    """After many batches of a backlog whose records cost so much each."""
    for _ in range(100):
        pace.update(pace.records_max, pace.records_max * record_ms)
    return pace


def test_under_a_backlog_a_batch_grows_to_what_the_latency_allows() -> None:
    assert settle(AdaptiveBatchSize(batch_max=5_000, latency_ms=100), 0.05).records_max == 2_000


def test_records_that_cost_little_are_bounded_by_the_most_that_a_batch_may_have() -> None:
    assert settle(AdaptiveBatchSize(batch_max=1_500, latency_ms=100), 0.001).records_max == 1_500


def test_however_much_a_record_costs_some_go_together() -> None:
    assert settle(AdaptiveBatchSize(batch_max=1_500, latency_ms=100), 100.0).records_max == SIZE_MIN


def test_a_most_below_the_least_is_kept_to() -> None:
    assert settle(AdaptiveBatchSize(batch_max=7, latency_ms=100), 100.0).records_max == 7


def test_small_batches_of_a_calm_hour_teach_nothing() -> None:
    # given
    pace = AdaptiveBatchSize(batch_max=5_000, latency_ms=100)
    # when one record takes as long as many together would
    pace.update(1, 90.0)
    # then
    assert pace.records_max == SIZE_START


def test_one_batch_that_took_long_halves_the_next_and_no_more() -> None:
    # given
    pace = settle(AdaptiveBatchSize(batch_max=5_000, latency_ms=100), 0.05)
    # when
    pace.update(2_000, 60_000.0)
    # then
    assert pace.records_max == 1_000
