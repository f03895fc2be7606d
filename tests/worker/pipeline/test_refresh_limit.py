"""How many answers by the clock go with a batch."""

import pytest

from worker.pipeline.refresh_limit import COUNT_MIN, STRETCH_MAX, RefreshLimit

BATCHES = 30


def learn(limit: RefreshLimit, cost_ms: float, load: float = 0.0) -> RefreshLimit:
    """The limit after batches with as many answers as it allows."""
    for _ in range(BATCHES):
        count = limit.count_max(load)
        limit.update(count, count * cost_ms)
    return limit


@pytest.mark.parametrize(("load", "expected"), [(0.0, 200), (0.5, 150), (1.0, 100), (3.0, 100)])
def test_an_idle_lane_gives_its_whole_time_and_a_full_one_the_share(load: float, expected: int) -> None:
    # given answers of half a millisecond each
    limit = learn(RefreshLimit(latency_ms=100, share=0.5), 0.5)
    # then
    assert limit.count_max(load) == pytest.approx(expected, abs=1)


def test_answers_that_take_longer_than_expected_lower_the_number_at_once() -> None:
    # given
    limit = learn(RefreshLimit(latency_ms=100, share=0.5), 0.5)
    # when a model costs four times as much
    count = limit.count_max(0.0)
    limit.update(count, count * 2.0)
    # then
    assert limit.count_max(0.0) == 50


def test_one_fast_batch_at_most_doubles_the_number() -> None:
    # given
    limit = learn(RefreshLimit(latency_ms=100, share=0.5), 0.5)
    # when
    limit.update(limit.count_max(0.0), 0.001)
    # then
    assert limit.count_max(0.0) == pytest.approx(400, abs=2)


def test_a_batch_of_few_answers_which_cost_more_each_lowers_nothing() -> None:
    # given
    limit = learn(RefreshLimit(latency_ms=100, share=0.5), 0.5)
    # when
    limit.update(3, 30.0)
    limit.update(0, 50.0)
    # then
    assert limit.count_max(0.0) == pytest.approx(200, abs=1)


def test_some_answers_are_given_however_long_they_take() -> None:
    assert learn(RefreshLimit(latency_ms=100, share=0.1), 1_000.0).count_max(1.0) == COUNT_MIN


def run_late(limit: RefreshLimit, load: float, batches: int = BATCHES) -> RefreshLimit:
    """The limit after batches that each left answers over, of half a millisecond each."""
    for _ in range(batches):
        count = limit.count_max(load)
        limit.update(count, count * 0.5, are_late=True)
    return limit


def test_while_answers_are_late_a_lane_without_a_backlog_of_records_gives_more_step_by_step() -> None:
    # given
    limit = learn(RefreshLimit(latency_ms=100, share=0.5), 0.5)
    # when, then
    assert run_late(limit, 0.5, batches=1).count_max(0.5) == pytest.approx(150 * 1.25, abs=1)
    assert run_late(limit, 0.5).count_max(0.5) == pytest.approx(150 * STRETCH_MAX, abs=1)


def test_a_backlog_of_records_leaves_late_answers_their_share() -> None:
    # given a lane that gave late answers more
    limit = run_late(learn(RefreshLimit(latency_ms=100, share=0.5), 0.5), 0.5)
    # when
    run_late(limit, 1.0)
    # then
    assert limit.count_max(1.0) == pytest.approx(100, abs=1)


def test_answers_that_are_in_time_again_get_the_usual_time() -> None:
    limit = run_late(learn(RefreshLimit(latency_ms=100, share=0.5), 0.5), 0.5)

    assert learn(limit, 0.5, load=0.5).count_max(0.5) == pytest.approx(150, abs=1)
