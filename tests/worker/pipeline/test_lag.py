"""The lag: a partition that does not advance although there is something to read is noticed."""

import pytest

from transport.records import TopicPartition
from worker.ops import metrics
from worker.pipeline.lag import LagMonitor

FIRST, SECOND = TopicPartition("lag.first", 0), TopicPartition("lag.second", 1)


def read_lags() -> list[float | None]:
    """The reported lag of both partitions, None where there is none."""
    labels = [{"topic": partition.topic, "partition": str(partition.partition)} for partition in (FIRST, SECOND)]
    return [metrics.REGISTRY.get_sample_value("shopstream_lag_records", label) for label in labels]


@pytest.mark.parametrize(("stands_s", "stalls"), [(120.0, False), (120.1, True)])
def test_a_partition_with_lag_stalls_only_after_its_time(stands_s: float, stalls: bool) -> None:
    # given
    monitor = LagMonitor(120)
    monitor.update({FIRST: 5}, {FIRST: 9}, 1_000.0)
    # when
    monitor.update({FIRST: 5}, {FIRST: 10}, 1_000.0 + stands_s)
    # then
    assert bool(monitor.stall) == stalls
    if monitor.stall:
        assert monitor.stall == "lag.first/0 has stood at 5 of 10 for 120 s."


def test_a_partition_that_advances_or_has_nothing_to_read_never_stalls() -> None:
    # given
    monitor = LagMonitor(120)
    # when
    for hour in range(5):
        monitor.update({FIRST: hour, SECOND: 7}, {FIRST: 100, SECOND: 7}, hour * 3_600.0)
    # then
    assert monitor.stall is None


def test_the_stall_time_begins_when_there_is_something_to_read() -> None:
    # given an hour without anything to read
    monitor = LagMonitor(120)
    monitor.update({FIRST: 5}, {FIRST: 5}, 0.0)
    monitor.update({FIRST: 5}, {FIRST: 5}, 3_600.0)
    # when
    monitor.update({FIRST: 5}, {FIRST: 6}, 3_601.0)
    # then
    assert monitor.stall is None


def test_a_stalled_partition_recovers_when_it_advances() -> None:
    # given
    monitor = LagMonitor(120)
    monitor.update({FIRST: 5}, {FIRST: 9}, 0.0)
    monitor.update({FIRST: 5}, {FIRST: 9}, 500.0)
    assert monitor.stall
    # when
    monitor.update({FIRST: 6}, {FIRST: 9}, 501.0)
    # then
    assert monitor.stall is None


def test_the_lag_is_reported_while_this_member_owns_the_partition() -> None:
    # given
    monitor = LagMonitor(120)
    monitor.update({FIRST: 5}, {FIRST: 9, SECOND: 3}, 0.0)
    assert read_lags() == [4, 3]
    # when one partition moves to another worker
    monitor.update({FIRST: 7}, {FIRST: 9}, 1.0)
    # then
    assert read_lags() == [2, None]
    monitor.update({}, {}, 2.0)
