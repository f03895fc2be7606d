"""Progress: a partition that stands still although there is something to read is noticed."""

import pytest

from worker import metrics
from worker.intake import Place
from worker.progress import Progress

ONE, OTHER = Place("progress.one", 0), Place("progress.other", 1)


def lag(place: Place) -> float | None:
    return metrics.REGISTRY.get_sample_value(
        "shopstream_lag_records", {"topic": place.topic, "partition": str(place.partition)}
    )


@pytest.mark.parametrize(("stands_s", "stalls"), [(120.0, False), (120.1, True)])
def test_a_partition_with_lag_stalls_after_its_time_and_not_before(stands_s: float, stalls: bool) -> None:
    # given
    progress = Progress(120)
    progress.note({ONE: 5}, {ONE: 9}, 1_000.0)
    # when
    progress.note({ONE: 5}, {ONE: 10}, 1_000.0 + stands_s)
    # then
    assert bool(progress.stalled) == stalls
    if progress.stalled:
        assert progress.stalled == "progress.one/0 has stood at 5 of 10 for 120 s."


def test_a_partition_that_moves_or_has_nothing_to_read_never_stalls() -> None:
    # given
    progress = Progress(120)
    # when
    for hour in range(5):
        progress.note({ONE: hour, OTHER: 7}, {ONE: 100, OTHER: 7}, hour * 3_600.0)
    # then
    assert progress.stalled is None


def test_the_time_of_standing_begins_when_there_is_something_to_read() -> None:
    # given an hour without anything to read
    progress = Progress(120)
    progress.note({ONE: 5}, {ONE: 5}, 0.0)
    progress.note({ONE: 5}, {ONE: 5}, 3_600.0)
    # when
    progress.note({ONE: 5}, {ONE: 6}, 3_601.0)
    # then
    assert progress.stalled is None


def test_a_stalled_partition_is_well_again_once_it_moves() -> None:
    # given
    progress = Progress(120)
    progress.note({ONE: 5}, {ONE: 9}, 0.0)
    progress.note({ONE: 5}, {ONE: 9}, 500.0)
    assert progress.stalled
    # when
    progress.note({ONE: 6}, {ONE: 9}, 501.0)
    # then
    assert progress.stalled is None


def test_the_lag_is_shown_while_the_partition_is_here() -> None:
    # given
    progress = Progress(120)
    progress.note({ONE: 5}, {ONE: 9, OTHER: 3}, 0.0)
    assert (lag(ONE), lag(OTHER)) == (4, 3)
    # when one partition moves to another worker
    progress.note({ONE: 7}, {ONE: 9}, 1.0)
    # then
    assert (lag(ONE), lag(OTHER)) == (2, None)
    progress.note({}, {}, 2.0)
