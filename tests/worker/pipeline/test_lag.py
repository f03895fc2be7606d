"""Progress: a partition that stands still although there is something to read is noticed."""

import pytest

from transport.records import TopicPartition
from worker.ops import metrics
from worker.pipeline.lag import LagMonitor

ONE, OTHER = TopicPartition("progress.one", 0), TopicPartition("progress.other", 1)


def read_lag(partition: TopicPartition) -> float | None:
    return metrics.REGISTRY.get_sample_value(
        "shopstream_lag_records", {"topic": partition.topic, "partition": str(partition.partition)}
    )


@pytest.mark.parametrize(("stands_s", "stalls"), [(120.0, False), (120.1, True)])
def test_a_partition_with_lag_stalls_after_its_time_and_not_before(stands_s: float, stalls: bool) -> None:
    # given
    progress = LagMonitor(120)
    progress.update({ONE: 5}, {ONE: 9}, 1_000.0)
    # when
    progress.update({ONE: 5}, {ONE: 10}, 1_000.0 + stands_s)
    # then
    assert bool(progress.stall) == stalls
    if progress.stall:
        assert progress.stall == "progress.one/0 has stood at 5 of 10 for 120 s."


def test_a_partition_that_moves_or_has_nothing_to_read_never_stalls() -> None:
    # given
    progress = LagMonitor(120)
    # when
    for hour in range(5):
        progress.update({ONE: hour, OTHER: 7}, {ONE: 100, OTHER: 7}, hour * 3_600.0)
    # then
    assert progress.stall is None


def test_the_time_of_standing_begins_when_there_is_something_to_read() -> None:
    # given an hour without anything to read
    progress = LagMonitor(120)
    progress.update({ONE: 5}, {ONE: 5}, 0.0)
    progress.update({ONE: 5}, {ONE: 5}, 3_600.0)
    # when
    progress.update({ONE: 5}, {ONE: 6}, 3_601.0)
    # then
    assert progress.stall is None


def test_a_stalled_partition_is_well_again_once_it_moves() -> None:
    # given
    progress = LagMonitor(120)
    progress.update({ONE: 5}, {ONE: 9}, 0.0)
    progress.update({ONE: 5}, {ONE: 9}, 500.0)
    assert progress.stall
    # when
    progress.update({ONE: 6}, {ONE: 9}, 501.0)
    # then
    assert progress.stall is None


def test_the_lag_is_shown_while_the_partition_is_here() -> None:
    # given
    progress = LagMonitor(120)
    progress.update({ONE: 5}, {ONE: 9, OTHER: 3}, 0.0)
    assert (read_lag(ONE), read_lag(OTHER)) == (4, 3)
    # when one partition moves to another worker
    progress.update({ONE: 7}, {ONE: 9}, 1.0)
    # then
    assert (read_lag(ONE), read_lag(OTHER)) == (2, None)
    progress.update({}, {}, 2.0)
