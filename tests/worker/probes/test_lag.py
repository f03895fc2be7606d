"""The lag in records and in seconds, and since when a partition stands."""

from collections.abc import Iterator

import pytest

from transport.records import TopicPartition
from worker.ops import metrics
from worker.probes.lag import LagMonitor

FIRST, SECOND = TopicPartition("lag.first", 0), TopicPartition("lag.second", 1)


@pytest.fixture
def monitor() -> Iterator[LagMonitor]:
    monitor = LagMonitor()
    yield monitor
    monitor.update({}, {}, 0.0)


def read_lags(name: str = "lag_records") -> list[float | None]:
    """The reported lag of both partitions, None where there is none."""
    labels = [{"topic": partition.topic, "partition": str(partition.partition)} for partition in (FIRST, SECOND)]
    return [metrics.REGISTRY.get_sample_value(f"shopstream_{name}", label) for label in labels]


def test_a_partition_stands_since_it_last_moved_or_had_nothing_to_read(monitor: LagMonitor) -> None:
    since = []
    for now_s, position, end in (
        (0, 5, 9),
        (10, 5, 10),
        (20, 6, 10),
        (30, 6, 10),
        (40, 10, 10),
        (50, 10, 10),
        (60, 10, 11),
    ):
        monitor.update({FIRST: position}, {FIRST: end}, float(now_s))
        since.append(monitor.partitions[FIRST].since_s)

    assert since == [0, 0, 20, 20, 40, 50, 50]


def test_a_partition_that_is_folded_again_or_loaded_does_not_stand(monitor: LagMonitor) -> None:
    # given a partition whose answered position stays
    monitor.update({FIRST: 5}, {FIRST: 9}, 0.0, folded={FIRST: 1})
    # when its events are folded again
    monitor.update({FIRST: 5}, {FIRST: 9}, 10.0, folded={FIRST: 2})
    assert monitor.partitions[FIRST].since_s == 10
    # when the worker loads something else
    monitor.update({FIRST: 5}, {FIRST: 9}, 30.0, folded={FIRST: 2}, worked_s=25.0)
    # then
    assert monitor.partitions[FIRST].since_s == 25


def test_the_lag_is_reported_while_this_member_owns_the_partition(monitor: LagMonitor) -> None:
    # given
    monitor.update({FIRST: 5}, {FIRST: 9, SECOND: 3}, 0.0)
    assert read_lags() == [4, 3]
    # when one partition moves to another worker
    monitor.update({FIRST: 7}, {FIRST: 9}, 1.0)
    # then
    assert (read_lags(), read_lags("lag_seconds")) == ([2, None], [0, None])


def test_the_lag_is_not_zero_while_the_end_is_not_known(monitor: LagMonitor) -> None:
    # given a partition without lag
    monitor.update({FIRST: 9}, {FIRST: 9}, 100.0)
    assert (read_lags()[0], read_lags("lag_seconds")[0]) == (0, 0)
    # when Kafka does not answer
    monitor.update({FIRST: 9}, {FIRST: 9}, 130.0, are_ends_known=False)
    # then
    assert (read_lags()[0], read_lags("lag_seconds")[0]) == (1, 30)


def test_the_lag_in_seconds_is_the_age_of_the_next_record(monitor: LagMonitor) -> None:
    # given a record of 500 s ago, found at 1,000 s of another clock
    monitor.update({FIRST: 5}, {FIRST: 9}, 1_000.0)
    monitor.record_ages({FIRST: 500_000}, {FIRST: 5}, now_ms=1_000_000, now_s=1_000.0)
    # when the partition stands, it grows
    monitor.update({FIRST: 5}, {FIRST: 9}, 1_020.0)
    assert read_lags("lag_seconds")[0] == 520
    # when the partition moves, it stays as it was measured
    monitor.update({FIRST: 7}, {FIRST: 9}, 1_030.0)
    assert read_lags("lag_seconds")[0] == 500
    # when everything is read, it is 0, and the next record is measured again
    monitor.update({FIRST: 9}, {FIRST: 9}, 1_040.0)
    assert read_lags("lag_seconds")[0] == 0
    monitor.update({FIRST: 9}, {FIRST: 10}, 1_043.0)
    assert read_lags("lag_seconds")[0] == 3
