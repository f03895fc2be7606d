"""A reader is stalled once its logs go on and nothing arrives for a while."""

from transport.records import TopicPartition
from transport.stall_detector import STALL_S, StallDetector

FIRST, SECOND = TopicPartition("erasures", 0), TopicPartition("erasures", 1)


class StalledClock:
    """A clock that is set by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_reader_at_every_end_is_never_stalled() -> None:
    clock = StalledClock()
    detector = StallDetector(clock_s=clock)

    for _ in range(3):
        detector.compare({FIRST: 3, SECOND: 0}, {FIRST: 3, SECOND: 0})
        clock.now_s += STALL_S

    assert not detector.is_stalled()


def test_a_reader_is_stalled_while_nothing_arrives_that_is_there() -> None:
    # given
    clock = StalledClock()
    detector = StallDetector(clock_s=clock)
    detector.compare({FIRST: 3, SECOND: 1}, {FIRST: 3, SECOND: 0})
    # when
    clock.now_s += STALL_S - 1
    detector.compare({FIRST: 3, SECOND: 2}, {FIRST: 3, SECOND: 0})
    # then
    assert not detector.is_stalled()
    clock.now_s += 1
    assert detector.is_stalled()
    # when it has a new client
    detector.reset()
    # then
    assert not detector.is_stalled()


def test_a_reader_of_a_long_log_is_not_stalled() -> None:
    clock = StalledClock()
    detector = StallDetector(clock_s=clock)

    for position in range(5):
        detector.compare({FIRST: 9}, {FIRST: position})
        clock.now_s += STALL_S - 1
        detector.reset()
        assert not detector.is_stalled()


def test_an_empty_partition_counts_until_its_end_is_reported() -> None:
    clock = StalledClock()
    detector = StallDetector(clock_s=clock)
    detector.compare({FIRST: 0}, {})

    clock.now_s += STALL_S

    assert detector.is_stalled()
